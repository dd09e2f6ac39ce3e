/**
 * Where tasks are put: the family that a new one belongs to, and the place
 * where one waits once nothing else is ahead of it. Used by steps and replays
 * alike, so it only carries out what follows from the task's own row.
 */
import { assert } from "../../../shared/assert.ts";
import { spend } from "../../../shared/policy/account.ts";
import {
  APPROVED,
  DEPENDENCY_FAILED,
  FOR_AFTER,
  FOR_APPROVAL,
  FOR_CHILDREN,
  FOR_FLIGHT,
  FOR_LOCK,
  GROUP,
  HEDGEABLE,
  IDEMPOTENT,
  LOCKED,
  NEEDS_APPROVAL,
  NO_REASON,
  QUEUED,
  RUN,
  STARTED,
  SUBGOAL,
  WAITING,
  WORK,
  WORK_DONE,
} from "./codes.ts";
import { reserve } from "./columns.ts";
import { isGrounded, joinFlight } from "./flights.ts";
import { isOutside, lacksLocks, redeclareLocks } from "./locks.ts";
import { push } from "./queue.ts";
import { type GoalState, newFamily, ROOT } from "./state.ts";

export function enqueue(state: GoalState, task: number): void {
  const upstream = state.upstreams[state.tasks.upstream[task]!]!;
  push(upstream.ready[state.tasks.priority[task]!]!, task);
  upstream.queued++;
  upstream.wanted[state.tasks.priority[task]!]!++;
}

/** What a task whose dependencies are met waits for next, in this order: approval, its locks, an equal task, its children or its turn. */
export function destinationOf(state: GoalState, task: number): { readonly status: number; readonly reason: number } {
  const flags = state.tasks.flags[task]!;
  if ((flags & (NEEDS_APPROVAL | APPROVED)) === NEEDS_APPROVAL) return { status: WAITING, reason: FOR_APPROVAL };
  if (lacksLocks(flags) || isOutside(state, task)) return { status: WAITING, reason: FOR_LOCK };
  if (isGrounded(state, task)) return { status: WAITING, reason: FOR_FLIGHT };
  return (flags & GROUP) === 0 ? { status: QUEUED, reason: NO_REASON } : { status: WAITING, reason: FOR_CHILDREN };
}

/** Enters the task into what its status says that it waits in. */
export function arrive(state: GoalState, task: number): void {
  const { tasks } = state;
  if (tasks.status[task] === QUEUED) enqueue(state, task);
  if (tasks.reason[task] === FOR_LOCK) state.locks.arrived.push(task);
  if (tasks.reason[task] === FOR_FLIGHT) joinFlight(state, task);
  if (tasks.reason[task] === FOR_CHILDREN) tasks.flags[task] = tasks.flags[task]! | WORK_DONE | STARTED;
}

/** A new task with the work of an ended one, for a caller who wants it done again. */
export function repeatTask(state: GoalState, original: number, atMs: number): void {
  const { tasks } = state;
  reserve(tasks, 1);
  const task = tasks.n++;
  for (const name of INHERITED) tasks[name][task] = tasks[name][original]!;
  tasks.flags[task] = tasks.flags[original]! & INHERITED_FLAGS;
  if ((tasks.flags[task] & LOCKED) !== 0) redeclareLocks(state, task, original);
  if ((tasks.flags[task] & SUBGOAL) !== 0) state.kin.total++;
  tasks.retryOf[task] = original;
  tasks.sibling[task] = -1;
  tasks.parent[task] = ROOT;
  tasks.queuedAtMs[task] = atMs;
  const parent = tasks.parent[original]!;
  if (parent !== ROOT) adoptTask(state, parent, task);
  placeTask(state, task);
  spend(state.budget.account, ONE_TASK);
  state.goal!.touchedAtMs = Math.max(state.goal!.touchedAtMs, atMs);
}

const INHERITED_FLAGS = IDEMPOTENT | HEDGEABLE | GROUP | RUN | WORK | SUBGOAL | LOCKED | NEEDS_APPROVAL;
const ONE_TASK = [1, 0, 0, 0];
const INHERITED = ["upstream", "reserve", "offer", "position", "priority", "timeoutMs", "maxAttempts", "depth"] as const;

/** Makes `task` the last child of `parent`. */
export function adoptTask(state: GoalState, parent: number, task: number): void {
  assert(parent >= 0, "a parent must be known by now");
  let family = state.families.get(parent);
  if (family === undefined) state.families.set(parent, (family = newFamily({})));
  state.tasks.parent[task] = parent;
  if (family.last < 0) family.first = task;
  else state.tasks.sibling[family.last] = task;
  family.last = task;
}

/** Counts a new task in its family and puts it where it waits. */
export function placeTask(state: GoalState, task: number): void {
  const { tasks } = state;
  // A task whose dependency has already failed waits too: the step that adds it cancels it.
  const hasToWait = tasks.unmet[task]! > 0 || (tasks.flags[task]! & DEPENDENCY_FAILED) !== 0;
  const { status, reason } = hasToWait ? { status: WAITING, reason: FOR_AFTER } : destinationOf(state, task);
  tasks.status[task] = status;
  tasks.reason[task] = reason;
  state.counts[status]!++;
  state.families.get(tasks.parent[task]!)!.counts[status]!++;
  arrive(state, task);
}
