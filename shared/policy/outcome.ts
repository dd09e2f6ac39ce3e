/** What the end of a call says about the upstream, not about the call. Pure. */
import type { Outcome } from "../protocol/line.ts";

/**
 * `answered`: it works. `refused`: it has too much. `unavailable`: it was not
 * reached, or a gateway says so. `nothing`: the call never left.
 */
export type Verdict = "answered" | "refused" | "unavailable" | "nothing";

/** The end of a call that was passed through. */
export interface CallEnd {
  readonly outcome: Outcome;
  /** 0 where there was no answer. */
  readonly status: number;
  /** Until the answer's head came: a long stream is not a queue. */
  readonly ms: number;
  readonly retryAfterMs: number;
  /** What the answer says that it used; left out where nobody looked. */
  readonly tokens?: number;
  /** As `tokens`, in millionths of a US dollar. */
  readonly costMicros?: number;
}

type TryEnd = Pick<CallEnd, "outcome" | "status">;

/** The status that a `not_sent` line carries where the request itself cannot be sent. */
export const UNSENDABLE_STATUS = 400;
/** The end of a call that never left, which says nothing of its upstream. */
export const NOT_SENT: CallEnd = { outcome: "not_sent", status: UNSENDABLE_STATUS, ms: 0, retryAfterMs: 0 };
/** The status that a `broken` line carries where Drover itself cut the call off. */
export const LEASE_ENDED_STATUS = 499;
/** The status that a `not_sent` line carries where the executor gave the call back without trying. */
export const GIVEN_BACK_STATUS = 498;

/** The status that the line of a function's failed run carries where another attempt may fare better. */
export const RUN_AGAIN_STATUS = 503;

/** The upstream says that it did nothing. */
export const isRefusal = (status: number): boolean => status === 408 || status === 425 || status === 429;

/** RFC 9110: worth another try. */
export const isTransient = (status: number): boolean => isRefusal(status) || status >= 500;

/** Whether the end of one of two tries decides, or the other one's might be better. */
export const isDecisive = (outcome: Outcome, status: number): boolean =>
  outcome === "too_large" || (outcome === "answered" && !isTransient(status));

/** Of two tries that have ended, the earlier one without deciding: whether the later one's end is taken. An answer rather than none, and else the first try's. */
export function isLaterTaken(later: TryEnd, earlier: TryEnd, isFirst: boolean): boolean {
  if (isDecisive(later.outcome, later.status)) return true;
  const isAnswer = later.outcome === "answered";
  return isAnswer === (earlier.outcome === "answered") ? isFirst : isAnswer;
}

export function verdictOfCall(outcome: Outcome, status: number): Verdict {
  switch (outcome) {
    case "timeout":
      return "refused";
    case "broken":
      return status === LEASE_ENDED_STATUS ? "nothing" : "unavailable";
    case "not_sent":
      return status === UNSENDABLE_STATUS || status === GIVEN_BACK_STATUS ? "nothing" : "unavailable";
    case "too_large":
      return "answered";
    case "answered":
      if (status === 429 || status === 503) return "refused";
      // 521 to 530: what Cloudflare answers where an origin cannot be reached.
      return status === 502 || status === 504 || (status >= 521 && status <= 530) ? "unavailable" : "answered";
    // A function's run is no call.
    default:
      return "nothing";
  }
}
