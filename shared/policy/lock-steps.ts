/**
 * What is decided about locks, as changes: each says what was decided, and
 * `applyLock` carries it out, now and when it is replayed. Time comes in with
 * the call.
 */
import { type Failure, failure } from "../errors.ts";
import {
  HOLDERS_PER_LOCK_MAX,
  LOCK_HOLDERS_SHOWN_MAX,
  LOCK_RETRY_MS_MAX,
  LOCK_RETRY_MS_MIN,
  LOCKS_MAX,
  WAITERS_PER_LOCK_MAX,
} from "../limits.ts";
import { err, ok, type Result } from "../result.ts";
import {
  conflictOf,
  coverOf,
  dequeue,
  dueIn,
  enqueue,
  enter,
  extend,
  frontOf,
  grant,
  type Hold,
  holdFor,
  isFree,
  isGrantable,
  leave,
  type LockMode,
  type LockRequest,
  type LockTable,
  queueLength,
  release,
  renew,
  type Waiting,
  type Want,
} from "./lock-table.ts";

export type LockChange =
  | { readonly kind: "asked"; readonly request: LockRequest }
  | { readonly kind: "extended"; readonly seq: number; readonly deadlineAtMs: number }
  /** Who waits no more, without a grant. */
  | { readonly kind: "gone"; readonly seq: number }
  /** `fences` by want; one that is not new is that of a hold that is entered. */
  | { readonly kind: "granted"; readonly seq: number; readonly fences: readonly number[]; readonly expiresAtMs: number | null }
  | { readonly kind: "entered"; readonly name: string; readonly fence: number; readonly holder: string }
  | { readonly kind: "left"; readonly name: string; readonly fence: number; readonly holder: string }
  | { readonly kind: "renewed"; readonly name: string; readonly fence: number; readonly expiresAtMs: number | null }
  /** `isWanted`: by its holder. */
  | { readonly kind: "released"; readonly name: string; readonly fence: number; readonly isWanted: boolean };

export function applyLock(table: LockTable, change: LockChange): void {
  switch (change.kind) {
    case "asked":
      enqueue(table, change.request);
      return;
    case "extended":
      return extend(table, change.seq, change.deadlineAtMs);
    case "gone":
      dequeue(table, change.seq);
      return;
    case "granted":
      return grant(table, change.seq, change.fences, change.expiresAtMs);
    case "entered":
      return enter(table, change.name, change.fence, change.holder);
    case "left":
      return leave(table, change.name, change.fence, change.holder);
    case "renewed":
      return renew(table, change.name, change.fence, change.expiresAtMs);
    case "released":
      return release(table, change.name, change.fence, change.isWanted);
  }
}

/** Carries a change out and writes it down. */
export type Decide = (change: LockChange) => void;

/** What one holder has of one lock. */
export interface Granted {
  readonly fence: number;
  readonly mode: LockMode;
  /** Null where it lasts for as long as its owner lives. */
  readonly expiresAtMs: number | null;
  /** The ancestor that holds it, where that is not the asker itself. */
  readonly host?: string;
}

export const grantedBy = ({ fence, mode, expiresAtMs, holder }: Hold, asker: string): Granted => ({
  fence,
  mode,
  expiresAtMs,
  ...(holder === asker ? {} : { host: holder }),
});

/** One lock for somebody outside: by HTTP, or a goal for one of its tasks. */
export interface LockAsk extends Want {
  readonly holder: string;
  readonly ttlMs: number;
  /** How long it waits; 0: it takes no place in the queue. */
  readonly waitMs: number;
  readonly owner: LockRequest["owner"];
}

export type Acquired = Result<{ readonly granted: Granted } | { readonly seq: number }, Failure>;

/**
 * Asks for one lock. A holder that asks again renews what it has, and one that
 * waits keeps its place. Whoever is inserted into a queue is told its number.
 */
export function acquire(table: LockTable, nowMs: number, ask: LockAsk, decide: Decide): Acquired {
  const { name, holder } = ask;
  const conflict = conflictOf(table, holder, ask);
  if (conflict !== null) return err(failure("conflict", conflict));
  const lock = table.locks.get(name);
  const cover = coverOf(table, holder, ask);
  const waiting = lock?.waiting.get(holder);
  const place = waiting?.owner === ask.owner ? waiting : undefined;
  if (cover !== null) {
    // It waited before an ancestor of its holder had it.
    if (place !== undefined) decide({ kind: "gone", seq: place.seq });
    return take(cover, nowMs, ask, decide);
  }
  if (place !== undefined) return ask.waitMs > 0 ? keepPlace(place, nowMs, ask, decide) : err(held(table, name, nowMs));
  const fault = crowdFault(table, name);
  if (fault !== null) return err(fault);
  const free = isFree(table, holder, ask);
  if (!free && ask.waitMs === 0) return err(held(table, name, nowMs));
  const seq = table.nextSeq;
  decide({ kind: "asked", request: requestOf(ask, nowMs) });
  if (!free) return ok({ seq });
  decide({ kind: "granted", seq, fences: [table.fence + 1], expiresAtMs: nowMs + ask.ttlMs });
  return ok({ granted: grantedBy(holdFor(table.locks.get(name), holder)!, holder) });
}

function requestOf({ name, mode, permits, holder, ttlMs, waitMs, owner }: LockAsk, nowMs: number): LockRequest {
  return { holder, wants: [{ name, mode, permits }], ttlMs, deadlineAtMs: nowMs + waitMs, owner };
}

/** Renews the asker's own hold, or enters that of its ancestor. */
function take(cover: Hold, nowMs: number, { name, holder, ttlMs }: LockAsk, decide: Decide): Acquired {
  const { fence } = cover;
  if (cover.holder !== holder) {
    if (!cover.guests.has(holder)) {
      if (cover.guests.size >= HOLDERS_PER_LOCK_MAX)
        return err(failure("quota_exceeded", `${HOLDERS_PER_LOCK_MAX} have entered the lock "${name}" already`));
      decide({ kind: "entered", name, fence, holder });
    }
  } else if (cover.expiresAtMs !== null) {
    decide({ kind: "renewed", name, fence, expiresAtMs: nowMs + ttlMs });
  }
  return ok({ granted: grantedBy(cover, holder) });
}

/** A second request of one that waits already: it goes on waiting where it is, until its new deadline. */
function keepPlace(place: Waiting, nowMs: number, ask: LockAsk, decide: Decide): Acquired {
  const want = place.wants.find(({ name }) => name === ask.name)!;
  if (want.mode !== ask.mode || want.permits !== ask.permits) {
    return err(failure("conflict", `"${ask.holder}" waits for the lock "${ask.name}" as ${want.mode} already; let that end first`));
  }
  if (place.deadlineAtMs !== null) decide({ kind: "extended", seq: place.seq, deadlineAtMs: nowMs + ask.waitMs });
  return ok({ seq: place.seq });
}

/** The lock is not to be had now: how many wait for it, and when to come again. */
export function held(table: LockTable, name: string, nowMs: number): Failure {
  const position = queueLength(table, name);
  let untilMs = Number.MAX_SAFE_INTEGER;
  for (const { expiresAtMs } of table.locks.get(name)?.holds.values() ?? []) untilMs = Math.min(untilMs, expiresAtMs ?? untilMs);
  const retryAfterMs = Math.min(LOCK_RETRY_MS_MAX, Math.max(LOCK_RETRY_MS_MIN, untilMs - nowMs));
  const detail = `the lock "${name}" is held, and ${position} wait for it; Prefer: wait=n keeps a place in the queue for n seconds`;
  return failure("lock_held", detail, { position, retryAfterMs });
}

function crowdFault(table: LockTable, name: string): Failure | null {
  const lock = table.locks.get(name);
  if (lock === undefined) return table.locks.size < LOCKS_MAX ? null : failure("quota_exceeded", `${LOCKS_MAX} locks are in use already`);
  if (lock.waiting.size >= WAITERS_PER_LOCK_MAX) {
    return failure("quota_exceeded", `${WAITERS_PER_LOCK_MAX} wait for the lock "${name}" already`, { retryAfterMs: LOCK_RETRY_MS_MAX });
  }
  if (lock.holds.size < HOLDERS_PER_LOCK_MAX) return null;
  return failure("quota_exceeded", `${HOLDERS_PER_LOCK_MAX} hold the lock "${name}" already`);
}

/** Who lets a lock go: by its fence; and, where it entered its ancestor's, by its own name too. */
export interface LockRelease {
  readonly name: string;
  readonly fence: number | null;
  readonly holder: string | null;
}

const owned = (name: string): Failure =>
  failure("conflict", `the lock "${name}" is held for a task, and is released when that ends; cancel the task to end it earlier`);

const stale = (name: string, fence: number): Failure =>
  failure(
    "stale_fence",
    `the fence ${fence} is not that of a present holder of the lock "${name}": it has expired, or somebody has had the lock since`,
  );

/**
 * Lets a lock go, or a place in its queue where only a holder is named. The
 * release of a fence that was released before changes nothing.
 */
export function letGo(table: LockTable, { name, fence, holder }: LockRelease, decide: Decide): Result<null, Failure> {
  const lock = table.locks.get(name);
  if (fence === null) {
    const place = holder === null ? undefined : lock?.waiting.get(holder);
    if (place === undefined || place.owner !== null)
      return err(failure("not_found", `"${holder}" does not wait for the lock "${name}"; a holder gives its fence`));
    decide({ kind: "gone", seq: place.seq });
    return ok(null);
  }
  const hold = lock?.holds.get(fence);
  if (hold === undefined) return table.released.has(fence) ? ok(null) : err(stale(name, fence));
  if (holder === null || holder === hold.holder) {
    if (hold.owner !== null) return err(owned(name));
    decide({ kind: "released", name, fence, isWanted: true });
  } else if (hold.guests.has(holder)) decide({ kind: "left", name, fence, holder });
  return ok(null);
}

/** What time ends: holds and patience. Names of the locks that it frees, and the requests that it ends. */
export function expire(table: LockTable, nowMs: number, decide: Decide): { readonly freed: string[]; readonly ended: Waiting[] } {
  const due = dueIn(table, nowMs);
  const freed = due.holds.map(([name]) => name);
  for (const [name, fence] of due.holds) decide({ kind: "released", name, fence, isWanted: false });
  const ended = due.requests.map((seq) => table.requests.get(seq)!);
  for (const { seq, queues } of ended) {
    decide({ kind: "gone", seq });
    freed.push(...queues);
  }
  return { freed, ended };
}

/** Serves whoever can be served, where something has become free; calls `give` for each, which must grant it. */
export function serve(table: LockTable, freed: Iterable<string>, give: (request: Waiting, fences: number[]) => void): void {
  const names = [...freed];
  for (let at = 0; at < names.length; at++) {
    const name = names[at]!;
    for (let request = frontOf(table, name); request !== undefined && isGrantable(table, request); request = frontOf(table, name)) {
      const { holder, wants, queues } = request;
      give(
        request,
        wants.map((want) => coverOf(table, holder, want)?.fence ?? table.fence + 1),
      );
      // Whoever was behind it elsewhere is at the front there now.
      for (const other of queues) if (other !== name) names.push(other);
    }
  }
}

/** A lock as it stands, for somebody who looks. */
export interface LockView {
  readonly name: string;
  /** The first of its holders. */
  readonly holders: readonly (Omit<Granted, "host"> & { readonly holder: string; readonly guests: number })[];
  readonly held: number;
  readonly queue: number;
}

export function viewOf(table: LockTable, name: string): LockView {
  const holds = table.locks.get(name)?.holds ?? new Map<number, Hold>();
  const holders: LockView["holders"][number][] = [];
  for (const { fence, mode, holder, expiresAtMs, guests } of holds.values()) {
    if (holders.length >= LOCK_HOLDERS_SHOWN_MAX) break;
    holders.push({ holder, fence, mode, expiresAtMs, guests: guests.size });
  }
  return { name, holders, held: holds.size, queue: queueLength(table, name) };
}

/** What a goal tells a shard of the tenant's locks. It may come again, and does no harm then. */
export interface LockMessage {
  readonly goalId: string;
  readonly shard: number;
  /** On the goal's clock: leases run from here. */
  readonly sentAtMs: number;
  /** Tasks that want a lock, or wait for it still. */
  readonly asks: readonly (Want & { readonly task: number; readonly holder: string })[];
  /** What is held on; `place` is for the goal alone. */
  readonly renews: readonly { readonly task: number; readonly place: number; readonly name: string; readonly fence: number }[];
  /** What nobody wants any more; fence 0 where the goal knows of no grant. */
  readonly releases: readonly { readonly name: string; readonly holder: string; readonly fence: number }[];
}

/** What a shard answers. Tasks that are not in it wait. */
export interface LockNews {
  readonly granted: readonly { readonly task: number; readonly name: string; readonly fence: number }[];
  /** Fences that were to be renewed and are no longer held. */
  readonly lost: readonly number[];
  /** Tasks whose wants cannot be met as things are. */
  readonly refused: readonly number[];
}
