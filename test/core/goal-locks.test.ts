/** Locks that tasks declare: who runs when, what is held how long, and who is let in below. */
import { expect, test } from "vitest";
import { HAS_LOCKS } from "../../durable-objects/goal/core/codes.ts";
import { fencesOf, letsGo } from "../../durable-objects/goal/core/locks.ts";
import { tenantLocksAt } from "../../durable-objects/goal/core/tenant-locks.ts";
import type { LockAsk } from "../../shared/policy/lock-steps.ts";
import type { LockSpec, TaskSpec } from "../../shared/protocol/task.ts";
import { Driver, durable, get, GOAL_ID, group, post } from "./goal-harness.ts";

const L: LockSpec = { name: "l" };
const withLocks = (locks: readonly LockSpec[], over: Partial<TaskSpec> = {}): TaskSpec => get({ locks, ...over });

const running = (d: Driver): number[] => d.dispatch().flatMap(({ tasks }) => tasks);

function outside(d: Driver, holder: string, over: Partial<LockAsk> = {}): number | string {
  const ask: LockAsk = { name: "l", mode: "exclusive", permits: 0, holder, ttlMs: 10_000, waitMs: 60_000, owner: null, ...over };
  const reply = d.do({ kind: "acquire-lock", ask });
  if (!reply.ok) return reply.error.code;
  const { lock } = reply.value;
  return "granted" in lock! ? lock.granted.fence : "waits";
}

const release = (d: Driver, fence: number, name = "l"): string => {
  const reply = d.do({ kind: "release-lock", release: { name, fence, holder: null } });
  return reply.ok ? "ok" : reply.error.code;
};

/** Nothing of any lock is left, in memory or on disk. */
function expectNoLocks(d: Driver): void {
  expect([...d.state.locks.table.locks.keys()]).toEqual([]);
  expect(d.state.locks.table.requests.size).toBe(0);
  expect(d.state.locks.live).toBe(0);
  expect(durable(d.replayed())).toEqual(durable(d.state));
}

test("tasks that declare the same lock run one at a time, in the order in which they came", () => {
  const d = new Driver({ tasks: Array.from({ length: 300 }, () => withLocks([L])) });
  const order: number[] = [];
  for (let batch = running(d); batch.length > 0; batch = running(d)) {
    expect(batch).toHaveLength(1);
    order.push(...batch);
    d.settle(batch);
  }
  expect(order).toEqual(Array.from({ length: 300 }, (_, task) => task));
  expectNoLocks(d);
});

test("a hand-over touches none of those that wait", () => {
  const d = new Driver({ tasks: Array.from({ length: 2_000 }, () => withLocks([L])) });
  const before = d.journal.length;
  for (let i = 0; i < 10; i++) d.settle(running(d));
  // What ended, what was granted and put into its queue, and what was started.
  expect(d.journal.length - before).toBeLessThanOrEqual(45);
  expect(JSON.stringify(d.journal.slice(before)).length).toBeLessThan(10 * 1_000);
});

test("a goal that has ended has nothing more to do about the tenant's locks, once their shard knows", () => {
  const d = new Driver({ tasks: [withLocks([{ name: "t", scope: "tenant" }])] });
  d.dispatch();
  const talk = [...d.state.locks.tenant.talks.values()][0]!;
  expect(talk.isAsking).toBe(true);
  const [shard] = [...d.state.locks.tenant.talks.keys()] as [number];
  const message = { goalId: GOAL_ID, shard, sentAtMs: d.nowMs, asks: [], renews: [], releases: [] };
  d.do({ kind: "lock-news", message, news: { granted: [{ task: 0, name: "t", fence: 3 }], lost: [], refused: [] } });
  d.do({ kind: "cancel" });
  d.dispatch();
  const releases = d.state.locks.tenant.dropped;
  expect(releases).toMatchObject([{ name: "t", fence: 3 }]);
  d.do({ kind: "lock-news", message: { ...message, releases }, news: { granted: [], lost: [], refused: [] } });
  d.passMs(60_000);
  d.dispatch();
  expect(tenantLocksAt(d.state)).toBe(Number.MAX_SAFE_INTEGER);
});

test("a task that waits for a lock says so", () => {
  const d = new Driver({ tasks: [withLocks([L]), withLocks([L])] });
  running(d);
  expect([d.status(0), d.status(1), d.state.tasks.reason[1]]).toEqual(["running", "waiting", 5]);
});

test("a lock is kept through a retry, and released by success, failure, cancellation and expiry", () => {
  const d = new Driver({ tasks: [withLocks([L]), withLocks([L]), withLocks([L], { ttlMs: 1_000 }), withLocks([L])] });
  running(d);
  d.settle([0], { status: 500 });
  expect(d.status(1)).toBe("waiting");
  d.passMs(60_000);
  // The third has expired as it waited.
  expect(d.status(2)).toBe("expired");
  expect(running(d)).toEqual([0]);
  d.settle([0], { status: 404 });
  expect([d.status(0), running(d)]).toEqual(["failed", [1]]);
  d.do({ kind: "cancel-task", task: 1 });
  expect(running(d)).toEqual([3]);
  d.settle([3]);
  expectNoLocks(d);
});

test("a task that nobody can tell the outcome of keeps its locks until somebody decides", () => {
  const d = new Driver({ tasks: [post({ locks: [L] }), withLocks([L])] });
  running(d);
  d.settle([0], { outcome: "broken" });
  expect(running(d)).toEqual([]);
  d.do({ kind: "resolve", task: 0, as: "failed", line: null });
  expect(running(d)).toEqual([1]);
});

test("several locks are had all or none, and tasks that name them in different orders all run", () => {
  const [a, b, c]: LockSpec[] = [{ name: "a" }, { name: "b" }, { name: "c" }];
  const d = new Driver({ tasks: [withLocks([a!, b!]), withLocks([b!, a!]), withLocks([c!, b!]), withLocks([c!])] });
  const rounds: number[][] = [];
  for (let batch = running(d); batch.length > 0; batch = running(d)) {
    rounds.push(batch);
    d.settle(batch);
  }
  // The last would be free to go from the first, but the one before it came first.
  expect(rounds).toEqual([[0], [1], [2], [3]]);
  expectNoLocks(d);
});

test("readers run together, and as many of a semaphore as its permits say", () => {
  const reader: LockSpec = { name: "r", mode: "shared" };
  const seat: LockSpec = { name: "s", mode: "shared", permits: 2 };
  const d = new Driver({ tasks: [withLocks([reader]), withLocks([reader]), withLocks([{ name: "r" }]), withLocks([reader])] });
  expect(running(d)).toEqual([0, 1]);
  d.settle([0, 1]);
  expect(running(d)).toEqual([2]);
  d.submit([withLocks([seat]), withLocks([seat]), withLocks([seat])]);
  expect(running(d)).toEqual([4, 5]);
});

test("a task whose permits are not those of the lock in use fails with what is wrong", () => {
  const d = new Driver({ tasks: [2, 3].map((permits) => withLocks([{ name: "s", mode: "shared", permits }])) });
  expect(running(d)).toEqual([0]);
  expect(d.status(1)).toBe("failed");
});

test("a group holds its locks for its children, who run only while it does, and enter under its fence", () => {
  const child = (key: string): TaskSpec => withLocks([L], { key, parentTaskId: "scope" });
  const d = new Driver({
    tasks: [
      withLocks([L], { key: "first" }),
      group({ key: "scope", locks: [L, { name: "m" }] }),
      child("one"),
      get({ parentTaskId: "scope" }),
      withLocks([L]),
    ],
  });
  expect(running(d)).toEqual([0]);
  expect(d.statuses()).toEqual(["running", "waiting", "waiting", "waiting", "waiting"]);
  d.settle([0]);
  expect(running(d).toSorted((a, b) => a - b)).toEqual([2, 3]);
  expect([fencesOf(d.state, 2), fencesOf(d.state, 3)]).toEqual(["l=2, m=2", "l=2, m=2"]);
  // The children end, then the group, and then the next has its turn.
  d.settle([2]);
  expect(running(d)).toEqual([]);
  d.settle([3]);
  expect(d.status(1)).toBe("succeeded");
  expect(running(d)).toEqual([4]);
  d.settle([4]);
  expectNoLocks(d);
});

test("groups below a group that waits for its locks wait with it, and end with their children", () => {
  const d = new Driver({
    spec: { sealed: true },
    tasks: [
      withLocks([L]),
      group({ key: "outer", locks: [L] }),
      group({ key: "inner", parentTaskId: "outer" }),
      get({ parentTaskId: "inner" }),
      group({ parentTaskId: "outer" }),
    ],
  });
  expect(running(d)).toEqual([0]);
  d.settle([0]);
  expect(running(d)).toEqual([3]);
  d.settle([3]);
  expect(d.statuses()).toEqual(Array.from({ length: 5 }, () => "succeeded"));
  expect(d.state.goal!.phase).toBe("succeeded");
  expectNoLocks(d);
});

test("an ended task that is tried again asks for its locks again", () => {
  const d = new Driver({ tasks: [withLocks([L]), withLocks([L])] });
  running(d);
  d.settle([0]);
  running(d);
  d.do({ kind: "retry-task", task: 0 });
  expect(running(d)).toEqual([]);
  d.settle([1]);
  expect(running(d)).toEqual([2]);
});

test("the end of the goal ends all its locks, and tells who waits for them", () => {
  const d = new Driver({ tasks: [withLocks([L]), withLocks([L])] });
  running(d);
  expect(outside(d, "x")).toBe("waits");
  d.do({ kind: "cancel" });
  expect(d.lines).toMatchObject([{ outcome: { error: { code: "goal_ended" } } }]);
  expect(outside(d, "y")).toBe("goal_ended");
  expectNoLocks(d);
});

test("callers from outside and tasks wait in one queue, and neither touches what the other has", () => {
  const d = new Driver({ tasks: [withLocks([L]), get()] });
  expect(running(d).toSorted((a, b) => a - b)).toEqual([0, 1]);
  expect(outside(d, "x")).toBe("waits");
  expect(outside(d, "x2", { waitMs: 0 })).toBe("lock_held");
  d.submit([withLocks([L])]);
  expect(release(d, 1)).toBe("conflict");
  d.settle([0, 1]);
  expect(running(d)).toEqual([]);
  expect(d.lines).toMatchObject([{ outcome: { value: { fence: 2 } } }]);
  expect(release(d, 2)).toBe("ok");
  expect(running(d)).toEqual([2]);
  // Somebody who knows the task's path works inside it.
  expect(outside(d, `${GOAL_ID}/2/agent`)).toBe(3);
  d.settle([2]);
  expectNoLocks(d);
});

test("what a caller from outside does not renew ends by time", () => {
  const d = new Driver();
  expect(outside(d, "x", { ttlMs: 500 })).toBe(1);
  d.submit([withLocks([L])]);
  d.passMs(499);
  expect(running(d)).toEqual([]);
  d.passMs(1);
  expect(running(d)).toEqual([0]);
  expect(fencesOf(d.state, 0)).toBe("l=2");
});

test("a lost attempt keeps its locks, and its next one carries the same fence", () => {
  const d = new Driver({ tasks: [withLocks([L]), withLocks([L])] });
  running(d);
  d.do({ kind: "recover" });
  expect(d.state.tasks.flags[0]! & HAS_LOCKS).toBe(HAS_LOCKS);
  expect(running(d)).toEqual([0]);
  expect(fencesOf(d.state, 0)).toBe("l=1");
});

test("the end of a task is a hand-over where it holds a lock, or is the last below somebody who does", () => {
  const below = (key: string, over: Partial<TaskSpec> = {}): TaskSpec => get({ key, parentTaskId: "g", ...over });
  const d = new Driver({
    tasks: [
      withLocks([L]),
      group({ key: "g", locks: [{ name: "m" }] }),
      below("a"),
      below("b"),
      get(),
      withLocks([L]),
      group({ key: "h" }),
    ],
  });
  expect(running(d).toSorted((a, b) => a - b)).toEqual([0, 2, 3, 4]);
  const handOvers = (): number[] => [0, 2, 3, 4, 5].filter((task) => d.status(task) === "running" && letsGo(d.state, task));
  // 2 and 3 are two, and 4 has nothing to do with locks.
  expect(handOvers()).toEqual([0]);
  d.settle([2]);
  expect(handOvers()).toEqual([0, 3]);
  d.settle([0]);
  expect(running(d)).toEqual([5]);
  expect(handOvers()).toEqual([3, 5]);
});
