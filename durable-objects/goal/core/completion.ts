/**
 * When a goal, or a parent, is done, from the counts of its members alone. A
 * verdict other than `open` is final: every later count agrees with it, or the
 * members that could disagree have been canceled.
 */
import type { CompletionRule } from "../../../shared/protocol/task.ts";
import { EXPIRED, FAILED, SUCCEEDED } from "./codes.ts";
import { liveCount, totalCount } from "./state.ts";

export type Verdict = "open" | "succeeded" | "failed";

/** `isClosed`: no member can be added any more, so shares and shortfalls can be told early. */
export function verdictOf(rule: CompletionRule, counts: readonly number[], isClosed: boolean): Verdict {
  const live = liveCount(counts);
  const succeeded = counts[SUCCEEDED]!;
  const failed = counts[FAILED]! + counts[EXPIRED]!;
  const isFinal = isClosed || live === 0;
  if (rule.failFast === true && failed > 0) return "failed";
  if (rule.toleratedFailureCount !== undefined && failed > rule.toleratedFailureCount) return "failed";
  const share = rule.toleratedFailurePercentage;
  const isExceeded = share !== undefined && failed * 100 > share * totalCount(counts);
  if (isFinal && isExceeded) return "failed";
  if (rule.minSuccessful !== undefined) {
    // With success no member comes any more, so the share would stay what it is.
    if (succeeded >= rule.minSuccessful && !isExceeded) return "succeeded";
    return isFinal && succeeded + live < rule.minSuccessful ? "failed" : "open";
  }
  if (live > 0) return "open";
  const isTolerant = rule.toleratedFailureCount !== undefined || share !== undefined;
  return failed > 0 && !isTolerant ? "failed" : "succeeded";
}
