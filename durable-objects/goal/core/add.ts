/**
 * Turns the specs of one offer into tasks. Used when the offer is taken and
 * when it is replayed, so it only carries out what the change says.
 */
import { assert } from "../../../shared/assert.ts";
import { parseTaskId } from "../../../shared/ids.ts";
import { ATTEMPTS_DEFAULT, TIMEOUT_MS_DEFAULT } from "../../../shared/limits.ts";
import { spend } from "../../../shared/policy/account.ts";
import { IDEMPOTENT_METHODS, PRIORITIES, SAFE_METHODS, type TaskSpec } from "../../../shared/protocol/task.ts";
import type { TasksAdded } from "./change.ts";
import { DEPENDENCY_FAILED, GROUP, HEDGEABLE, IDEMPOTENT, isTerminal, NEEDS_APPROVAL, RUN, SUBGOAL, SUCCEEDED, WORK } from "./codes.ts";
import { reserve } from "./columns.ts";
import { declareFlight } from "./flights.ts";
import type { KeyIndex } from "./key-index.ts";
import { declareLocks } from "./locks.ts";
import { SUBGOALS } from "./kin.ts";
import { adoptTask, placeTask } from "./place.ts";
import { runQueueName } from "./run-state.ts";
import { noteBrought } from "./rights.ts";
import { declareReserve } from "./reserve.ts";
import { type GoalState, newFamily, newQueueEntry, ROOT, upstreamNamed, workQueueName } from "./state.ts";
import { addTimer } from "./timers.ts";

const NORMAL = PRIORITIES.indexOf("normal");
const NO_TASK = -1;

/** The number of the task that `name` means in this goal: a key, or an id. -1 for none. */
export function resolve(state: GoalState, name: string): number {
  const byKey = state.keys.get(name);
  if (byKey !== undefined) return byKey;
  const parsed = parseTaskId(name);
  const isOurs = parsed !== null && parsed.goalId === state.goal?.id && parsed.index < state.tasks.n;
  return isOurs ? parsed.index : NO_TASK;
}

/** Whether the task names a parent or something that it comes after. */
export function hasLinks(spec: TaskSpec): boolean {
  return spec.parentTaskId !== undefined || spec.after !== undefined || spec.afterEnd !== undefined;
}

/**
 * Adds the tasks of an offer; their numbers follow the ones there are, in the
 * offer's order. `index` is given where it already has every key of the offer
 * by its task: a goal's first keys are hashed once.
 */
export function addTasks(state: GoalState, specs: readonly unknown[], change: TasksAdded, index?: KeyIndex): void {
  const { tasks } = state;
  assert(specs.length === change.size, "an offer must be replayed as it was taken");
  const { base = 0 } = change;
  const first = tasks.n;
  reserve(tasks, change.size - change.skipped.length);
  const derived = new Map(change.keys);
  if (index !== undefined) {
    assert(state.keys.size === 0, "only a goal without keys takes an index as it is");
    state.keys = index;
  }
  const approvals = change.approvals === undefined ? null : new Set(change.approvals);
  let isLinked = false;
  let skip = 0;
  for (let place = 0; place < specs.length; place++) {
    if (change.skipped[skip] === place) {
      skip++;
      continue;
    }
    const spec = specs[place] as TaskSpec;
    const task = addRow(state, spec, change.offer, base + place, change.atMs);
    if (approvals?.has(place) === true) tasks.flags[task] = tasks.flags[task]! | NEEDS_APPROVAL;
    isLinked ||= hasLinks(spec);
    const key = spec.key ?? derived.get(place);
    if (key === undefined) continue;
    state.names[task] = key;
    if (index === undefined) state.keys.add(key, task);
  }
  // Names may point forward, so links wait until every task has its number.
  for (let task = first; task < tasks.n; task++) {
    if (isLinked) link(state, task, specs[tasks.position[task]! - base] as TaskSpec);
    placeTask(state, task);
  }
  state.flights.soft.recent.clear();
  if (isLinked) setDepths(state, first);
  if (change.policies !== undefined) noteBrought(state, first, tasks.n, change.policies);
  spend(state.budget.account, [tasks.n - first, 0, 0, 0]);
  state.joined += change.joined;
  state.nextOffer = change.offer + 1;
  state.goal!.touchedAtMs = Math.max(state.goal!.touchedAtMs, change.atMs);
}

function addRow(state: GoalState, spec: TaskSpec, offer: number, place: number, atMs: number): number {
  const { tasks } = state;
  const task = tasks.n++;
  const upstream = placeOf(state, spec, task);
  const config = spec.call === undefined ? null : state.upstreams[upstream]!.config;
  tasks.upstream[task] = upstream;
  tasks.offer[task] = offer;
  tasks.position[task] = place;
  tasks.parent[task] = ROOT;
  tasks.sibling[task] = NO_TASK;
  tasks.retryOf[task] = NO_TASK;
  tasks.priority[task] = spec.priority === undefined ? NORMAL : PRIORITIES.indexOf(spec.priority);
  tasks.timeoutMs[task] = spec.timeoutMs ?? config?.timeoutMs ?? TIMEOUT_MS_DEFAULT;
  tasks.maxAttempts[task] = spec.retry?.maxAttempts ?? config?.retry.maxAttempts ?? ATTEMPTS_DEFAULT;
  if (spec.reserve !== undefined && spec.goal === undefined) tasks.reserve[task] = declareReserve(state, spec.reserve, config);
  tasks.flags[task] = flagsOf(spec, config?.idempotency === "key");
  tasks.queuedAtMs[task] = atMs;
  if (spec.goal !== undefined) state.kin.total++;
  if (spec.ttlMs !== undefined) {
    tasks.expiresAtMs[task] = atMs + spec.ttlMs;
    addTimer(state.timers, atMs + spec.ttlMs, task);
  }
  if (spec.locks !== undefined) declareLocks(state, task, spec.locks);
  if (spec.coalesce === true && config?.coalesce !== "off") declareFlight(state, task, spec);
  if (spec.completion !== undefined) state.families.set(task, newFamily(spec.completion));
  return task;
}

/** The entry whose queue the task waits in. */
function placeOf(state: GoalState, { call, run, work, goal }: TaskSpec, task: number): number {
  if (call !== undefined) return upstreamOf(state, call.upstream, task);
  if (run !== undefined) return queueNamed(state, runQueueName(run.function), task);
  if (goal !== undefined) return queueNamed(state, SUBGOALS, task);
  return work === undefined ? 0 : queueNamed(state, workQueueName(work.queue), task);
}

/** A queue is there from its first task on. */
function queueNamed(state: GoalState, name: string, task: number): number {
  const known = upstreamOf(state, name, task);
  if (known >= 0) return known;
  const number = state.upstreams.push(newQueueEntry(name)) - 1;
  state.upstreamNumbers.set(name, number);
  return number;
}

/** Work that a claimer loses goes back into its queue, and a function's calls carry the same keys again, so their repetition is always allowed. */
function flagsOf({ call, run, work, goal }: TaskSpec, hasKeys: boolean): number {
  if (goal !== undefined) return SUBGOAL;
  if (run !== undefined) return RUN | IDEMPOTENT;
  if (work !== undefined) return WORK | IDEMPOTENT;
  if (call === undefined) return GROUP;
  return (isIdempotent(call, hasKeys) ? IDEMPOTENT : 0) | (isHedgeable(call, hasKeys) ? HEDGEABLE : 0);
}

/** Neighbours mostly call the same upstream, and comparing names is cheaper than looking one up. */
function upstreamOf(state: GoalState, name: string, task: number): number {
  const neighbour = task === 0 ? undefined : state.tasks.upstream[task - 1];
  if (neighbour !== undefined && state.upstreams[neighbour]?.name === name) return neighbour;
  return upstreamNamed(state, name);
}

function isIdempotent(call: NonNullable<TaskSpec["call"]>, hasKeys: boolean): boolean {
  return call.idempotent ?? (hasKeys || IDEMPOTENT_METHODS.has(call.method ?? "GET"));
}

/** Narrower: the second of two DELETEs may find nothing, and a PUT that was beaten may arrive after what comes next. */
function isHedgeable(call: NonNullable<TaskSpec["call"]>, hasKeys: boolean): boolean {
  return call.idempotent ?? (hasKeys || SAFE_METHODS.has(call.method ?? "GET"));
}

/** Ties a task to its parent and to what it comes after. */
function link(state: GoalState, task: number, spec: TaskSpec): void {
  if (spec.parentTaskId !== undefined) {
    const parent = resolve(state, spec.parentTaskId);
    adoptTask(state, parent, task);
  }
  for (const name of spec.after ?? []) waitFor(state, task, resolve(state, name), false);
  for (const name of spec.afterEnd ?? []) waitFor(state, task, resolve(state, name), true);
}

function waitFor(state: GoalState, task: number, other: number, anyEnd: boolean): void {
  const { tasks } = state;
  assert(other >= 0, "a dependency must be known by now");
  if (isTerminal(tasks.status[other]!)) {
    if (!anyEnd && tasks.status[other] !== SUCCEEDED) tasks.flags[task] = tasks.flags[task]! | DEPENDENCY_FAILED;
    return;
  }
  const list = state.dependents.get(other);
  const entry = task * 2 + (anyEnd ? 1 : 0);
  if (list === undefined) state.dependents.set(other, [entry]);
  else list.push(entry);
  tasks.unmet[task] = tasks.unmet[task]! + 1;
}

/** Depths from the roots down; a parent may have a higher number than its child. */
function setDepths(state: GoalState, first: number): void {
  const { tasks } = state;
  for (let task = first; task < tasks.n; task++) {
    let depth = 0;
    for (let at = tasks.parent[task]!; at !== ROOT; at = tasks.parent[at]!) {
      depth++;
      if (at < first) {
        depth += tasks.depth[at]!;
        break;
      }
    }
    tasks.depth[task] = depth;
  }
}
