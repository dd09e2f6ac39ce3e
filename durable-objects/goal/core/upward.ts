/**
 * Sub-goals, from below: a goal that hangs on another one's task obeys its
 * orders and reports to it. A report is numbered in the commit before it is
 * sent, so a number never means two things; it is sent again until it was
 * acknowledged.
 */
import type { Failure } from "../../../shared/errors.ts";
import { spentInAll } from "../../../shared/policy/account.ts";
import { RELATIVE_ANSWER_MS, RELATIVE_RETRY_MS, RELATIVE_RETRY_MS_MAX, SUBGOAL_REPORT_MS } from "../../../shared/limits.ts";
import { takeGrantFromAbove } from "./budget.ts";
import type { ParentWord, SubgoalOrder } from "../../../shared/protocol/subgoal.ts";
import { countsInAll, hasNews, isFinal, isPaused, noteStandstill, owesReport, reportOf, statusOf } from "./kin.ts";
import { stopGoal } from "./lifecycle.ts";
import type { Recorder } from "./recorder.ts";
import type { GoalState } from "./state.ts";

export type UpwardChange =
  | { readonly kind: "parent.ordered"; readonly number: number; readonly isPaused: boolean }
  /** How the goal stands after the changes before this one is its report of this number. */
  | { readonly kind: "parent.told"; readonly number: number }
  | { readonly kind: "parent.heard"; readonly number: number }
  /** The goal could not begin. */
  | { readonly kind: "goal.refused"; readonly failure: Failure };

export function applyUpward(state: GoalState, change: UpwardChange): void {
  const { kin } = state;
  switch (change.kind) {
    case "parent.ordered": {
      const wasPaused = isPaused(state);
      kin.above = { number: change.number, isPaused: change.isPaused };
      return noteStandstill(state, wasPaused);
    }
    case "parent.told": {
      const { number } = change;
      kin.told = {
        number,
        status: statusOf(state),
        counts: [...countsInAll(state)],
        spent: spentInAll(state.budget.account),
        isFinal: isFinal(state),
      };
      return;
    }
    case "parent.heard":
      kin.acknowledged = change.number;
      return;
    case "goal.refused":
      kin.refusal = change.failure;
      return;
  }
}

function note(rec: Recorder, change: UpwardChange): void {
  applyUpward(rec.state, change);
  rec.out.changes.push(change);
}

export function refuse(rec: Recorder, failure: Failure): void {
  note(rec, { kind: "goal.refused", failure });
}

/** Does what the goal above wants. An order that was overtaken changes nothing. */
export function takeOrder(rec: Recorder, { number, isPaused, stop, funds }: SubgoalOrder): void {
  const { goal, kin, budget } = rec.state;
  if (goal!.phase !== "active") return;
  // One that comes late must not take a bound away; the answer to the latest report may.
  takeGrantFromAbove(
    rec,
    funds.map((total, d) => total ?? budget.account.funds[d]!),
  );
  if (number > kin.above.number) note(rec, { kind: "parent.ordered", number, isPaused });
  if (stop !== null) stopGoal(rec, stop, stop);
}

/** Puts a number on how the goal stands now, where it has none yet. */
export function numberReport(rec: Recorder): void {
  if (hasNews(rec.state)) note(rec, { kind: "parent.told", number: (rec.state.kin.told?.number ?? 0) + 1 });
}

/** Writes the report that is due. Once a turn, also after the goal's end. */
export function writeReport(rec: Recorder): void {
  const { state, nowMs, out } = rec;
  const { goal, kin, mail } = state;
  if (goal?.spec.parent === undefined) return;
  if (!owesReport(state)) return keepAcknowledged(rec);
  const { report } = mail;
  if (nowMs < report.dueAtMs && !(isUrgent(state) && !report.isOut && report.failures === 0)) return;
  numberReport(rec);
  mail.report = { isOut: true, dueAtMs: nowMs + RELATIVE_ANSWER_MS, failures: report.failures };
  out.report = reportOf(state);
  // One message is enough for both.
  if (mail.acknowledged > kin.acknowledged) note(rec, { kind: "parent.heard", number: mail.acknowledged });
}

/** An end is told at once. */
function isUrgent(state: GoalState): boolean {
  const { told } = state.kin;
  return told === null || told.status !== statusOf(state) || told.isFinal !== isFinal(state);
}

/** That the last report was heard is worth a row of its own, or the goal would never be done with it. Others are told once more by a new incarnation. */
function keepAcknowledged(rec: Recorder): void {
  const { kin, mail } = rec.state;
  if (isFinal(rec.state) && mail.acknowledged > kin.acknowledged) note(rec, { kind: "parent.heard", number: mail.acknowledged });
}

/** The goal above has heard a report. One that does not know this goal has no use for it. */
export function takeWord(rec: Recorder, number: number, { order, reportMs }: ParentWord): void {
  const { mail, goal, kin } = rec.state;
  mail.acknowledged = Math.max(mail.acknowledged, number);
  mail.reportMs = reportMs;
  mail.report = { isOut: false, dueAtMs: rec.nowMs + Math.max(SUBGOAL_REPORT_MS, reportMs), failures: 0 };
  if (order !== null) {
    if (number === kin.told?.number && goal!.phase === "active") takeGrantFromAbove(rec, order.funds);
    takeOrder(rec, order);
  }
  if (order === null && goal!.phase === "active") stopGoal(rec, "canceled", "canceled");
}

export function noteUnheard({ state, nowMs }: Recorder): void {
  const { mail } = state;
  const failures = mail.report.failures + 1;
  const restMs = Math.min(RELATIVE_RETRY_MS_MAX, RELATIVE_RETRY_MS * 2 ** Math.min(16, failures - 1));
  mail.report = { isOut: false, dueAtMs: nowMs + restMs, failures };
}
