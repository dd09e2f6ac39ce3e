/** Locks without a shell: who gets one, in what order, with which fence. */
import { expect, test } from "vitest";
import { held } from "../../shared/policy/lock-steps.ts";
import { isCurrent, queueLength } from "../../shared/policy/lock-table.ts";
import { exclusive, Shard, shared, T } from "./lock-harness.ts";

test("an exclusive lock has one holder, and goes to those who wait in the order in which they came", () => {
  const shard = new Shard();
  expect(["a", "b", "c"].map((holder) => shard.acquire({ holder }))).toEqual([1, "waits", "waits"]);
  shard.release(1);
  shard.release(2);
  expect(shard.told).toEqual([
    ["b", 2],
    ["c", 3],
  ]);
});

test("who does not wait is told how many do, and takes no place", () => {
  const shard = new Shard();
  shard.acquire({ holder: "a" });
  shard.acquire({ holder: "b" });
  expect(shard.reply({ holder: "c", waitMs: 0 })).toMatchObject({ error: { code: "lock_held", position: 1, retryAfterMs: 10_000 } });
  expect(queueLength(shard.table, "a")).toBe(1);
  shard.release(1);
  // b has it by now, and nobody waits.
  expect(held(shard.table, "a", T)).toMatchObject({ position: 0 });
});

test("readers share, and a reader behind a writer that waits lets it go first", () => {
  const shard = new Shard();
  expect(shard.acquire({ holder: "r1", mode: "shared" })).toBe(1);
  expect(shard.acquire({ holder: "r2", mode: "shared" })).toBe(2);
  expect(shard.acquire({ holder: "w" })).toBe("waits");
  expect(shard.acquire({ holder: "r3", mode: "shared" })).toBe("waits");
  expect(shard.acquire({ holder: "r4", mode: "shared" })).toBe("waits");
  shard.release(1);
  expect(shard.told).toEqual([]);
  shard.release(2);
  expect(shard.told).toEqual([["w", 3]]);
  shard.release(3);
  expect(shard.told.slice(1)).toEqual([
    ["r3", 4],
    ["r4", 5],
  ]);
});

test("so many hold a semaphore as its permits say, and other permits are refused while it is in use", () => {
  const shard = new Shard();
  const ask = (holder: string, permits: number) => shard.acquire({ holder, mode: "shared", permits });
  expect([ask("a", 2), ask("b", 2), ask("c", 2), ask("d", 3), ask("e", 0)]).toEqual([1, 2, "waits", "conflict", "conflict"]);
  shard.release(1);
  expect(shard.told).toEqual([["c", 3]]);
  shard.release(2);
  shard.release(3);
  expect(ask("d", 3)).toBe(4);
});

test("the same holder renews what it has under the same fence, and keeps its place where it waits", () => {
  const shard = new Shard();
  shard.acquire({ holder: "a", ttlMs: 1_000 });
  shard.acquire({ holder: "b", waitMs: 500 });
  shard.acquire({ holder: "c" });
  shard.pass(400);
  expect(shard.acquire({ holder: "a", ttlMs: 1_000 })).toBe(1);
  expect(shard.acquire({ holder: "b", waitMs: 60_000 })).toBe("waits");
  shard.pass(900);
  expect(isCurrent(shard.table, "a", 1, shard.nowMs)).toBe(true);
  shard.pass(100);
  // b would have gone after 500 ms, and would be behind c had it lost its place.
  expect(shard.told).toEqual([["b", 2]]);
});

test("a hold that is not renewed ends, and its fence is refused", () => {
  const shard = new Shard();
  shard.acquire({ holder: "a", ttlMs: 1_000 });
  shard.acquire({ holder: "b" });
  shard.pass(999);
  expect(shard.told).toEqual([]);
  shard.pass(1);
  expect(shard.told).toEqual([["b", 2]]);
  expect(shard.release(1)).toBe("stale_fence");
  expect(isCurrent(shard.table, "a", 1, shard.nowMs)).toBe(false);
  expect(isCurrent(shard.table, "a", 2, shard.nowMs)).toBe(true);
});

test("a release that is said twice does no harm, and never releases the next holder", () => {
  const shard = new Shard();
  shard.acquire({ holder: "a" });
  shard.acquire({ holder: "b" });
  expect([shard.release(1), shard.release(1)]).toEqual(["ok", "ok"]);
  expect(isCurrent(shard.table, "a", 2, shard.nowMs)).toBe(true);
  expect(shard.release(7)).toBe("stale_fence");
});

test("who has waited long enough, or leaves the queue, gets no grant", () => {
  const shard = new Shard();
  for (const holder of ["a", "b", "c", "d"]) shard.acquire({ holder, waitMs: holder === "b" ? 100 : 60_000 });
  expect(shard.release(null, "c")).toBe("ok");
  expect(shard.release(null, "x")).toBe("not_found");
  shard.pass(100);
  shard.release(1);
  expect(shard.told).toEqual([
    ["c", "lock_held"],
    ["b", "lock_held"],
    ["d", 2],
  ]);
});

test("a writer that gives up lets the readers behind it in", () => {
  const shard = new Shard();
  shard.acquire({ holder: "r1", mode: "shared" });
  shard.acquire({ holder: "w", waitMs: 100 });
  shard.acquire({ holder: "r2", mode: "shared" });
  shard.pass(100);
  expect(shard.told).toEqual([
    ["w", "lock_held"],
    ["r2", 2],
  ]);
});

test("a descendant of the holder enters under its fence, a sibling does not, and all are out with the holder", () => {
  const shard = new Shard();
  expect(shard.acquire({ holder: "a/b" })).toBe(1);
  expect(shard.reply({ holder: "a/b/c", mode: "shared" })).toMatchObject({ value: { granted: { fence: 1, host: "a/b" } } });
  expect(shard.acquire({ holder: "a/b/d" })).toBe(1);
  expect(["a/bc", "a", "x"].map((holder) => shard.acquire({ holder, waitMs: 0 }))).toEqual(["lock_held", "lock_held", "lock_held"]);
  // A guest that leaves takes nobody along.
  expect(shard.release(1, "a/b/c")).toBe("ok");
  expect([...shard.table.locks.get("a")!.holds.get(1)!.guests]).toEqual(["a/b/d"]);
  shard.release(1);
  expect(shard.acquire({ holder: "x" })).toBe(2);
  expect(isCurrent(shard.table, "a", 1, shard.nowMs)).toBe(false);
});

test("nobody goes from shared to exclusive below a shared hold, because it would wait for itself", () => {
  const shard = new Shard();
  shard.acquire({ holder: "a", mode: "shared" });
  expect([shard.acquire({ holder: "a" }), shard.acquire({ holder: "a/b" })]).toEqual(["conflict", "conflict"]);
});

test("several at once are had all together or not at all", () => {
  const shard = new Shard();
  shard.together("1", [exclusive("a"), exclusive("b")]);
  shard.together("2", [exclusive("b"), exclusive("c")]);
  shard.together("3", [exclusive("c")]);
  expect(shard.told).toEqual([["1", 1]]);
  // c is free, but 2 is ahead of 3 there.
  expect(shard.table.locks.get("c")!.holds.size).toBe(0);
  shard.release(1, null, "a");
  shard.release(1, null, "b");
  expect(shard.told).toEqual([
    ["1", 1],
    ["2", 2],
  ]);
  shard.release(2, null, "b");
  shard.release(2, null, "c");
  expect(shard.told[2]).toEqual(["3", 3]);
});

test("requests for the same locks in different orders do not wait for each other", () => {
  const shard = new Shard();
  shard.together("1", [exclusive("a"), exclusive("b")]);
  shard.together("2", [exclusive("b"), exclusive("a")]);
  shard.together("3", [shared("a"), exclusive("b")]);
  for (const fence of [1, 2, 3]) for (const name of ["a", "b"]) shard.release(fence, null, name);
  expect(shard.told.map(([holder]) => holder)).toEqual(["1", "2", "3"]);
});
