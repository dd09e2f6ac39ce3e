/**
 * The only code that writes the state: one function a fact. Steps call them
 * through the recorder, replays call them through `apply`, so memory and disk
 * cannot differ. Nothing here decides anything.
 */
import { assert } from "../../../shared/assert.ts";
import { LEASE_GRACE_MS } from "../../../shared/limits.ts";
import { boundsFrom, settle } from "../../../shared/policy/account.ts";
import { record } from "../../../shared/policy/histogram.ts";
import {
  CANCELED,
  codeOf,
  DEPENDENCY_FAILED,
  EXPIRED,
  FAILED,
  FOR_BACKOFF,
  FOR_CHILDREN,
  FOR_FLIGHT,
  FOR_LOCK,
  FOR_OUTCOME,
  isTerminal,
  LOCKED,
  NO_REASON,
  QUEUED,
  RUN,
  RUNNING,
  STARTED,
  SUBGOAL,
  SUCCEEDED,
  WAITING,
  WORK,
  WORK_DONE,
} from "./codes.ts";
import type { Change } from "./change.ts";
import { keepAttempt } from "./attempts.ts";
import { endBackup } from "./backups.ts";
import { beginHedges, chargeUnheard, endHedges, freeLanes, heldBy } from "./hedges.ts";
import { applyFlights, type FlightsChange, leaveFlight } from "./flights.ts";
import { endLocks, leaveLocks, waitsForLocks } from "./locks.ts";
import { isPaused, noteStandstill, reckon } from "./kin.ts";
import { arrive, destinationOf, enqueue } from "./place.ts";
import { contents, peek, type Queue, shift } from "./queue.ts";
import { chargeAttempt, reserveAttempt } from "./reserve.ts";
import { type BatchState, type GoalState, newFamily, newOrigin, newUpstream, ROOT, type UpstreamState, upstreamNamed } from "./state.ts";
import { endTabs } from "./tabs.ts";
import { addTimer } from "./timers.ts";
import type { GoalSpec } from "../../../shared/protocol/goal.ts";
import type { Upstream } from "../../../shared/protocol/upstream.ts";

/** A weight that follows the latency within some tens of calls. */
const LATENCY_GAIN = 0.05;

export function createGoal(state: GoalState, { id, spec, atMs }: Extract<Change, { kind: "goal.created" }>): void {
  state.goal = {
    id,
    spec,
    createdAtMs: atMs,
    deadlineAtMs: deadlineOf(spec, atMs),
    phase: "active",
    paused: false,
    sealed: spec.sealed,
    endedAtMs: null,
    touchedAtMs: atMs,
    endReported: false,
  };
  state.families.set(ROOT, newFamily(spec.completion));
  state.budget.account.limit = boundsFrom(spec.budget ?? {});
}

/** No goal outlives the one above it. */
function deadlineOf({ deadlineMs, parent }: GoalSpec, atMs: number): number | null {
  const own = deadlineMs === null ? null : atMs + deadlineMs;
  const above = parent?.deadlineAtMs ?? null;
  return own === null || above === null ? (own ?? above) : Math.min(own, above);
}

export function pauseGoal(state: GoalState, paused: boolean): void {
  const wasPaused = isPaused(state);
  state.goal!.paused = paused;
  noteStandstill(state, wasPaused);
}

export function setUpstreams(state: GoalState, version: number, configs: readonly Upstream[]): void {
  state.registryVersion = version;
  for (const upstream of state.upstreams) upstream.config = null;
  for (const config of configs) {
    const known = upstreamNamed(state, config.name);
    if (known >= 0) reconfigure(state.upstreams[known]!, config);
    else state.upstreamNumbers.set(config.name, state.upstreams.push(newUpstream(config.name, config)) - 1);
  }
}

function reconfigure(upstream: UpstreamState, config: Upstream): void {
  upstream.config = config;
  while (upstream.origins.length < config.origins.length) upstream.origins.push(newOrigin());
}

/** Moves a task to a status and keeps every counter that depends on it. */
export function setStatus(state: GoalState, task: number, status: number, reason: number): void {
  const { tasks } = state;
  const before = tasks.status[task]!;
  assert(!isTerminal(before), () => `task ${task} has ended and cannot become ${status}`);
  tasks.status[task] = status;
  tasks.reason[task] = reason;
  if (before === status) return;
  state.counts[before]!--;
  state.counts[status]!++;
  const family = state.families.get(tasks.parent[task]!);
  assert(family !== undefined, "every task belongs to a family");
  family.counts[before]!--;
  family.counts[status]!++;
  if (before !== QUEUED) return;
  const upstream = state.upstreams[tasks.upstream[task]!]!;
  upstream.queued--;
  if (status !== RUNNING) upstream.wanted[tasks.priority[task]!]!--;
}

/** A task that waited goes on: to whatever else it has to wait for, or into its queue. */
export function releaseTask(state: GoalState, task: number, atMs: number): void {
  state.tasks.dueAtMs[task] = 0;
  state.tasks.queuedAtMs[task] = atMs;
  const { status, reason } = destinationOf(state, task);
  setStatus(state, task, status, reason);
  arrive(state, task);
}

/** Takes a task off the head of its queue, past entries whose tasks have ended. */
export function dequeue(state: GoalState, queue: Queue, task: number): void {
  const { status } = state.tasks;
  assert(status[task] === QUEUED, () => `task ${task} must be queued to start`);
  for (let head = peek(queue); head !== task; head = peek(queue)) {
    assert(head !== undefined && status[head] !== QUEUED, () => `task ${task} must be the first of its queue`);
    shift(queue);
  }
  shift(queue);
}

export function startBatch(state: GoalState, change: Extract<Change, { kind: "tasks.started" }>): void {
  const { tasks } = state;
  const upstream = state.upstreams[change.upstream]!;
  let timeoutMs = 0;
  for (const task of change.tasks) {
    dequeue(state, upstream.ready[tasks.priority[task]!]!, task);
    setStatus(state, task, RUNNING, NO_REASON);
    tasks.attempt[task] = tasks.attempt[task]! + 1;
    tasks.flags[task] = tasks.flags[task]! | STARTED;
    tasks.batch[task] = change.batch;
    if (tasks.startedAtMs[task] === 0) tasks.startedAtMs[task] = change.atMs;
    reserveAttempt(state, task, change.reserve);
    timeoutMs = Math.max(timeoutMs, tasks.timeoutMs[task]!);
  }
  const left = change.tasks.length;
  const leaseUntilMs = change.atMs + timeoutMs + LEASE_GRACE_MS;
  const { batch, origin, lanes, reserve, hedges } = change;
  const about = { upstream: change.upstream, origin, lanes, timeoutMs, left, leaseUntilMs };
  const whole: BatchState = {
    ...about,
    ...(reserve === undefined ? {} : { reserve }),
    ...(hedges === undefined ? {} : { hedges: beginHedges(state, hedges) }),
  };
  state.batches.set(batch, whole);
  state.nextBatch = batch + 1;
  upstream.running += left;
  upstream.lanes += heldBy(whole);
  upstream.origins[origin]!.open += heldBy(whole);
}

/** The attempt is over: its batch, its upstream's room and its lane are given back. `wasTried`: an executor may have made calls that nobody has heard of. */
export function leaveBatch(state: GoalState, task: number, heardAtMs: number, wasTried = heardAtMs === 0): void {
  const { tasks } = state;
  const id = tasks.batch[task]!;
  const batch = state.batches.get(id);
  if (batch === undefined) return leaveClaim(state, task);
  chargeAttempt(state, task);
  if (wasTried) chargeUnheard(state, task);
  if (state.backups.size > 0) endBackup(state, task);
  tasks.batch[task] = 0;
  const upstream = state.upstreams[batch.upstream]!;
  upstream.running--;
  upstream.wanted[tasks.priority[task]!]!--;
  const before = heldBy(batch);
  batch.left--;
  freeLanes(state, batch, before);
  batch.leaseUntilMs = Math.max(batch.leaseUntilMs, heardAtMs + batch.timeoutMs + LEASE_GRACE_MS);
  if (batch.left > 0) return;
  endHedges(state, batch);
  state.batches.delete(id);
}

/** As `leaveBatch`, for work that somebody has claimed. */
function leaveClaim(state: GoalState, task: number): void {
  const { tasks } = state;
  if (tasks.status[task] !== RUNNING || (tasks.flags[task]! & WORK) === 0) return;
  chargeAttempt(state, task);
  const queue = state.upstreams[tasks.upstream[task]!]!;
  queue.running--;
  queue.wanted[tasks.priority[task]!]!--;
  tasks.dueAtMs[task] = 0;
}

/** Counts an attempt that was reported. What a claimer did is no call. */
export function countAttempt(state: GoalState, task: number, startedAtMs: number, endedAtMs: number): void {
  state.tasks.suspicion[task] = 0;
  if ((state.tasks.flags[task]! & WORK) !== 0) return;
  state.calls++;
  record(state.latencies, Math.max(0, endedAtMs - startedAtMs));
}

/** How long the upstream takes, from an attempt that it answered; failures that come fast say nothing about that. Before the attempt leaves its batch. */
function noteLatency(state: GoalState, task: number, startedAtMs: number, endedAtMs: number): void {
  const { tasks, upstreams, batches } = state;
  if (tasks.batch[task] === 0) return;
  const upstream = upstreams[tasks.upstream[task]!]!;
  const ms = Math.max(0, endedAtMs - startedAtMs);
  const follow = (averageMs: number): number => (averageMs === 0 ? Math.max(ms, 0.5) : averageMs + LATENCY_GAIN * (ms - averageMs));
  upstream.latencyMs = follow(upstream.latencyMs);
  const batch = batches.get(tasks.batch[task]!);
  const origin = batch === undefined ? undefined : upstream.origins[batch.origin];
  if (origin !== undefined) origin.latencyMs = follow(origin.latencyMs);
}

export interface Ending {
  readonly task: number;
  readonly status: number;
  readonly code: number;
  readonly resultRow: number;
  readonly resultIndex: number;
  /** Both 0 where the task did not end by an attempt. */
  readonly startedAtMs: number;
  readonly endedAtMs: number;
}

/** A task reaches its one terminal state. */
export function endTask(state: GoalState, ending: Ending, atMs: number): void {
  const { tasks } = state;
  const { task, status } = ending;
  const byAttempt = ending.endedAtMs > 0;
  if (byAttempt) {
    countAttempt(state, task, ending.startedAtMs, ending.endedAtMs);
    if (status === SUCCEEDED) noteLatency(state, task, ending.startedAtMs, ending.endedAtMs);
    tasks.startedAtMs[task] = ending.startedAtMs;
  }
  if (tasks.status[task] === RUNNING) leaveBatch(state, task, byAttempt ? ending.endedAtMs : 0);
  setStatus(state, task, status, NO_REASON);
  if ((tasks.flags[task]! & LOCKED) !== 0) endLocks(state, task);
  if (state.flights.of.size > 0) leaveFlight(state, task, status === FAILED);
  tasks.code[task] = ending.code;
  tasks.dueAtMs[task] = 0;
  tasks.endedAtMs[task] = byAttempt ? ending.endedAtMs : atMs;
  if (ending.resultRow > 0) {
    tasks.resultRow[task] = ending.resultRow;
    tasks.resultIndex[task] = ending.resultIndex;
  }
  if ((tasks.flags[task]! & SUBGOAL) !== 0) reckon(state, task);
  state.ended.push(task);
  state.goal!.touchedAtMs = Math.max(state.goal!.touchedAtMs, atMs);
  noteDependents(state, task, status);
}

function noteDependents(state: GoalState, task: number, status: number): void {
  const { tasks } = state;
  for (const entry of state.dependents.get(task) ?? []) {
    const dependent = entry >> 1;
    const anyEnd = (entry & 1) === 1;
    tasks.unmet[dependent] = tasks.unmet[dependent]! - 1;
    if (!anyEnd && status !== SUCCEEDED) tasks.flags[dependent] = tasks.flags[dependent]! | DEPENDENCY_FAILED;
  }
}

/** Own work has succeeded, but children have not ended: the result is kept, the permit given back. */
export function keepWork(state: GoalState, task: number, row: number, index: number, startedAtMs: number, endedAtMs: number): void {
  const { tasks } = state;
  if (endedAtMs > 0) {
    countAttempt(state, task, startedAtMs, endedAtMs);
    noteLatency(state, task, startedAtMs, endedAtMs);
    keepAttempt(state, task, startedAtMs, endedAtMs, (tasks.flags[task]! & RUN) === 0 ? "answered" : "returned");
    tasks.startedAtMs[task] = startedAtMs;
  }
  leaveBatch(state, task, endedAtMs);
  tasks.flags[task] = tasks.flags[task]! | WORK_DONE;
  tasks.resultRow[task] = row;
  tasks.resultIndex[task] = index;
  leaveFlight(state, task, false);
  setStatus(state, task, WAITING, FOR_CHILDREN);
}

/** The attempt failed, and another will be made at `dueAtMs`. */
export function delayTask(state: GoalState, task: number, outcome: string, startedAtMs: number, endedAtMs: number, dueAtMs: number): void {
  const { tasks } = state;
  countAttempt(state, task, startedAtMs, endedAtMs);
  keepAttempt(state, task, startedAtMs, endedAtMs, outcome);
  leaveBatch(state, task, endedAtMs);
  tasks.failures[task] = tasks.failures[task]! + 1;
  tasks.dueAtMs[task] = dueAtMs;
  setStatus(state, task, WAITING, FOR_BACKOFF);
  addTimer(state.timers, dueAtMs, task);
}

/** The upstream is down: the attempt is not held against the task, which goes back into the queue. */
export function deferTask(state: GoalState, task: number, outcome: string, startedAtMs: number, endedAtMs: number): void {
  countAttempt(state, task, startedAtMs, endedAtMs);
  keepAttempt(state, task, startedAtMs, endedAtMs, outcome);
  leaveBatch(state, task, endedAtMs);
  setStatus(state, task, QUEUED, NO_REASON);
  enqueue(state, task);
}

/** The call may have had its effect, and must not be repeated: somebody has to decide. */
export function doubtTask(state: GoalState, task: number, outcome: string, startedAtMs: number, endedAtMs: number): void {
  if (endedAtMs > 0) countAttempt(state, task, startedAtMs, endedAtMs);
  keepAttempt(state, task, startedAtMs === 0 ? state.tasks.startedAtMs[task]! : startedAtMs, endedAtMs, outcome);
  leaveBatch(state, task, endedAtMs);
  leaveFlight(state, task, true);
  setStatus(state, task, WAITING, FOR_OUTCOME);
}

/** The executor is gone and the call may be repeated: back into the queue, without a mark against `maxAttempts`. */
export function loseTask(state: GoalState, task: number, suspicion: number): void {
  const { tasks } = state;
  keepAttempt(state, task, tasks.startedAtMs[task]!, 0, "lost");
  leaveBatch(state, task, 0, suspicion > 0);
  tasks.suspicion[task] = tasks.suspicion[task]! + suspicion;
  // Into its queue, unless it has lost its locks as well.
  const { status, reason } = destinationOf(state, task);
  setStatus(state, task, status, reason);
  arrive(state, task);
}

/** The task is out of its locks, and waits for them again once it may go on. */
export function loseLocks(state: GoalState, task: number): void {
  leaveLocks(state, task);
  if (state.tasks.status[task] === QUEUED) {
    const { ready } = state.upstreams[state.tasks.upstream[task]!]!;
    const queue = ready[state.tasks.priority[task]!]!;
    queue.items = contents(queue).filter((other) => other !== task);
    queue.head = 0;
    setStatus(state, task, WAITING, FOR_LOCK);
  }
  if (waitsForLocks(state, task)) arrive(state, task);
}

/** What is decided about tasks that coalesce. */
export function fly(state: GoalState, change: FlightsChange): void {
  const atMs = "atMs" in change ? change.atMs : 0;
  applyFlights(state, change, {
    release: (task) => releaseTask(state, task, atMs),
    wait: (task) => setStatus(state, task, WAITING, FOR_FLIGHT),
  });
}

/** The goal ends, and with it whatever has not ended. One fact, however many tasks. */
export function endGoal(state: GoalState, { phase, rest, atMs, keepsTabs }: Extract<Change, { kind: "goal.ended" }>): void {
  const goal = state.goal!;
  const status = rest === "expired" ? EXPIRED : CANCELED;
  const code = codeOf(rest);
  for (let task = 0; task < state.tasks.n; task++) {
    if (isTerminal(state.tasks.status[task]!)) continue;
    endTask(state, { task, status, code, resultRow: 0, resultIndex: 0, startedAtMs: 0, endedAtMs: 0 }, atMs);
  }
  // Nobody can settle them any more: they are charged as if they had expired.
  for (const { amounts } of state.budget.reservations.values()) settle(state.budget.account, amounts, amounts);
  state.budget.reservations.clear();
  endTabs(state.budget, keepsTabs === true);
  state.budget.isExhausted = false;
  goal.phase = phase;
  goal.endedAtMs = atMs;
  goal.paused = false;
}
