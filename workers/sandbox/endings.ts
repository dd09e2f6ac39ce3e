/** How invocations end in either engine, in the same words. */
import { FUNCTION_OUTPUT_CHARS_MAX } from "../../shared/limits.ts";
import type { Ended } from "../../shared/protocol/function.ts";

type Failed = Extract<Ended, { outcome: "failed" }>;

export const NEVER_COMES = "the handler waits for something that never comes: nothing is asked of the host, and no timer is set";

export const tooLong = (chars: number): string =>
  `the output has ${chars} characters of JSON, and ${FUNCTION_OUTPUT_CHARS_MAX} are the most`;

export function failed(code: Failed["code"], detail: string): Failed {
  return { outcome: "failed", code, detail, cpuMs: 0 };
}

/** Ended from outside. Its executor says it better, but for whoever has none. */
export function endedBy(reason: unknown): Failed {
  const text = String(reason);
  return failed(/timed out/.test(text) ? "function_limit" : "canceled", `the invocation was ended: ${text}`);
}
