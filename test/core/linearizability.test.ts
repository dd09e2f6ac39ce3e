/** The checker itself, and the locks' own decisions under it: 200 contenders whose messages and shard get lost. */
import { expect, test } from "vitest";
import { Random } from "../sim/random.ts";
import {
  brokenLocks,
  isLinearizable,
  LOCK_MODEL,
  type LockHistory,
  type LockInput,
  type LockOutput,
  type Operation,
} from "./linearizability.ts";
import { Shard } from "./lock-harness.ts";
import { locksFrom, imageOfLocks, type LockImage, type LockTable } from "../../shared/policy/lock-table.ts";

type Op = Operation<LockInput, LockOutput>;
const acquire = (holder: string): LockInput => ({ kind: "acquire", holder, waits: true });
const release = (holder: string, fence: number): LockInput => ({ kind: "release", holder, fence });
const op = (call: number, ret: number, input: LockInput, output: LockOutput | null): Op => ({ call, ret, input, output });

test("operations that overlap may have come in either order, others only in theirs", () => {
  const overlapping = [op(1, 4, acquire("a"), 2), op(2, 5, acquire("b"), 1), op(3, 6, release("b", 1), "released")];
  expect(isLinearizable(overlapping, LOCK_MODEL)).toBe(true);
  const apart = [op(1, 2, acquire("a"), 2), op(3, 4, acquire("b"), 1), op(5, 6, release("b", 1), "released")];
  expect(isLinearizable(apart, LOCK_MODEL)).toBe(false);
});

test("two holders at once, one fence twice, and a stale release that is taken cannot have happened", () => {
  expect(isLinearizable([op(1, 2, acquire("a"), 1), op(3, 4, acquire("b"), 2)], LOCK_MODEL)).toBe(false);
  const handed = (fence: number) => [op(1, 2, acquire("a"), 1), op(3, 4, release("a", 1), "released"), op(5, 6, acquire("b"), fence)];
  expect([isLinearizable(handed(2), LOCK_MODEL), isLinearizable(handed(1), LOCK_MODEL)]).toEqual([true, false]);
  const stale = [...handed(2), op(7, 8, release("a", 1), "released")];
  expect(isLinearizable(stale, LOCK_MODEL)).toBe(false);
});

test("what nobody heard the answer of may have happened, or not", () => {
  const lost = op(1, Infinity, acquire("a"), null);
  expect(isLinearizable([lost, op(2, 3, acquire("b"), 1)], LOCK_MODEL)).toBe(true);
  expect(isLinearizable([lost, op(2, 3, acquire("b"), "held"), op(4, 5, acquire("a"), 1)], LOCK_MODEL)).toBe(true);
  expect(isLinearizable([lost, op(2, 3, acquire("b"), "held"), op(4, 5, acquire("c"), 1)], LOCK_MODEL)).toBe(false);
});

const NAMES = ["a", "b", "c", "d"];

interface Contender {
  readonly holder: string;
  fence: number | null;
  /** What it has asked and not heard of. */
  pending: { readonly call: number; readonly input: LockInput } | null;
}

/**
 * Contenders ask, hold and release in a random order. Answers are lost, and
 * with a crash all those on their way. `spoil` plants a bug. To refuse a history
 * takes a search through all that lost answers leave open, so a history with a bug has none.
 */
function recorded(seed: number, lost: number, spoil: (shard: Shard, random: Random) => void = () => undefined): LockHistory {
  const random = new Random(seed);
  const history = new Map<string, Op[]>();
  for (const name of NAMES) {
    const shard = new Shard();
    const ops: Op[] = [];
    let now = 0;
    const contenders: Contender[] = Array.from({ length: 50 }, (_, i) => ({ holder: `h${i}`, fence: null, pending: null }));
    const answer = (contender: Contender, output: LockOutput): void => {
      const { pending } = contender;
      if (pending === null) return;
      contender.pending = null;
      const isLost = random.chance(lost);
      ops.push(op(pending.call, isLost ? Infinity : ++now, pending.input, isLost ? null : output));
      contender.fence = !isLost && typeof output === "number" ? output : null;
    };
    const ask = (contender: Contender): void => {
      const { holder, fence } = contender;
      const input = fence === null ? acquire(holder) : release(holder, fence);
      contender.pending = { call: ++now, input };
      if (input.kind === "release") return answer(contender, shard.release(input.fence) === "ok" ? "released" : "stale");
      const waitMs = random.chance(0.7) ? 60_000 : 0;
      const got = shard.acquire({ holder, waitMs, ttlMs: 3_600_000 });
      if (got !== "waits") answer(contender, typeof got === "number" ? got : "held");
    };
    for (let i = 0; i < 600; i++) {
      const idle = contenders.filter(({ pending }) => pending === null);
      if (idle.length > 0) ask(idle[random.between(0, idle.length - 1)]!);
      spoil(shard, random);
      for (const [holder, outcome] of shard.told.splice(0)) {
        answer(
          contenders.find((one) => one.holder === holder)!,
          typeof outcome === "number" ? outcome : "held",
        );
      }
      if (random.chance(lost / 10)) crash(contenders, ops);
    }
    crash(contenders, ops);
    history.set(name, ops);
  }
  return history;
}

/** Whoever is on the line hears nothing. */
function crash(contenders: readonly Contender[], ops: Op[]): void {
  for (const contender of contenders) {
    if (contender.pending === null) continue;
    ops.push(op(contender.pending.call, Infinity, contender.pending.input, null));
    contender.pending = null;
  }
}

test("the histories of 200 contenders with crashes and lost answers are linearizable", () => {
  for (let seed = 1; seed <= 10; seed++) expect(brokenLocks(recorded(seed, 0.1)), `seed ${seed}`).toEqual([]);
});

/** How many of ten histories the checker refuses. */
const refused = (spoil: Parameters<typeof recorded>[2]): number =>
  Array.from({ length: 10 }, (_, i) => brokenLocks(recorded(i + 1, 0, spoil))).filter((names) => names.length > 0).length;

const copyOf = (table: LockTable): LockTable => locksFrom(JSON.parse(JSON.stringify(imageOfLocks(table))) as LockImage);

test("a fence that is given twice is found", () => {
  expect(
    refused((shard, random) => {
      if (random.chance(0.01)) shard.table.fence = Math.max(0, shard.table.fence - 1);
    }),
  ).toBeGreaterThanOrEqual(9);
});

test("grants that are told before they are durable are found once a crash takes them back", () => {
  expect(
    refused((shard, random) => {
      const kept = keptOf(shard);
      if (random.chance(0.02)) shard.table = copyOf(kept.table);
      else if (random.chance(0.3)) kept.table = copyOf(shard.table);
    }),
  ).toBeGreaterThanOrEqual(9);
});

const disks = new WeakMap<Shard, { table: LockTable }>();

/** What an object that commits only now and then would have on disk. */
function keptOf(shard: Shard): { table: LockTable } {
  let kept = disks.get(shard);
  if (kept === undefined) disks.set(shard, (kept = { table: copyOf(shard.table) }));
  return kept;
}
