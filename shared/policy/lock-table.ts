/**
 * Locks by name, and who waits for them. One holder (exclusive), many (shared),
 * or up to `permits` of them (a counting semaphore). Every grant has a fence: a
 * number that only rises (Lamport's and Kleppmann's fencing token). Those who
 * wait are served in the order in which they came, and nobody overtakes, so a
 * reader behind a waiting writer waits too.
 *
 * A request names one lock or several and gets all or none. It enters all its
 * queues at one number, and is granted at the front of each. The request with
 * the lowest number is at the front of all of its queues, so it only ever waits
 * for holders, never for another request: no circle can close.
 *
 * Holders are paths. `a/b/c` may enter a lock that `a/b` holds: it shares the
 * fence, and is out when `a/b` releases.
 *
 * Here are the state, its questions and its mutations. What is decided is in
 * `lock-steps.ts`.
 */
import { assert } from "../assert.ts";

export const LOCK_MODES = ["exclusive", "shared"] as const;
export type LockMode = (typeof LOCK_MODES)[number];

export interface Want {
  readonly name: string;
  readonly mode: LockMode;
  /** Shared holders at once; 0 for any number of them. */
  readonly permits: number;
}

/** Whose request it is: a task's number, a goal's id, or null for somebody on the line. */
export type Owner = number | string | null;

export interface LockRequest {
  readonly holder: string;
  readonly wants: readonly Want[];
  /** How long a grant lasts unless it is renewed; null for as long as its owner lives. */
  readonly ttlMs: number | null;
  /** It stops waiting then; null for never. */
  readonly deadlineAtMs: number | null;
  readonly owner: Owner;
}

export interface Waiting extends Omit<LockRequest, "deadlineAtMs"> {
  deadlineAtMs: number | null;
  readonly seq: number;
  /** The locks in whose queues it is. What an ancestor of its holder has it need not wait for. */
  readonly queues: readonly string[];
}

export interface Hold {
  readonly fence: number;
  readonly holder: string;
  readonly mode: LockMode;
  readonly owner: Owner;
  readonly ttlMs: number | null;
  expiresAtMs: number | null;
  /** Descendants that have entered. */
  readonly guests: Set<string>;
}

export interface Lock {
  /** What the shared ones agree on for as long as the lock is in use: -1 while there were none, 0 for any number. */
  permits: number;
  readonly holds: Map<number, Hold>;
  /** The same, by holder. */
  readonly holders: Map<string, Hold>;
  /** Numbers of requests, in their order. Those that wait no more are passed over. */
  queue: number[];
  head: number;
  /** Who waits, by holder. */
  readonly waiting: Map<string, Waiting>;
}

export interface LockTable {
  /** The latest fence that was given. */
  fence: number;
  nextSeq: number;
  readonly locks: Map<string, Lock>;
  readonly requests: Map<number, Waiting>;
  /** Fences that were released last, so that saying it again does no harm. */
  readonly released: Set<number>;
  /** Nothing expires before this. A lower bound: it is made exact when it is reached. */
  dueAtMs: number;
}

const UNDECIDED = -1;
const RELEASED_KEPT = 1_024;
const COMPACT_AT = 1_024;
const NEVER = Number.MAX_SAFE_INTEGER;

export function newLockTable(): LockTable {
  return { fence: 0, nextSeq: 1, locks: new Map(), requests: new Map(), released: new Set(), dueAtMs: NEVER };
}

function lockNamed(table: LockTable, name: string): Lock {
  let lock = table.locks.get(name);
  if (lock === undefined) {
    lock = { permits: UNDECIDED, holds: new Map(), holders: new Map(), queue: [], head: 0, waiting: new Map() };
    table.locks.set(name, lock);
  }
  return lock;
}

function dropIdle(table: LockTable, name: string, lock: Lock): void {
  if (lock.holds.size === 0 && lock.waiting.size === 0) table.locks.delete(name);
}

// Questions.

/** The hold that `holder` is in: its own, or that of its nearest ancestor. */
export function holdFor(lock: Lock | undefined, holder: string): Hold | null {
  if (lock === undefined || lock.holds.size === 0) return null;
  for (let path = holder; path !== ""; path = path.slice(0, Math.max(0, path.lastIndexOf("/")))) {
    const hold = lock.holders.get(path);
    if (hold !== undefined) return hold;
  }
  return null;
}

const covers = (hold: Hold, mode: LockMode): boolean => hold.mode === "exclusive" || mode === "shared";

/** The hold that makes a wait needless; null where there is none. */
export function coverOf(table: LockTable, holder: string, { name, mode }: Want): Hold | null {
  const hold = holdFor(table.locks.get(name), holder);
  return hold !== null && covers(hold, mode) ? hold : null;
}

/** Why a want can never be met as things are, as a sentence; null where it only has to wait. */
export function conflictOf(table: LockTable, holder: string, { name, mode, permits }: Want): string | null {
  const lock = table.locks.get(name);
  if (lock === undefined) return null;
  const hold = holdFor(lock, holder);
  if (hold !== null && !covers(hold, mode)) {
    return `"${hold.holder}" holds the lock "${name}" as shared, so "${holder}" cannot have it as exclusive before that is released`;
  }
  if (mode === "exclusive" || lock.permits === UNDECIDED || lock.permits === permits) return null;
  const asIs = lock.permits === 0 ? "without permits" : `with permits ${lock.permits}`;
  return `the lock "${name}" is in use ${asIs}; ask for the same until nobody holds it or waits for it`;
}

/** Whether one more may hold it. */
function hasRoom({ holds, permits }: Lock, mode: LockMode): boolean {
  if (holds.size === 0) return true;
  if (mode === "exclusive") return false;
  for (const hold of holds.values()) return hold.mode === "shared" && (permits <= 0 || holds.size < permits);
  return true;
}

/** The first that waits; undefined where nobody does. */
export function frontOf(table: LockTable, name: string): Waiting | undefined {
  const lock = table.locks.get(name);
  if (lock === undefined) return undefined;
  for (;;) {
    const seq = lock.queue[lock.head];
    if (seq === undefined) return undefined;
    const request = table.requests.get(seq);
    if (request !== undefined) return request;
    lock.head++;
    if (lock.head < COMPACT_AT || lock.head * 2 < lock.queue.length) continue;
    lock.queue = lock.queue.slice(lock.head);
    lock.head = 0;
  }
}

/** Whether a request that waits can have all that it wants. */
export function isGrantable(table: LockTable, request: Waiting): boolean {
  return request.wants.every((want) => {
    if (coverOf(table, request.holder, want) !== null) return true;
    const lock = table.locks.get(want.name);
    if (lock === undefined) return true;
    if (!hasRoom(lock, want.mode)) return false;
    return !request.queues.includes(want.name) || frontOf(table, want.name) === request;
  });
}

/** Whether somebody who came now would get it without waiting. */
export function isFree(table: LockTable, holder: string, want: Want): boolean {
  const lock = table.locks.get(want.name);
  return lock === undefined || coverOf(table, holder, want) !== null || (lock.waiting.size === 0 && hasRoom(lock, want.mode));
}

/** How many wait for it. */
export function queueLength(table: LockTable, name: string): number {
  return table.locks.get(name)?.waiting.size ?? 0;
}

/** Whether the fence is that of a present holder. */
export function isCurrent(table: LockTable, name: string, fence: number, nowMs: number): boolean {
  const hold = table.locks.get(name)?.holds.get(fence);
  return hold !== undefined && (hold.expiresAtMs === null || hold.expiresAtMs > nowMs);
}

/** What has run out by now, and when to look again. */
export function dueIn(table: LockTable, nowMs: number): { holds: (readonly [name: string, fence: number])[]; requests: number[] } {
  const holds: (readonly [string, number])[] = [];
  const requests: number[] = [];
  if (nowMs < table.dueAtMs) return { holds, requests };
  let next = NEVER;
  for (const [name, lock] of table.locks) {
    for (const { fence, expiresAtMs } of lock.holds.values()) {
      if (expiresAtMs === null) continue;
      if (expiresAtMs <= nowMs) holds.push([name, fence]);
      else next = Math.min(next, expiresAtMs);
    }
  }
  for (const { seq, deadlineAtMs } of table.requests.values()) {
    if (deadlineAtMs === null) continue;
    if (deadlineAtMs <= nowMs) requests.push(seq);
    else next = Math.min(next, deadlineAtMs);
  }
  table.dueAtMs = next;
  return { holds, requests };
}

// Mutations.

/** Puts a request into the queues of all that it has to wait for. Returns its number. */
export function enqueue(table: LockTable, request: LockRequest): number {
  const seq = table.nextSeq++;
  const queues = request.wants.filter((want) => coverOf(table, request.holder, want) === null).map(({ name }) => name);
  const waiting: Waiting = { ...request, seq, queues };
  table.requests.set(seq, waiting);
  for (const want of request.wants) {
    if (!queues.includes(want.name)) continue;
    const lock = lockNamed(table, want.name);
    lock.queue.push(seq);
    lock.waiting.set(request.holder, waiting);
    if (want.mode === "shared") lock.permits = want.permits;
  }
  if (request.deadlineAtMs !== null) table.dueAtMs = Math.min(table.dueAtMs, request.deadlineAtMs);
  return seq;
}

/** It waits longer. */
export function extend(table: LockTable, seq: number, deadlineAtMs: number): void {
  table.requests.get(seq)!.deadlineAtMs = deadlineAtMs;
  table.dueAtMs = Math.min(table.dueAtMs, deadlineAtMs);
}

/** A request waits no more. */
export function dequeue(table: LockTable, seq: number): Waiting {
  const request = table.requests.get(seq);
  assert(request !== undefined, () => `the request ${seq} must wait`);
  table.requests.delete(seq);
  for (const name of request.queues) {
    const lock = table.locks.get(name)!;
    if (lock.waiting.get(request.holder) === request) lock.waiting.delete(request.holder);
    dropIdle(table, name, lock);
  }
  return request;
}

/** Gives a request what it waits for: by want a new fence, or that of the hold that it enters. */
export function grant(table: LockTable, seq: number, fences: readonly number[], expiresAtMs: number | null): void {
  const { holder, owner, ttlMs, wants } = dequeue(table, seq);
  const before = table.fence;
  wants.forEach(({ name, mode, permits }, i) => {
    const fence = fences[i]!;
    if (fence <= before) return enter(table, name, fence, holder);
    const lock = lockNamed(table, name);
    if (mode === "shared") lock.permits = permits;
    const hold: Hold = { fence, holder, mode, owner, ttlMs, expiresAtMs, guests: new Set() };
    lock.holds.set(fence, hold);
    lock.holders.set(holder, hold);
    table.fence = Math.max(table.fence, fence);
  });
  if (expiresAtMs !== null) table.dueAtMs = Math.min(table.dueAtMs, expiresAtMs);
}

/** A descendant of the holder, or the holder itself, is in. */
export function enter(table: LockTable, name: string, fence: number, holder: string): void {
  const hold = table.locks.get(name)!.holds.get(fence)!;
  if (hold.holder !== holder) hold.guests.add(holder);
}

/** A descendant is out again. */
export function leave(table: LockTable, name: string, fence: number, holder: string): void {
  table.locks.get(name)?.holds.get(fence)?.guests.delete(holder);
}

export function renew(table: LockTable, name: string, fence: number, expiresAtMs: number | null): void {
  table.locks.get(name)!.holds.get(fence)!.expiresAtMs = expiresAtMs;
  if (expiresAtMs !== null) table.dueAtMs = Math.min(table.dueAtMs, expiresAtMs);
}

/** The holder is out, and with it whoever entered through it. `isWanted`: it said so itself. */
export function release(table: LockTable, name: string, fence: number, isWanted: boolean): void {
  const lock = table.locks.get(name);
  const hold = lock?.holds.get(fence);
  if (lock === undefined || hold === undefined) return;
  lock.holds.delete(fence);
  lock.holders.delete(hold.holder);
  dropIdle(table, name, lock);
  if (!isWanted) return;
  table.released.add(fence);
  if (table.released.size > RELEASED_KEPT) table.released.delete(table.released.values().next().value!);
}

// As plain data.

export interface LockImage {
  readonly fence: number;
  readonly nextSeq: number;
  /** Name, permits, and the holds with their guests as lists. */
  readonly locks: readonly (readonly [string, number, readonly (Omit<Hold, "guests"> & { readonly guests: readonly string[] })[]])[];
  readonly requests: readonly Waiting[];
  readonly released: readonly number[];
}

export function imageOfLocks(table: LockTable): LockImage {
  const locks = [...table.locks].map(([name, { permits, holds }]) => {
    return [name, permits, [...holds.values()].map((hold) => ({ ...hold, guests: [...hold.guests] }))] as const;
  });
  const { fence, nextSeq } = table;
  return { fence, nextSeq, locks, requests: [...table.requests.values()], released: [...table.released] };
}

/** `image` is taken over, not copied: it must come fresh from its text. */
export function locksFrom(image: LockImage): LockTable {
  const table: LockTable = { ...newLockTable(), fence: image.fence, nextSeq: image.nextSeq, released: new Set(image.released) };
  for (const [name, permits, holds] of image.locks) {
    const lock = lockNamed(table, name);
    lock.permits = permits;
    for (const one of holds) {
      const hold = { ...one, guests: new Set(one.guests) };
      lock.holds.set(hold.fence, hold);
      lock.holders.set(hold.holder, hold);
      table.dueAtMs = Math.min(table.dueAtMs, hold.expiresAtMs ?? NEVER);
    }
  }
  for (const request of image.requests) {
    table.requests.set(request.seq, request);
    table.dueAtMs = Math.min(table.dueAtMs, request.deadlineAtMs ?? NEVER);
    for (const name of request.queues) {
      const lock = lockNamed(table, name);
      lock.queue.push(request.seq);
      lock.waiting.set(request.holder, request);
    }
  }
  return table;
}
