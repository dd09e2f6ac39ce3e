/**
 * What a commit writes: the closed set of facts about a goal. A change says
 * what was decided, never why, so a replay by newer code cannot decide
 * otherwise. Rare changes are objects; frequent ones carry flat lists of
 * integers, in the order of their columns below. What is here is on disks:
 * kinds and columns are only ever added.
 */
import type { GoalId } from "../../../shared/ids.ts";
import type { Amounts } from "../../../shared/policy/account.ts";
import type { FunctionVersion } from "../../../shared/protocol/function.ts";
import type { GoalSpec } from "../../../shared/protocol/goal.ts";
import type { Upstream } from "../../../shared/protocol/upstream.ts";
import type { BackupsChange } from "./backups.ts";
import type { BudgetChange } from "./budget.ts";
import type { ClaimChange } from "./claims.ts";
import type { Hedges } from "./hedges.ts";
import type { Policy } from "../../../shared/policy/rules.ts";
import type { RightsChange } from "./rights.ts";
import type { FlightsChange } from "./flights.ts";
import type { LocksChange } from "./locks.ts";
import type { RunsChange } from "./run-state.ts";
import type { SubgoalChange } from "./subgoals.ts";
import type { UpwardChange } from "./upward.ts";
import type { SharedStateChange } from "./shared-state.ts";
import type { GoalPhase } from "./state.ts";

export interface TasksAdded {
  readonly kind: "tasks.added";
  readonly offer: number;
  readonly atMs: number;
  /** How many specs are taken from the offer, and the place of the first one where it is not the offer's first. */
  readonly size: number;
  readonly base?: number;
  /** Places in the offer that became no task: joined or rejected. */
  readonly skipped: readonly number[];
  readonly joined: number;
  /** Keys that were derived from content, by place. */
  readonly keys: readonly (readonly [number, string])[];
  /** Places of tasks that need approval. */
  readonly approvals?: readonly number[];
  /** What the token that brought them was restricted to. */
  readonly policies?: readonly Policy[];
}

/** How tasks end that have not when their goal does. */
export type Rest = "canceled" | "expired" | "budget_exhausted";

export type Change =
  | { readonly kind: "goal.created"; readonly id: GoalId; readonly spec: GoalSpec; readonly atMs: number }
  | { readonly kind: "goal.paused"; readonly paused: boolean }
  | { readonly kind: "goal.sealed" }
  /** `rest` is what becomes of the tasks that have not ended. */
  /** Without `keepsTabs`, as older ones are, what gates held was charged at once. */
  | { readonly kind: "goal.ended"; readonly phase: GoalPhase; readonly rest: Rest; readonly atMs: number; readonly keepsTabs?: true }
  | { readonly kind: "goal.end-reported" }
  | {
      readonly kind: "upstreams.set";
      readonly version: number;
      readonly upstreams: readonly Upstream[];
      readonly policy?: Policy | null;
      readonly functions?: readonly FunctionVersion[];
    }
  | { readonly kind: "upstream.gated"; readonly upstream: number; readonly untilMs: number }
  | TasksAdded
  /** Submissions that joined tasks, in a request that added none. */
  | { readonly kind: "tasks.joined"; readonly count: number }
  | { readonly kind: "task.repeated"; readonly task: number; readonly atMs: number }
  | {
      readonly kind: "tasks.started";
      readonly batch: number;
      readonly upstream: number;
      readonly origin: number;
      readonly lanes: number;
      readonly atMs: number;
      readonly tasks: readonly number[];
      /** What each attempt reserves whose task declares nothing; left out for a call alone. */
      readonly reserve?: Amounts | undefined;
      readonly hedges?: Hedges | undefined;
    }
  /** task, status, code, resultRow, resultIndex, startedAtMs, endedAtMs; the times are 0 where no attempt ended it. */
  | { readonly kind: "tasks.ended"; readonly atMs: number; readonly rows: number[] }
  /** task, resultRow, resultIndex, startedAtMs, endedAtMs: own work has succeeded, children have not ended. */
  | { readonly kind: "tasks.worked"; readonly rows: number[] }
  /** task, outcome, startedAtMs, endedAtMs, dueAtMs. */
  | { readonly kind: "tasks.delayed"; readonly rows: number[] }
  /** task, outcome, startedAtMs, endedAtMs: the upstream is down, and the task goes back into the queue. */
  | { readonly kind: "tasks.deferred"; readonly rows: number[] }
  /** task, outcome, startedAtMs, endedAtMs: nobody knows whether it had its effect. */
  | { readonly kind: "tasks.doubted"; readonly rows: number[] }
  | { readonly kind: "tasks.released"; readonly atMs: number; readonly tasks: number[] }
  | { readonly kind: "tasks.lost"; readonly suspicion: number; readonly tasks: number[] }
  | { readonly kind: "results.late"; count: number }
  /** task, whether the try that was beaten was the first, when that one began and ended: the attempt was tried twice. */
  | { readonly kind: "tasks.hedged"; readonly rows: number[] }
  /** task, calls, tokens, costMicros: an attempt that has ended used so much more, or less, than it reserved. */
  | { readonly kind: "usage.corrected"; readonly rows: number[] }
  | BackupsChange
  | SubgoalChange
  | UpwardChange
  | BudgetChange
  | ClaimChange
  | RightsChange
  | RunsChange
  | FlightsChange
  | LocksChange
  | SharedStateChange
  /** The task has lost a lock, and with it gives up the others. */
  | { readonly kind: "locks.lost"; readonly task: number };

export const ENDED_WIDTH = 7;
export const WORKED_WIDTH = 5;
export const DELAYED_WIDTH = 5;
export const DOUBTED_WIDTH = 4;
export const DEFERRED_WIDTH = 4;
export const CORRECTED_WIDTH = 4;
export const HEDGED_WIDTH = 4;
