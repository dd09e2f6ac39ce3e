/**
 * What a thrown error becomes. Expected failures are values and never come
 * here: this is for objects that are overloaded or restarting, and for bugs.
 */
import { type Failure, failure } from "../../../shared/errors.ts";
import type { EdgeContext } from "../context.ts";
import { problem } from "../reply.ts";

const RETRY_AFTER_MS = 1_000;

/** Properties that the runtime puts on errors of calls to Durable Objects. */
interface RuntimeMarks {
  readonly overloaded?: unknown;
  readonly retryable?: unknown;
  readonly durableObjectReset?: unknown;
}

const later = (detail: string): Failure => failure("temporary_reduced_capacity", detail, { retryAfterMs: RETRY_AFTER_MS });

/** The runtime has already repeated what it safely can, so nothing is retried here; least of all an overloaded object. */
export function failureOf(error: Error & RuntimeMarks): Failure {
  if (error.overloaded === true) return later("more requests than this object can take arrived at once; send this one again later");
  if (error.retryable === true || error.durableObjectReset === true) {
    return later("the object behind this request restarted; send the request again, with the same Idempotency-Key if it had one");
  }
  return failure("internal", "something went wrong inside Drover; the log of the Worker says what");
}

/** The stack goes to the log, never onto the wire. */
export function onError(error: Error, c: EdgeContext): Response {
  const fault = failureOf(error);
  if (fault.code === "internal") console.error(`${c.req.method} ${c.req.path}`, error);
  return problem(fault);
}
