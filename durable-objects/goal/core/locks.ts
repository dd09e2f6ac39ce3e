/**
 * The locks that a goal's tasks declare. A task waits for them before its turn:
 * the tenant's first, one after another in the order of their names, then the
 * goal's, all or none. It keeps them until it ends, however that comes. Whoever
 * is below a task that declares locks runs only while that one has them.
 *
 * Here are the facts; `lock-turn.ts` and `tenant-locks.ts` decide.
 */
import type { LockSpec } from "../../../shared/protocol/task.ts";
import { applyLock, type LockChange } from "../../../shared/policy/lock-steps.ts";
import { dequeue, enqueue, grant, type Hold, holdFor, leave, release, type Want } from "../../../shared/policy/lock-table.ts";
import { FOR_LOCK, HAS_LOCKS, LOCKED, WAITING } from "./codes.ts";
import { type GoalLocks, type LockSet, use } from "./lock-state.ts";
import { type GoalState, liveCount, ROOT } from "./state.ts";

export type LocksChange =
  /** What callers from outside brought about. */
  | { readonly kind: "locks.outside"; readonly changes: LockChange[] }
  /** Tasks that enter the queues of the goal's locks. */
  | { readonly kind: "locks.asked"; readonly tasks: number[] }
  /** Tasks that have all that they declare; for each, the fences of the goal's locks. */
  | { readonly kind: "locks.granted"; readonly tasks: number[]; readonly fences: (readonly number[])[] }
  /** Tasks that come to want their next lock of the tenant. */
  | { readonly kind: "locks.claimed"; readonly tasks: number[] }
  | { readonly kind: "locks.secured"; readonly task: number; readonly fence: number; readonly untilMs: number }
  /** Locks of the tenant that are held on: pairs of a task and the place of the lock among its own. */
  | { readonly kind: "locks.renewed"; readonly untilMs: number; readonly rows: readonly number[] };

export function applyLocks(state: GoalState, change: LocksChange): void {
  switch (change.kind) {
    case "locks.outside":
      for (const one of change.changes) applyLock(state.locks.table, one);
      return;
    case "locks.asked":
      for (const task of change.tasks) askFor(state, task);
      return;
    case "locks.granted":
      change.tasks.forEach((task, i) => giveTo(state, task, change.fences[i]!));
      return;
    case "locks.claimed":
      for (const task of change.tasks) enterLane(state, task);
      return;
    case "locks.secured":
      return secure(state, change.task, change.fence, change.untilMs);
    case "locks.renewed":
      return renewClaims(state.locks, change.untilMs, change.rows);
  }
}

// What is declared.

/** Notes what a new task declares. */
export function declareLocks({ locks, tasks }: GoalState, task: number, specs: readonly LockSpec[]): void {
  const ofScope = (wanted: string): Want[] =>
    specs
      .filter(({ scope = "goal" }) => scope === wanted)
      .map(({ name, mode = "exclusive", permits = 0 }) => ({ name, mode, permits }))
      .toSorted((a, b) => (a.name < b.name ? -1 : 1));
  const set: LockSet = { tenant: ofScope("tenant"), goal: ofScope("goal") };
  const text = JSON.stringify(set);
  let number = locks.numbers.get(text);
  if (number === undefined) {
    number = locks.sets.push(set) - 1;
    locks.numbers.set(text, number);
  }
  declare(locks, task, number);
  tasks.flags[task] = tasks.flags[task]! | LOCKED;
}

function declare(locks: GoalLocks, task: number, number: number): void {
  locks.declared.set(task, number);
  locks.live++;
}

/** A task with the work of another declares what that one did. */
export function redeclareLocks({ locks }: GoalState, task: number, original: number): void {
  const number = locks.declared.get(original);
  if (number !== undefined) declare(locks, task, number);
}

/** What the task declares. Only for tasks that are `LOCKED`. */
export function setOf({ locks }: GoalState, task: number): LockSet {
  return locks.sets[locks.declared.get(task)!]!;
}

/** The path by which a task holds: that of the task whose work its goal is, or the goal's id, then the numbers of its ancestors, then its own. */
export function holderOf(state: GoalState, task: number): string {
  let path = String(task);
  for (let at = state.tasks.parent[task]!; at !== ROOT; at = state.tasks.parent[at]!) path = `${at}/${path}`;
  return `${state.goal!.spec.parent?.path ?? state.goal!.id}/${path}`;
}

// Where a task stands.

export const lacksLocks = (flags: number): boolean => (flags & (LOCKED | HAS_LOCKS)) === LOCKED;

/** Whether an ancestor has yet to get the locks that it holds for those below it. */
export function isOutside({ tasks, locks }: GoalState, task: number): boolean {
  if (locks.live === 0) return false;
  for (let at = tasks.parent[task]!; at !== ROOT; at = tasks.parent[at]!) if (lacksLocks(tasks.flags[at]!)) return true;
  return false;
}

export const waitsForLocks = ({ tasks }: GoalState, task: number): boolean =>
  tasks.status[task] === WAITING && tasks.reason[task] === FOR_LOCK;

/** The task enters the queues of the goal's locks that it declares. */
function askFor(state: GoalState, task: number): void {
  const { locks } = state;
  const request = { holder: holderOf(state, task), wants: setOf(state, task).goal, ttlMs: null, deadlineAtMs: null, owner: task };
  locks.asked.set(task, enqueue(locks.table, request));
}

function giveTo(state: GoalState, task: number, fences: readonly number[]): void {
  const { locks, tasks } = state;
  const seq = locks.asked.get(task);
  if (seq !== undefined) grant(locks.table, seq, fences, null);
  locks.asked.delete(task);
  tasks.flags[task] = tasks.flags[task]! | HAS_LOCKS;
  locks.arrived.push(task);
  arriveBelow(state, task);
}

/** Whoever is below the task was waiting for it to have its locks. */
function arriveBelow(state: GoalState, parent: number): void {
  const { tasks, families, locks } = state;
  const stack = [parent];
  for (let at = stack.pop(); at !== undefined; at = stack.pop()) {
    for (let child = families.get(at)?.first ?? ROOT; child >= 0; child = tasks.sibling[child]!) {
      if (waitsForLocks(state, child)) locks.arrived.push(child);
      if (families.has(child)) stack.push(child);
    }
  }
}

/** Whether locks may become free by the end of the task: its own, or those of one above that waits for nobody else. */
export function letsGo({ tasks, families }: GoalState, task: number): boolean {
  for (let at = task; at !== ROOT; at = tasks.parent[at]!) {
    if ((tasks.flags[at]! & HAS_LOCKS) !== 0) return true;
    if (liveCount(families.get(tasks.parent[at]!)!.counts) > 1) return false;
  }
  return false;
}

/** The task ends: nothing of it stays in any lock. */
export function endLocks(state: GoalState, task: number): void {
  state.locks.live--;
  leaveLocks(state, task);
}

/** The task is out of all its locks and queues. */
export function leaveLocks(state: GoalState, task: number): void {
  const { locks, tasks } = state;
  const seq = locks.asked.get(task);
  if (seq !== undefined) {
    locks.asked.delete(task);
    for (const name of dequeue(locks.table, seq).queues) locks.freed.add(name);
  } else if ((tasks.flags[task]! & HAS_LOCKS) !== 0) {
    const holder = holderOf(state, task);
    for (const [name, hold] of heldOf(state, task)) {
      if (hold.holder !== holder) leave(locks.table, name, hold.fence, holder);
      else release(locks.table, name, hold.fence, false);
      locks.freed.add(name);
    }
  }
  if (setOf(state, task).tenant.length > 0) dropClaims(state, task);
  tasks.flags[task] = tasks.flags[task]! & ~HAS_LOCKS;
}

/** The goal's locks that a task is in: its own holds, and those of ancestors that it entered. */
function* heldOf(state: GoalState, task: number): Iterable<readonly [name: string, Hold]> {
  const { goal } = setOf(state, task);
  if (goal.length === 0) return;
  const holder = holderOf(state, task);
  for (const { name } of goal) {
    const hold = holdFor(state.locks.table.locks.get(name), holder);
    if (hold !== null) yield [name, hold];
  }
}

const NO_FENCES: ReadonlyMap<string, number> = new Map();

/** The fences of a task as `Drover-Fence` carries them. Undefined where there are none. */
export function fencesOf(state: GoalState, task: number): string | undefined {
  const found = fencesByName(state, task);
  return found.size === 0 ? undefined : [...found].map(([name, fence]) => `${name}=${fence}`).join(", ");
}

/** The fences of a task by lock: its own, then those of its ancestors. */
export function fencesByName(state: GoalState, task: number): ReadonlyMap<string, number> {
  const { locks, tasks } = state;
  if (locks.live === 0) return NO_FENCES;
  const found = new Map<string, number>();
  for (let at = task; at !== ROOT; at = tasks.parent[at]!) {
    if ((tasks.flags[at]! & HAS_LOCKS) === 0) continue;
    for (const { name, fence } of locks.tenant.claims.get(at) ?? []) if (!found.has(name)) found.set(name, fence);
    for (const [name, { fence }] of heldOf(state, at)) if (!found.has(name)) found.set(name, fence);
  }
  return found;
}

// The tenant's locks.

/** The lock of the tenant that the task has to get next; undefined where it has all. */
export function nextClaim(state: GoalState, task: number): Want | undefined {
  return setOf(state, task).tenant[state.locks.tenant.claims.get(task)?.length ?? 0];
}

function enterLane(state: GoalState, task: number): void {
  const { tenant } = state.locks;
  const { name } = nextClaim(state, task)!;
  const lane = tenant.lanes.get(name);
  if (lane === undefined) tenant.lanes.set(name, new Set([task]));
  else lane.add(task);
  tenant.news.add(name);
  use(tenant, name, 1);
}

function leaveLane({ tenant }: GoalLocks, name: string, task: number): boolean {
  const lane = tenant.lanes.get(name);
  const wasThere = lane?.delete(task) ?? false;
  if (lane?.size === 0) tenant.lanes.delete(name);
  if (wasThere) use(tenant, name, -1);
  return wasThere;
}

function secure(state: GoalState, task: number, fence: number, untilMs: number): void {
  const { locks } = state;
  const { name, mode } = nextClaim(state, task)!;
  leaveLane(locks, name, task);
  // Others may share it with this one.
  if (mode === "shared" && locks.tenant.lanes.has(name)) locks.tenant.news.add(name);
  const holds = locks.tenant.claims.get(task);
  if (holds === undefined) locks.tenant.claims.set(task, [{ name, fence, untilMs }]);
  else holds.push({ name, fence, untilMs });
  locks.tenant.dueAtMs = Math.min(locks.tenant.dueAtMs, untilMs);
  use(locks.tenant, name, 1);
  locks.arrived.push(task);
}

function renewClaims({ tenant }: GoalLocks, untilMs: number, rows: readonly number[]): void {
  for (let i = 0; i < rows.length; i += 2) tenant.claims.get(rows[i]!)![rows[i + 1]!]!.untilMs = untilMs;
}

/** Whatever the task has of the tenant's, or waits for, is given back: its shard is told until it says that it knows. */
function dropClaims(state: GoalState, task: number): void {
  const { locks } = state;
  const { tenant } = locks;
  const next = nextClaim(state, task);
  const holder = holderOf(state, task);
  if (next !== undefined && leaveLane(locks, next.name, task)) {
    tenant.dropped.push({ task, name: next.name, holder, fence: 0 });
    tenant.news.add(next.name);
  }
  for (const { name, fence } of tenant.claims.get(task) ?? []) {
    tenant.dropped.push({ task, name, holder, fence });
    tenant.news.add(name);
    use(tenant, name, -1);
  }
  tenant.claims.delete(task);
}
