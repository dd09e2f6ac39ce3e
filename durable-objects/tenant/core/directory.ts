/**
 * What a goal's report changes in the directory. An ended goal stays ended,
 * and only what lists show for good is worth a row: running counts are not.
 */
import type { Counts, GoalStatus } from "../../../shared/protocol/goal.ts";

/** The part of a goal's report that lists show and that can change. */
interface Shown {
  readonly name: string;
  readonly status: GoalStatus;
  readonly sealed: boolean;
  readonly deadlineAtMs: number | null;
  readonly endedAtMs: number | null;
  readonly counts: Counts;
}

/** `ignored`: an older report overtaken by the goal's end. `live`: only its running counts moved. */
export type ReportEffect = "ignored" | "live" | "durable";

const hasEnded = (status: GoalStatus): boolean => status !== "active" && status !== "paused";

function countsDiffer(a: Counts, b: Counts): boolean {
  return (Object.keys(b) as (keyof Counts)[]).some((name) => a[name] !== b[name]);
}

/** `known` is the directory's row, null where the goal is new to it. */
export function effectOf(known: Shown | null, report: Shown): ReportEffect {
  if (known === null) return "durable";
  if (hasEnded(known.status) && !hasEnded(report.status)) return "ignored";
  const isSame =
    known.status === report.status &&
    known.sealed === report.sealed &&
    known.name === report.name &&
    known.endedAtMs === report.endedAtMs &&
    known.deadlineAtMs === report.deadlineAtMs;
  // The counts of an ended goal are its last, so they are kept.
  return isSame && !(hasEnded(report.status) && countsDiffer(known.counts, report.counts)) ? "live" : "durable";
}

/** Whether the goal's counts may still move. */
export function isRunning(report: Shown): boolean {
  return !hasEnded(report.status);
}
