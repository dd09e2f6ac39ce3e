/**
 * Whether a call may have the answer of an equal one. What is safe to repeat is
 * not yet safe to merge, so that is for GET and HEAD; other calls have to ask
 * for it, because two charges that are meant are two.
 */
import { failure } from "../../../shared/errors.ts";
import { FLIGHT_BODY_BYTES_MAX } from "../../../shared/limits-flight.ts";
import { err, ok } from "../../../shared/result.ts";
import type { Answer } from "../../../shared/rpc.ts";
import { asksAnew } from "./sharing.ts";

export function wishOf({ method, headers, body }: Request): Answer<boolean> {
  const wish = headers.get("drover-coalesce");
  if (wish !== null && wish !== "true" && wish !== "false") {
    return err(failure("invalid_request", 'Drover-Coalesce must be "true" or "false"'));
  }
  // A call with a key meets itself by that, and no other.
  if (wish === "false" || headers.has("idempotency-key") || asksAnew(headers)) return ok(false);
  if (wish === null) return ok((method === "GET" || method === "HEAD") && body === null);
  const length = headers.get("content-length");
  return ok(body === null || (length !== null && Number(length) <= FLIGHT_BODY_BYTES_MAX));
}
