/**
 * The `Idempotency-Key` header. A key is scoped by subject, method and route,
 * and bound to everything that makes the request what it is; the object that
 * takes the effect stores the reply under it. Only requests with a key are hashed.
 */
import { hexOf } from "../../../shared/bytes.ts";
import { failure } from "../../../shared/errors.ts";
import { IDEMPOTENCY_KEY_CHARS_MAX } from "../../../shared/limits.ts";
import { err, ok } from "../../../shared/result.ts";
import type { Answer, IdempotencyKey } from "../../../shared/rpc.ts";
import type { EdgeContext } from "../context.ts";
import type { Body } from "./body.ts";

const PRINTABLE = /^[\x20-\x7e]+$/;
/** A string of RFC 8941 §3.3.3: in quotes, where `\` stands before `"` and `\` only. */
const QUOTED = /^"((?:[\x20-\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"$/;

/** The key in a header's value, given bare or as a structured-field string; null where it is no key. */
export function parseIdempotencyKey(header: string): string | null {
  const isQuoted = header.startsWith('"');
  const key = isQuoted ? QUOTED.exec(header)?.[1]?.replaceAll(/\\(.)/g, "$1") : header;
  return key !== undefined && key.length <= IDEMPOTENCY_KEY_CHARS_MAX && PRINTABLE.test(key) ? key : null;
}

async function sha256(bytes: Uint8Array): Promise<string> {
  return hexOf(new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)));
}

/** `route` is the route's pattern, so that two routes never share a key. Undefined where the request has no key. */
export async function idempotencyOf(c: EdgeContext, route: string, body: Body): Promise<Answer<IdempotencyKey | undefined>> {
  const header = c.req.header("idempotency-key");
  if (header === undefined) return ok(undefined);
  const key = parseIdempotencyKey(header);
  if (key === null) {
    const detail = `the Idempotency-Key must be 1 to ${IDEMPOTENCY_KEY_CHARS_MAX} printable ASCII characters, bare or as a quoted string`;
    return err(failure("invalid_request", detail));
  }
  const { pathname, search } = new URL(c.req.url);
  const parts = [c.req.method, pathname, search, body.mediaType, await sha256(body.bytes)];
  const fingerprint = await sha256(new TextEncoder().encode(parts.join("\n")));
  return ok({ key: `${JSON.stringify(c.get("caller").claims.subject)} ${c.req.method} ${route} ${key}`, fingerprint });
}
