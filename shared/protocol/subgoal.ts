/**
 * What a goal and its sub-goals tell one another. Each message says how things
 * stand, never what has changed, and carries a number that rises: one that is
 * lost, late or repeated does no harm.
 */
import type { Failure } from "../errors.ts";
import type { Bounds } from "../policy/account.ts";
import type { GoalStatus } from "./goal.ts";

/** Where a sub-goal hangs in the tree of goals. */
export interface ParentLink {
  readonly goalId: string;
  /** The parent's task that this goal is the work of. */
  readonly task: number;
  /** Every goal above it, the root first, the parent last. */
  readonly ancestors: readonly string[];
  /** The task's place in the whole tree, by which it holds locks: the root goal's id, then the number of each task on the way down, parted by `/`. */
  readonly path: string;
  /** Levels of tasks above the goal's own, in all goals above it. */
  readonly depth: number;
  /** No goal outlives the one above it. Milliseconds since the epoch; null for no deadline. */
  readonly deadlineAtMs: number | null;
}

/** How a sub-goal stands, with all that is below it. */
export interface SubgoalReport {
  readonly goalId: string;
  readonly task: number;
  readonly number: number;
  readonly status: GoalStatus;
  /** Tasks by status, in the order of `TASK_STATUSES`. */
  readonly counts: readonly number[];
  /** What was spent in all, by dimension of the budget. */
  readonly spent: readonly number[];
  /** It has ended and nothing below it is left: nothing of this will change any more. */
  readonly isFinal: boolean;
  /** Why it could not begin. */
  readonly refusal?: Failure;
}

/** What a goal wants of a sub-goal. */
export interface SubgoalOrder {
  readonly goalId: string;
  readonly task: number;
  /** Rises whenever the goal is paused or resumed. */
  readonly number: number;
  readonly isPaused: boolean;
  /** How it is to end at once; null where it is to go on. */
  readonly stop: "canceled" | "expired" | null;
  /** Totals of the grants to it, by dimension of the budget; null where the goal above is not bounded. */
  readonly funds: Bounds;
}

/** The answer to a report: `order` is null where the goal knows of no such sub-goal, or not any more. */
export interface ParentWord {
  readonly order: SubgoalOrder | null;
  /** How often to report. */
  readonly reportMs: number;
}
