/** `Prefer: wait=n` (RFC 7240 §4.3): how long a caller would hold the line. */
import { WAIT_SECONDS_MAX } from "../../shared/limits.ts";

const WAIT = /(?:^|,)\s*wait\s*=\s*"?(\d{1,9})"?\s*(?:[;,]|$)/i;

/** Seconds to wait, at most `WAIT_SECONDS_MAX`; null where none are asked for. A preference that is malformed is ignored, as the RFC says. */
export function waitSeconds(prefer: string | undefined): number | null {
  const match = WAIT.exec(prefer ?? "");
  return match === null ? null : Math.min(Number(match[1]), WAIT_SECONDS_MAX);
}

const ASYNC = /(?:^|,)\s*respond-async\s*(?:[;,]|$)/i;

/** `Prefer: respond-async` (RFC 7240 §4.1): the caller would rather come again than be refused. */
export function respondsAsync(prefer: string | undefined): boolean {
  return ASYNC.test(prefer ?? "");
}

/** Preferences that are for Drover, and not for an upstream behind it. */
const OWN = /^\s*(?:wait|respond-async)\b/i;

/** What is left of `Prefer` for an upstream; empty where nothing is. */
export function otherPreferences(prefer: string | null): string {
  const parts = (prefer ?? "").split(",").filter((part) => part.trim() !== "" && !OWN.test(part));
  return parts.map((part) => part.trim()).join(", ");
}
