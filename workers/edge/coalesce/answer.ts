/** An answer as many get it. What is the same for all of them is made once, so that each costs little when it comes. */
import type { WholeAnswer } from "../../../shared/rpc-flight.ts";
import { NO_BODY_STATUSES } from "../proxy/attempt.ts";
import { ageSecondsOf } from "./sharing.ts";

export interface SharedAnswer {
  readonly body: Uint8Array | null;
  readonly init: ResponseInit;
}

/** `ageMs`: since when it is kept; null where it came just now. */
export function sharedAnswer(method: string, { status, headers, body }: WholeAnswer, ageMs: number | null): SharedAnswer {
  const own = new Headers(headers as [string, string][]);
  own.append("cache-status", ageMs === null ? "drover; collapsed" : "drover; hit");
  if (ageMs !== null) own.set("age", String(ageSecondsOf(own) + Math.floor(ageMs / 1_000)));
  const isEmpty = method === "HEAD" || NO_BODY_STATUSES.has(status);
  return { body: isEmpty ? null : body, init: { status, headers: own, encodeBody: "manual" } };
}

export const responseOf = ({ body, init }: SharedAnswer): Response => new Response(body, init);
