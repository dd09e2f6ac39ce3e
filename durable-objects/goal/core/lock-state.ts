/** What a goal knows of locks: its own, and those of the tenant that it holds for its tasks. */
import { LOCK_SHARDS } from "../../../shared/limits.ts";
import { shardOf } from "../../../shared/protocol/lock.ts";
import { imageOfLocks, type LockImage, locksFrom, type LockTable, newLockTable, type Want } from "../../../shared/policy/lock-table.ts";

/** What a task declares. */
export interface LockSet {
  /** In the order of their names. */
  readonly tenant: readonly Want[];
  readonly goal: readonly Want[];
}

/** A lock of the tenant that a task has. */
export interface TenantHold {
  readonly name: string;
  readonly fence: number;
  /** It may be lost from then on, by the goal's clock. */
  untilMs: number;
}

/** A lock of the tenant that nobody here wants any more, and whose shard has not said that it knows. */
export interface Dropped {
  readonly task: number;
  readonly name: string;
  readonly holder: string;
  /** 0 where the goal knows of no grant. */
  readonly fence: number;
}

/** Where the exchange with one shard stands. It ends with the incarnation. */
export interface Talk {
  isAsking: boolean;
  sentAtMs: number;
  /** Nothing is sent before this: the last message got no answer. */
  restUntilMs: number;
  /** Locks of that shard that the goal holds or waits for, each as often as its tasks do. */
  uses: number;
}

export interface TenantLocks {
  /** By task: what it has so far. */
  readonly claims: Map<number, TenantHold[]>;
  /** By lock: tasks that want it next, in the order in which they came. */
  readonly lanes: Map<string, Set<number>>;
  /** No hold runs out before this. A lower bound: it is made exact when it is reached. */
  dueAtMs: number;
  /** None of what follows is durable: it is said again, or a shard finds out by itself. */
  dropped: Dropped[];
  readonly talks: Map<number, Talk>;
  /** Locks of which a shard has to hear something new. */
  readonly news: Set<string>;
}

export interface GoalLocks {
  readonly table: LockTable;
  /** Distinct declarations, and their numbers by their text. */
  readonly sets: LockSet[];
  readonly numbers: Map<string, number>;
  /** Task to the number of what it declares. It outlives the task, for whoever wants it done again. */
  readonly declared: Map<number, number>;
  /** Tasks that declare locks and have not ended. */
  live: number;
  /** Task to its request in the table. */
  readonly asked: Map<number, number>;
  readonly tenant: TenantLocks;
  /** Tasks that have come to wait for locks, and locks that have become free: empty between turns. */
  arrived: number[];
  readonly freed: Set<string>;
}

export const NEVER = Number.MAX_SAFE_INTEGER;

export function newGoalLocks(): GoalLocks {
  return {
    table: newLockTable(),
    sets: [],
    numbers: new Map(),
    declared: new Map(),
    live: 0,
    asked: new Map(),
    tenant: { claims: new Map(), lanes: new Map(), dueAtMs: NEVER, dropped: [], talks: new Map(), news: new Set() },
    arrived: [],
    freed: new Set(),
  };
}

/** As plain data. */
export interface GoalLocksImage {
  readonly table: LockImage;
  readonly sets: readonly LockSet[];
  readonly declared: readonly (readonly [number, number])[];
  readonly live: number;
  readonly claims: readonly (readonly [number, readonly TenantHold[]])[];
  readonly lanes: readonly (readonly [string, readonly number[]])[];
}

export function imageOfGoalLocks({ table, sets, declared, live, tenant }: GoalLocks): GoalLocksImage {
  return {
    table: imageOfLocks(table),
    sets,
    declared: [...declared],
    live,
    claims: [...tenant.claims],
    lanes: [...tenant.lanes].map(([name, tasks]) => [name, [...tasks]] as const),
  };
}

/** `image` is taken over, not copied: it must come fresh from its text. */
export function goalLocksFrom(image: GoalLocksImage): GoalLocks {
  const locks: GoalLocks = { ...newGoalLocks(), table: locksFrom(image.table), sets: [...image.sets], live: image.live };
  image.sets.forEach((set, number) => locks.numbers.set(JSON.stringify(set), number));
  for (const [task, number] of image.declared) locks.declared.set(task, number);
  for (const { owner, seq } of image.table.requests) if (typeof owner === "number") locks.asked.set(owner, seq);
  for (const [task, holds] of image.claims) locks.tenant.claims.set(task, [...holds]);
  for (const [name, tasks] of image.lanes) locks.tenant.lanes.set(name, new Set(tasks));
  for (const [, holds] of image.claims) {
    for (const { name, untilMs } of holds) {
      use(locks.tenant, name, 1);
      locks.tenant.dueAtMs = Math.min(locks.tenant.dueAtMs, untilMs);
    }
  }
  for (const [name, tasks] of image.lanes) use(locks.tenant, name, tasks.length);
  return locks;
}

export const shardFor = (name: string): number => shardOf(name, LOCK_SHARDS);

export function talkWith({ talks }: TenantLocks, shard: number): Talk {
  let talk = talks.get(shard);
  if (talk === undefined) talks.set(shard, (talk = { isAsking: false, sentAtMs: 0, restUntilMs: 0, uses: 0 }));
  return talk;
}

/** Counts what the goal has to do with the lock's shard. */
export function use(tenant: TenantLocks, name: string, count: number): void {
  talkWith(tenant, shardFor(name)).uses += count;
}

/** Whether tasks wait for locks that others have. */
export const awaitsLocks = ({ locks }: { readonly locks: GoalLocks }): boolean => locks.asked.size > 0 || locks.tenant.lanes.size > 0;
