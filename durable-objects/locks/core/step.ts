/**
 * A shard of the tenant's locks: `step(table, nowMs, command, out)`. It is
 * deterministic; what it decides about locks is in `shared/policy`, and shared
 * with goals.
 */
import type { Failure } from "../../../shared/errors.ts";
import { TENANT_LOCK_TTL_MS } from "../../../shared/limits.ts";
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
  type LockMessage,
  type LockNews,
  type LockRelease,
  serve,
} from "../../../shared/policy/lock-steps.ts";
import { holdFor, type LockTable, type Waiting } from "../../../shared/policy/lock-table.ts";
import { err, ok, type Result } from "../../../shared/result.ts";

export type Command =
  | { readonly kind: "acquire"; readonly ask: LockAsk }
  | { readonly kind: "release"; readonly release: LockRelease }
  /** All that a goal has to say. */
  | { readonly kind: "exchange"; readonly message: LockMessage };

/** The end of a wait. */
export interface Settled {
  readonly request: Waiting;
  readonly outcome: Result<Granted, Failure>;
}

export interface Out {
  /** Facts to commit, in order. */
  readonly changes: LockChange[];
  /** Waits that have ended, to be told after the commit. */
  readonly settled: Settled[];
}

export type Reply = Acquired | Result<null, Failure> | { readonly ok: true; readonly value: { readonly news: LockNews } };

export function step(table: LockTable, nowMs: number, command: Command, out: Out): Reply {
  const decide = decider(table, out);
  if (command.kind === "exchange") return ok({ news: exchange(table, nowMs, command.message, out) });
  if (command.kind === "acquire") return acquire(table, nowMs, command.ask, decide);
  const { name } = command.release;
  const place = command.release.fence === null ? table.locks.get(name)?.waiting.get(command.release.holder ?? "") : undefined;
  const reply = letGo(table, command.release, decide);
  if (place !== undefined) out.settled.push({ request: place, outcome: err(held(table, name, nowMs)) });
  serveAll(table, nowMs, [name], out);
  return reply;
}

/**
 * A goal lets go, holds on and asks, for its tasks. What it asks for again it
 * has or waits for already, and is told how that stands.
 */
function exchange(table: LockTable, nowMs: number, { goalId, asks, renews, releases }: LockMessage, out: Out): LockNews {
  const decide = decider(table, out);
  for (const { name, holder, fence } of releases) {
    const lock = table.locks.get(name);
    const hold = fence === 0 ? lock?.holders.get(holder) : lock?.holds.get(fence);
    // A task below the holder leaves, and takes nobody along.
    if (hold?.owner === goalId && hold.holder === holder) decide({ kind: "released", name, fence: hold.fence, isWanted: false });
    else if (hold?.guests.has(holder) === true) decide({ kind: "left", name, fence, holder });
    const place = lock?.waiting.get(holder);
    // Who lets a grant go may have come to wait anew.
    if (fence === 0 && place?.owner === goalId) decide({ kind: "gone", seq: place.seq });
  }
  const lost: number[] = [];
  for (const { name, fence } of renews) {
    const owner = table.locks.get(name)?.holds.get(fence)?.owner;
    // A sub-goal that is inside a lock of its parent's stays in for as long as that has it.
    if (owner === undefined) lost.push(fence);
    else if (owner === goalId) decide({ kind: "renewed", name, fence, expiresAtMs: nowMs + TENANT_LOCK_TTL_MS });
  }
  serveAll(table, nowMs, new Set(releases.map(({ name }) => name)), out);
  const granted: LockNews["granted"][number][] = [];
  const refused: number[] = [];
  for (const { task, ...want } of asks) {
    const reply = acquire(table, nowMs, { ...want, ttlMs: TENANT_LOCK_TTL_MS, waitMs: TENANT_LOCK_TTL_MS, owner: goalId }, decide);
    if (!reply.ok && reply.error.code === "conflict") refused.push(task);
    if (reply.ok && "granted" in reply.value) granted.push({ task, name: want.name, fence: reply.value.granted.fence });
  }
  return { granted, lost, refused };
}

/** What time alone brings about. Before the commands of a turn. */
export function tick(table: LockTable, nowMs: number, out: Out): void {
  const { freed, ended } = expire(table, nowMs, decider(table, out));
  for (const request of ended) out.settled.push({ request, outcome: err(held(table, request.wants[0]!.name, nowMs)) });
  serveAll(table, nowMs, freed, out);
}

const decider =
  (table: LockTable, { changes }: Out) =>
  (change: LockChange) => {
    applyLock(table, change);
    changes.push(change);
  };

function serveAll(table: LockTable, nowMs: number, freed: Iterable<string>, out: Out): void {
  const decide = decider(table, out);
  serve(table, freed, (request, fences) => {
    const { seq, ttlMs, holder, wants } = request;
    decide({ kind: "granted", seq, fences, expiresAtMs: ttlMs === null ? null : nowMs + ttlMs });
    out.settled.push({ request, outcome: ok(grantedBy(holdFor(table.locks.get(wants[0]!.name), holder)!, holder)) });
  });
}
