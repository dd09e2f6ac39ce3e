/**
 * What is decided about a goal's locks. At the end of every step whoever has
 * come to wait is looked at, and whatever has become free is given on, until
 * nothing moves: a hand-over costs the same however many wait.
 */
import { type Failure, failure } from "../../../shared/errors.ts";
import {
  acquire,
  type Acquired,
  applyLock,
  expire,
  type Granted,
  grantedBy,
  held,
  letGo,
  type LockAsk,
  type LockChange,
  type LockRelease,
  serve,
} from "../../../shared/policy/lock-steps.ts";
import { conflictOf, coverOf, holdFor, type Waiting } from "../../../shared/policy/lock-table.ts";
import { err, ok, type Result } from "../../../shared/result.ts";
import { codeOf, FAILED, GROUP } from "./codes.ts";
import { finish, settleParent } from "./lifecycle.ts";
import { applyLocks, holderOf, isOutside, lacksLocks, type LocksChange, nextClaim, setOf, waitsForLocks } from "./locks.ts";
import type { Recorder } from "./recorder.ts";

/** The end of a wait of somebody on the line. */
export interface SettledLine {
  readonly seq: number;
  readonly outcome: Result<Granted, Failure>;
}

/** Carries a fact about locks out and writes it down. */
export function record(rec: Recorder, change: LocksChange): void {
  applyLocks(rec.state, change);
  rec.out.changes.push(change);
}

function outside(rec: Recorder, change: LockChange): void {
  applyLock(rec.state.locks.table, change);
  const last = rec.out.changes.at(-1);
  if (last?.kind === "locks.outside") last.changes.push(change);
  else rec.out.changes.push({ kind: "locks.outside", changes: [change] });
}

/** A caller from outside asks for one of the goal's locks. */
export function acquireLock(rec: Recorder, ask: LockAsk): Acquired {
  return acquire(rec.state.locks.table, rec.nowMs, ask, (change) => outside(rec, change));
}

export function releaseLock(rec: Recorder, lock: LockRelease): Result<null, Failure> {
  const { table, freed } = rec.state.locks;
  const place = lock.fence === null ? table.locks.get(lock.name)?.waiting.get(lock.holder ?? "") : undefined;
  const reply = letGo(table, lock, (change) => outside(rec, change));
  if (reply.ok && place !== undefined) rec.out.lines.push({ seq: place.seq, outcome: err(held(table, lock.name, rec.nowMs)) });
  freed.add(lock.name);
  return reply;
}

/** What time ends among callers from outside. */
export function expireLocks(rec: Recorder): void {
  const { table, freed } = rec.state.locks;
  const due = expire(table, rec.nowMs, (change) => outside(rec, change));
  for (const name of due.freed) freed.add(name);
  for (const { seq, wants } of due.ended) rec.out.lines.push({ seq, outcome: err(held(table, wants[0]!.name, rec.nowMs)) });
}

/** The end of every step. */
export function serveLocks(rec: Recorder): void {
  const { locks } = rec.state;
  if (rec.state.goal?.phase !== "active") return closeLines(rec);
  while (locks.arrived.length > 0 || locks.freed.size > 0) {
    const { arrived } = locks;
    locks.arrived = [];
    for (const task of arrived) look(rec, task);
    const freed = [...locks.freed];
    locks.freed.clear();
    serve(locks.table, freed, (request, fences) => give(rec, request, fences));
  }
}

/** With the goal its locks end, and nobody waits for them any more. */
function closeLines(rec: Recorder): void {
  const { goal, locks } = rec.state;
  locks.arrived = [];
  locks.freed.clear();
  if (goal === null || locks.table.requests.size === 0) return;
  const outcome = err(failure("goal_ended", "the goal has ended, and its locks with it", { goalId: goal.id }));
  for (const seq of [...locks.table.requests.keys()]) {
    outside(rec, { kind: "gone", seq });
    rec.out.lines.push({ seq, outcome });
  }
}

/** Finds out what a task that waits for locks has to do next. */
function look(rec: Recorder, task: number): void {
  const { state } = rec;
  // It may have ended, moved on, or be in a queue already; and whoever is outside is looked at once its ancestor is in.
  if (!waitsForLocks(state, task) || state.locks.asked.has(task) || isOutside(state, task)) return;
  if (!lacksLocks(state.tasks.flags[task]!)) return goOn(rec, task);
  const claim = nextClaim(state, task);
  if (claim === undefined) return ask(rec, task);
  const isThere = state.locks.tenant.lanes.get(claim.name)?.has(task) ?? false;
  if (!isThere) add(rec, "locks.claimed", task);
}

/** Enters the queues of the goal's locks; who wants none of them, or has them through an ancestor, has all at once. */
function ask(rec: Recorder, task: number): void {
  const { state } = rec;
  const { table, freed } = state.locks;
  const { goal } = setOf(state, task);
  const holder = holderOf(state, task);
  if (goal.some((want) => conflictOf(table, holder, want) !== null)) return refuse(rec, task);
  if (goal.length === 0) return grantTo(rec, task, []);
  const covers = goal.map((want) => coverOf(table, holder, want));
  add(rec, "locks.asked", task);
  if (covers.every((cover) => cover !== null))
    grantTo(
      rec,
      task,
      covers.map(({ fence }) => fence),
    );
  else for (const { name } of goal) freed.add(name);
}

/** Its locks cannot be had as it declares them. */
export function refuse(rec: Recorder, task: number): void {
  finish(rec, { task, status: FAILED, code: codeOf("lock_conflict") });
}

function give(rec: Recorder, { seq, owner, ttlMs, holder, wants }: Waiting, fences: number[]): void {
  if (typeof owner === "number") return grantTo(rec, owner, fences);
  outside(rec, { kind: "granted", seq, fences, expiresAtMs: ttlMs === null ? null : rec.nowMs + ttlMs });
  const hold = holdFor(rec.state.locks.table.locks.get(wants[0]!.name), holder)!;
  rec.out.lines.push({ seq, outcome: ok(grantedBy(hold, holder)) });
}

function grantTo(rec: Recorder, task: number, fences: readonly number[]): void {
  const last = rec.out.changes.at(-1);
  if (last?.kind !== "locks.granted") return record(rec, { kind: "locks.granted", tasks: [task], fences: [fences] });
  applyLocks(rec.state, { kind: "locks.granted", tasks: [task], fences: [fences] });
  last.tasks.push(task);
  last.fences.push(fences);
}

function add(rec: Recorder, kind: "locks.asked" | "locks.claimed", task: number): void {
  const last = rec.out.changes.at(-1);
  if (last?.kind !== kind) return record(rec, { kind, tasks: [task] });
  applyLocks(rec.state, { kind, tasks: [task] });
  last.tasks.push(task);
}

/** Nothing more to wait for: into its queue, or, for a group, to its children. */
function goOn(rec: Recorder, task: number): void {
  rec.release(task);
  if ((rec.state.tasks.flags[task]! & GROUP) !== 0) settleParent(rec, task);
}
