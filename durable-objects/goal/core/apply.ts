/** Replays one change. The recorder made the same calls when the change was decided. */
import { OUTCOMES } from "../../../shared/protocol/line.ts";
import { addTasks } from "./add.ts";
import { hedgeTask } from "./attempts.ts";
import { applyBackups, type BackupsChange } from "./backups.ts";
import { applyBudget, type BudgetChange } from "./budget.ts";
import { applyClaims, type ClaimChange } from "./claims.ts";
import type { FlightsChange } from "./flights.ts";
import { applyLocks, type LocksChange } from "./locks.ts";
import {
  type Change,
  CORRECTED_WIDTH,
  DEFERRED_WIDTH,
  DELAYED_WIDTH,
  DOUBTED_WIDTH,
  ENDED_WIDTH,
  HEDGED_WIDTH,
  type TasksAdded,
  WORKED_WIDTH,
} from "./change.ts";
import {
  createGoal,
  deferTask,
  delayTask,
  doubtTask,
  endGoal,
  endTask,
  fly,
  keepWork,
  loseLocks,
  loseTask,
  pauseGoal,
  releaseTask,
  setUpstreams,
  startBatch,
} from "./mutate.ts";
import { repeatTask } from "./place.ts";
import { applyRights, type RightsChange, setTenantPolicy } from "./rights.ts";
import { applyRuns, type RunsChange, setFunctions } from "./run-state.ts";
import { correctUsage } from "./reserve.ts";
import { applySharedState } from "./shared-state.ts";
import type { GoalState } from "./state.ts";
import { applySubgoals, type SubgoalChange } from "./subgoals.ts";
import { applyUpward, type UpwardChange } from "./upward.ts";

/** Finds the specs of an offer: the array that was submitted, as it was parsed. */
export type ReadOffer = (offer: number) => readonly unknown[];

/** What an attempt's record says of an outcome by number; a doubt without a report has none. */
export function outcomeWord(outcome: number): string {
  return OUTCOMES[outcome] ?? "lost";
}

export function apply(state: GoalState, change: Change, readOffer: ReadOffer): void {
  switch (change.kind) {
    case "goal.created":
      return createGoal(state, change);
    case "goal.paused":
      return pauseGoal(state, change.paused);
    case "goal.sealed":
      state.goal!.sealed = true;
      return;
    case "goal.ended":
      return endGoal(state, change);
    case "goal.end-reported":
      state.goal!.endReported = true;
      return;
    case "upstreams.set":
      setUpstreams(state, change.version, change.upstreams);
      setFunctions(state, change.functions ?? []);
      return setTenantPolicy(state, change.policy ?? null);
    case "upstream.gated":
      state.upstreams[change.upstream]!.gateUntilMs = change.untilMs;
      return;
    case "tasks.added":
      return addTasks(state, specsOf(readOffer(change.offer), change), change);
    case "task.repeated":
      return repeatTask(state, change.task, change.atMs);
    case "tasks.started":
      return startBatch(state, change);
    case "tasks.joined":
      state.joined += change.count;
      return;
    case "results.late":
      state.late += change.count;
      return;
    case "tasks.released":
      for (const task of change.tasks) releaseTask(state, task, change.atMs);
      return;
    case "tasks.lost":
      for (const task of change.tasks) loseTask(state, task, change.suspicion);
      return;
    case "state.put":
    case "state.deleted":
      return applySharedState(state, change);
    case "locks.lost":
      return loseLocks(state, change.task);
    default:
      return applyMechanism(state, change);
  }
}

type MechanismChange =
  | BackupsChange
  | FlightsChange
  | LocksChange
  | BudgetChange
  | SubgoalChange
  | UpwardChange
  | ClaimChange
  | RightsChange
  | RunsChange;

/** Each mechanism knows its own facts. */
function applyMechanism(state: GoalState, change: MechanismChange | WithRows): void {
  switch (change.kind) {
    case "locks.outside":
    case "locks.asked":
    case "locks.granted":
    case "locks.claimed":
    case "locks.secured":
    case "locks.renewed":
      return applyLocks(state, change);
    case "budget.limited":
    case "budget.funded":
    case "budget.exhausted":
    case "budget.child-funded":
    case "budget.child-spent":
    case "budget.child-closed":
    case "budget.reserved":
    case "budget.settled":
    case "budget.tab":
    case "budget.tab-closed":
      return applyBudget(state.budget, change);
    case "subgoals.begun":
    case "subgoal.heard":
    case "subgoals.told":
      return applySubgoals(state, change);
    case "parent.ordered":
    case "parent.told":
    case "parent.heard":
    case "goal.refused":
      return applyUpward(state, change);
    case "claims.granted":
    case "claims.extended":
    case "claims.failed":
      return applyClaims(state, change);
    case "tokens.revoked":
    case "task.approved":
    case "tasks.parked":
      return applyRights(state, change);
    case "runs.starved":
    case "runs.used":
      return applyRuns(state, change);
    case "backup.started":
    case "backup.failed":
    case "backup.dropped":
      return applyBackups(state, change);
    case "flights.led":
    case "flights.parted":
    case "flights.grounded":
      return fly(state, change);
    default:
      return applyRows(state, change);
  }
}

/** A change may take a part of its offer. */
function specsOf(offer: readonly unknown[], { base, size }: TasksAdded): readonly unknown[] {
  return base === undefined ? offer : offer.slice(base, base + size);
}

type WithRows = Exclude<Extract<Change, { rows: number[] }>, ClaimChange | SubgoalChange | RunsChange>;

function applyRows(state: GoalState, change: WithRows): void {
  const { rows } = change;
  switch (change.kind) {
    case "tasks.ended":
      for (let i = 0; i < rows.length; i += ENDED_WIDTH) {
        const [task, status, code, resultRow, resultIndex, startedAtMs, endedAtMs] = rows.slice(i, i + ENDED_WIDTH) as Seven;
        endTask(state, { task, status, code, resultRow, resultIndex, startedAtMs, endedAtMs }, change.atMs);
      }
      return;
    case "tasks.worked":
      for (let i = 0; i < rows.length; i += WORKED_WIDTH) {
        keepWork(state, rows[i]!, rows[i + 1]!, rows[i + 2]!, rows[i + 3]!, rows[i + 4]!);
      }
      return;
    case "tasks.delayed":
      for (let i = 0; i < rows.length; i += DELAYED_WIDTH) {
        delayTask(state, rows[i]!, outcomeWord(rows[i + 1]!), rows[i + 2]!, rows[i + 3]!, rows[i + 4]!);
      }
      return;
    case "tasks.deferred":
      for (let i = 0; i < rows.length; i += DEFERRED_WIDTH) {
        deferTask(state, rows[i]!, outcomeWord(rows[i + 1]!), rows[i + 2]!, rows[i + 3]!);
      }
      return;
    case "tasks.doubted":
      for (let i = 0; i < rows.length; i += DOUBTED_WIDTH) {
        doubtTask(state, rows[i]!, outcomeWord(rows[i + 1]!), rows[i + 2]!, rows[i + 3]!);
      }
      return;
    case "tasks.hedged":
      for (let i = 0; i < rows.length; i += HEDGED_WIDTH) hedgeTask(state, rows[i]!, rows[i + 1] === 1, rows[i + 2]!, rows[i + 3]!);
      return;
    case "usage.corrected":
      for (let i = 0; i < rows.length; i += CORRECTED_WIDTH) correctUsage(state, rows[i]!, [0, rows[i + 1]!, rows[i + 2]!, rows[i + 3]!]);
      return;
  }
}

type Seven = [number, number, number, number, number, number, number];
