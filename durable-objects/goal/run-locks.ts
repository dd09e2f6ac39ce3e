/**
 * Locks that functions take while they run: the goal's own, and the tenant's.
 * A run holds them below its task, so it enters what its task has declared. An
 * attempt that ends lets go of all of them, and leaves the queues it waits in.
 */
import { failure } from "../../shared/errors.ts";
import { LOCK_PERMITS_MAX, LOCK_SHARDS, LOCK_TTL_MS_DEFAULT, LOCK_TTL_MS_MAX, LOCK_TTL_MS_MIN } from "../../shared/limits.ts";
import { HOST_LOCK_WAIT_MS_MAX } from "../../shared/limits.ts";
import type { Granted, LockRelease } from "../../shared/policy/lock-steps.ts";
import { LOCK_NAME, shardOf } from "../../shared/protocol/lock.ts";
import { err, ok } from "../../shared/result.ts";
import type { Answer } from "../../shared/rpc.ts";
import type { GoalAsk } from "../../shared/rpc-functions.ts";
import type { LocksRpc, OutsideAsk } from "../../shared/rpc-locks.ts";
import { staleness } from "./core/asks.ts";
import { holderOf } from "./core/locks.ts";
import type { GoalState } from "./core/state.ts";

type Json = Readonly<Record<string, unknown>>;

/** A lock that a run has, or waits for. */
interface Held {
  readonly task: number;
  readonly attempt: number;
  readonly scope: "goal" | "tenant";
  readonly name: string;
  readonly holder: string;
  /** Null while it waits. */
  fence: number | null;
}

/** The goal's own locks, without the bearer. */
export interface OwnLocks {
  acquire(ask: OutsideAsk, bearer: undefined): Promise<Answer<Granted>>;
  release(release: LockRelease, bearer: undefined): Promise<Answer<null>>;
}

const bad = (detail: string): Answer<never> => err(failure("invalid_request", detail));
const isWhole = (value: unknown, min: number, max: number): value is number =>
  Number.isInteger(value) && (value as number) >= min && (value as number) <= max;

export class RunLocks {
  readonly #state: () => GoalState;
  readonly #own: OwnLocks;
  readonly #shard: (shard: number) => LocksRpc;
  readonly #held = new Set<Held>();

  constructor(state: () => GoalState, own: OwnLocks, shard: (shard: number) => LocksRpc) {
    this.#state = state;
    this.#own = own;
    this.#shard = shard;
  }

  async acquire({ task, attempt }: GoalAsk, args: Json): Promise<Answer<string>> {
    const wanted = wantedLock(args);
    if (!wanted.ok) return wanted;
    const { scope, ...ask } = wanted.value;
    const holder = this.#holderOf(task, attempt);
    const held: Held = { task, attempt, scope, name: ask.name, holder, fence: null };
    this.#held.add(held);
    const granted = await this.#acquire(scope, { ...ask, holder });
    if (!granted.ok) {
      this.#held.delete(held);
      return granted;
    }
    const { fence, expiresAtMs } = granted.value;
    this.#forget(scope, ask.name, fence);
    held.fence = fence;
    const stale = staleness(this.#state(), task, attempt);
    if (stale !== null) {
      this.#letGo(held);
      return err(stale);
    }
    return ok(JSON.stringify({ fence, expiresAt: expiresAtMs === null ? null : new Date(expiresAtMs).toISOString() }));
  }

  async release({ task, attempt }: GoalAsk, { name, scope = "goal", fence }: Json): Promise<Answer<null>> {
    if (typeof name !== "string" || !LOCK_NAME.test(name)) return bad("ctx.unlock takes the name of a lock");
    if (!isWhole(fence, 1, Number.MAX_SAFE_INTEGER)) return bad("ctx.unlock takes the fence that ctx.lock gave");
    if (scope !== "goal" && scope !== "tenant") return bad('the scope of a lock is "goal" or "tenant"');
    this.#forget(scope, name, fence);
    return this.#release(scope, { name, fence, holder: this.#holderOf(task, attempt) });
  }

  /** After each change: attempts that have ended hold nothing. */
  committed(): void {
    if (this.#held.size === 0) return;
    const state = this.#state();
    for (const held of this.#held) if (staleness(state, held.task, held.attempt) !== null) this.#letGo(held);
  }

  /** Below the task, so that a run is in what its task holds, and each attempt is another. */
  #holderOf(task: number, attempt: number): string {
    return `${holderOf(this.#state(), task)}/run.${attempt}`;
  }

  /** The same hold, got again or let go, is not counted twice. */
  #forget(scope: Held["scope"], name: string, fence: number): void {
    for (const held of this.#held) if (held.scope === scope && held.name === name && held.fence === fence) this.#held.delete(held);
  }

  #letGo(held: Held): void {
    this.#held.delete(held);
    const { scope, name, fence, holder } = held;
    this.#release(scope, { name, fence, holder }).catch((error: unknown) => {
      // It expires.
      console.warn(`the lock "${name}" of a run that has ended was not released: ${String(error)}`);
    });
  }

  async #acquire(scope: Held["scope"], ask: OutsideAsk): Promise<Answer<Granted>> {
    return scope === "goal" ? this.#own.acquire(ask, undefined) : this.#shard(shardOf(ask.name, LOCK_SHARDS)).acquireLock(ask);
  }

  async #release(scope: Held["scope"], release: LockRelease): Promise<Answer<null>> {
    return scope === "goal" ? this.#own.release(release, undefined) : this.#shard(shardOf(release.name, LOCK_SHARDS)).releaseLock(release);
  }
}

type WantedLock = Omit<OutsideAsk, "holder"> & { readonly scope: "goal" | "tenant" };

function wantedLock(args: Json): Answer<WantedLock> {
  const { name, scope = "goal", mode = "exclusive", permits, ttlMs = LOCK_TTL_MS_DEFAULT, waitMs = 0, ...rest } = args;
  const unknown = Object.keys(rest)[0];
  if (unknown !== undefined) return bad(`ctx.lock knows no "${unknown}"`);
  if (typeof name !== "string" || !LOCK_NAME.test(name))
    return bad("a lock's name has 1 to 128 of A-Z, a-z, 0-9, '_', '.', ':', '/', '@', '-'");
  if (scope !== "goal" && scope !== "tenant") return bad('the scope of a lock is "goal" or "tenant"');
  if (mode !== "exclusive" && mode !== "shared") return bad('the mode of a lock is "exclusive" or "shared"');
  if (permits !== undefined && !(mode === "shared" && isWhole(permits, 1, LOCK_PERMITS_MAX))) {
    return bad(`permits are for mode "shared", and from 1 to ${LOCK_PERMITS_MAX}`);
  }
  if (!isWhole(ttlMs, LOCK_TTL_MS_MIN, LOCK_TTL_MS_MAX))
    return bad(`ttlMs must be a whole number from ${LOCK_TTL_MS_MIN} to ${LOCK_TTL_MS_MAX}`);
  if (!isWhole(waitMs, 0, HOST_LOCK_WAIT_MS_MAX)) return bad(`waitMs must be a whole number from 0 to ${HOST_LOCK_WAIT_MS_MAX}`);
  return ok({ name, scope, mode, permits: permits ?? 0, ttlMs, waitMs });
}
