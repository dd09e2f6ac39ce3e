/**
 * How answers look on the wire: JSON, or RFC 9457 problem+json. Every failure
 * leaves the edge through `problem`, so status, body and headers always agree.
 */
import { type Failure, problemOf } from "../../shared/errors.ts";
import type { Answer, JsonReply } from "../../shared/rpc.ts";

type HeaderMap = Readonly<Record<string, string>>;

/** `text` is JSON already. */
export function json(text: string, status = 200, headers: HeaderMap = {}): Response {
  return new Response(text, { status, headers: { "content-type": "application/json", ...headers } });
}

/** A stored answer that is given again differs from the first in this header only. */
export function jsonOnce(reply: JsonReply, status: number, headers: HeaderMap = {}): Response {
  return json(reply.json, status, reply.replayed ? { ...headers, "idempotent-replayed": "true" } : headers);
}

export function problem(fault: Failure, headers: HeaderMap = {}): Response {
  const body = problemOf(fault);
  const all = new Headers({ "content-type": "application/problem+json", ...headers });
  if (fault.code === "unauthorized") all.set("www-authenticate", "Bearer");
  if (fault.retryAfterMs !== undefined) all.set("retry-after", String(Math.ceil(fault.retryAfterMs / 1000)));
  return new Response(JSON.stringify(body), { status: body.status, headers: all });
}

/** The answer of an object as a response. */
export function respond<T>(answer: Answer<T>, toResponse: (value: T) => Response): Response {
  return answer.ok ? toResponse(answer.value) : problem(answer.error);
}
