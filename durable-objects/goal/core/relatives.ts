/** What goals ask of one another, as commands: each may come any number of times, early, late or twice. */
import type { Failure } from "../../../shared/errors.ts";
import { failure } from "../../../shared/errors.ts";
import type { GoalId } from "../../../shared/ids.ts";
import { RELATIVE_RETRY_MS } from "../../../shared/limits.ts";
import { available, type Bounds, type FundRequest, NOTHING, TASKS } from "../../../shared/policy/account.ts";
import type { GoalSpec } from "../../../shared/protocol/goal.ts";
import type { ParentWord, SubgoalOrder, SubgoalReport } from "../../../shared/protocol/subgoal.ts";
import { err, ok, type Result } from "../../../shared/result.ts";
import { takeGrantFromAbove } from "./budget.ts";
import { reportOf } from "./kin.ts";
import { closeEmptyGroups, stopGoal } from "./lifecycle.ts";
import type { Recorder, Registered } from "./recorder.ts";
import { standingRules } from "./rights.ts";
import { fundSubgoal, hearSubgoal, loseSubgoal, noteNoAnswer, takeAnswer, writeOrders } from "./subgoals.ts";
import { draftOf, type Submit, take } from "./submit.ts";
import { noteUnheard, numberReport, refuse, takeOrder, takeWord, writeReport } from "./upward.ts";

export type RelativeCommand =
  /** From the goal above. `birth` is what the sub-goal is made of, where it may not be there yet. */
  | { readonly kind: "obey"; readonly order: SubgoalOrder; readonly birth: Birth | null }
  /** A sub-goal reports. */
  | { readonly kind: "hear"; readonly report: SubgoalReport }
  /** A sub-goal has answered an order; null where it does not exist. */
  | { readonly kind: "obeyed"; readonly order: SubgoalOrder; readonly report: SubgoalReport | null }
  | { readonly kind: "fund-subgoal"; readonly goalId: string; readonly task: number; readonly request: FundRequest }
  /** An order got no answer. */
  | { readonly kind: "not-obeyed"; readonly task: number }
  /** The goal above has answered a report. */
  | { readonly kind: "heard"; readonly number: number; readonly word: ParentWord }
  /** A report got no answer. */
  | { readonly kind: "not-heard" };

export interface Birth {
  readonly id: GoalId;
  readonly spec: GoalSpec;
  readonly registry: Registered;
  /** Totals of the grants for its first tasks. */
  readonly funds: Bounds;
  readonly tasks: Omit<Submit, "kind" | "atomic">;
}

export interface RelativeDone {
  /** How a sub-goal stands. */
  readonly report?: SubgoalReport;
  readonly word?: ParentWord;
  readonly funds?: Bounds;
}

const DONE: Result<RelativeDone, Failure> = ok({});

export function relate(rec: Recorder, command: RelativeCommand): Result<RelativeDone, Failure> {
  const { state } = rec;
  if (command.kind === "obey") return obey(rec, command.order, command.birth);
  if (state.goal === null) {
    // Nothing that does not exist has sub-goals.
    if (command.kind === "fund-subgoal") return ok({ funds: NOTHING });
    return command.kind === "hear" ? ok({ word: { order: null, reportMs: RELATIVE_RETRY_MS } }) : DONE;
  }
  switch (command.kind) {
    case "hear":
      return ok({ word: hearSubgoal(rec, command.report) });
    case "fund-subgoal":
      return ok({ funds: fundSubgoal(rec, command.goalId, command.task, command.request) });
    case "obeyed":
      if (command.report === null) loseSubgoal(rec, command.order.task);
      else takeAnswer(rec, command.order, command.report);
      return DONE;
    case "not-obeyed":
      noteNoAnswer(rec, command.task);
      return DONE;
    case "heard":
      takeWord(rec, command.number, command.word);
      return DONE;
    case "not-heard":
      noteUnheard(rec);
      return DONE;
  }
}

/** Writes what is to be told. Once a turn, also after the goal's end. */
export function tellRelatives(rec: Recorder): void {
  writeOrders(rec);
  writeReport(rec);
}

function obey(rec: Recorder, order: SubgoalOrder, birth: Birth | null): Result<RelativeDone, Failure> {
  const { state } = rec;
  if (state.goal === null) {
    if (birth === null) return err(failure("not_found", "there is no such sub-goal"));
    beBorn(rec, order, birth);
  }
  takeOrder(rec, order);
  numberReport(rec);
  // The answer tells it, so there is no hurry to tell it again.
  state.mail.report.dueAtMs = Math.max(state.mail.report.dueAtMs, rec.nowMs + RELATIVE_RETRY_MS);
  return ok({ report: reportOf(state) });
}

/**
 * A sub-goal is there from its first order on, whatever becomes of it: one that
 * is to stop at once, or whose tasks cannot be taken, ends as it begins, so that
 * an order that comes late finds it and makes no other.
 */
function beBorn(rec: Recorder, order: SubgoalOrder, { id, spec, registry, funds, tasks }: Birth): void {
  rec.setRegistry(registry);
  const command: Submit = { kind: "submit", atomic: true, ...tasks };
  rec.create(id, spec);
  takeGrantFromAbove(rec, funds);
  if (order.stop !== null) return;
  const draft = draftOf(rec.state, command, standingRules(rec.state), available(rec.state.budget.account, TASKS));
  if (!draft.ok) {
    refuse(rec, draft.error);
    return stopGoal(rec, "failed", "canceled");
  }
  take(rec, command, draft.value, []);
  if (spec.sealed) closeEmptyGroups(rec);
}
