/** `Retry-After`: how long an upstream asks to be left alone. */
import { RETRY_AFTER_MS_MAX } from "../../shared/limits.ts";

const SECONDS = /^\d+$/;

/** RFC 9110 §10.2.3: seconds, or an HTTP date. Zero where there is none. */
export function retryAfterMsOf(value: string | null, nowMs: number): number {
  if (value === null) return 0;
  const text = value.trim();
  const ms = SECONDS.test(text) ? Number(text) * 1_000 : Date.parse(text) - nowMs;
  return ms > 0 ? Math.min(Math.ceil(ms), RETRY_AFTER_MS_MAX) : 0;
}
