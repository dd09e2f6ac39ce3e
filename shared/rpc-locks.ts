/** The typed contract with whoever keeps locks, or the state that they guard. It is a part of `rpc.ts`. */
import type { Granted, LockAsk, LockMessage, LockNews, LockRelease, LockView } from "./policy/lock-steps.ts";
import type { Failure } from "./errors.ts";
import type { Result } from "./result.ts";
import type { Bearer } from "./token/claims.ts";

/** Locks by name: the goal's own, or a shard of the tenant's. */
export interface LocksRpc {
  /**
   * Asks for a lock, and waits for it for up to `waitMs`. The same holder
   * asking again renews what it has, or keeps its place. Fails with `lock_held`.
   */
  acquireLock(ask: OutsideAsk, bearer?: Bearer): Promise<Result<Granted, Failure>>;
  releaseLock(release: LockRelease, bearer?: Bearer): Promise<Result<null, Failure>>;
  lookAtLock(name: string, bearer?: Bearer): Promise<Result<LockView, Failure>>;
}

/** A shard of the tenant's locks, as goals see it. */
export interface LockShardRpc extends LocksRpc {
  /** What a goal wants, holds and lets go. It may come again. */
  exchangeLocks(message: LockMessage): Promise<LockNews>;
}

/** Who asks by HTTP is on the line while it waits. */
export type OutsideAsk = Omit<LockAsk, "owner">;

/** A value of a goal's shared state, as JSON. */
export interface StateValue {
  readonly version: number;
  readonly json: string;
}

/** `value` is JSON; null deletes the key. `ifVersion` 0: the key must not exist; null: whatever it has. */
export interface StateWrite {
  readonly key: string;
  readonly value: string | null;
  readonly ifVersion: number | null;
  /** Nothing is written unless this fence is that of a present holder. */
  readonly lock: { readonly name: string; readonly fence: number; readonly scope: "goal" | "tenant" } | null;
}
