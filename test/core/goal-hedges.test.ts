/** Second tries as the goal sees them: who may have one, what they cost, whose permits they use, and how many there are. */
import { expect, test } from "vitest";
import { inUseAt } from "../../durable-objects/goal/core/admission.ts";
import { HEDGES_START } from "../../shared/limits-hedging.ts";
import { canSpare } from "../../durable-objects/goal/core/hedges.ts";
import type { Send } from "../../durable-objects/goal/core/recorder.ts";
import type { TaskSpec } from "../../shared/protocol/task.ts";
import type { Upstream } from "../../shared/protocol/upstream.ts";
import { Driver, durable, get, post, START_MS, upstream } from "./goal-harness.ts";

const some = (count: number, spec: TaskSpec = get()): TaskSpec[] => Array.from({ length: count }, () => spec);
const hedge = { quantile: 0.95, budgetPercent: 5 };
const SECOND = { beaten: { isFirst: true, startedAtMs: START_MS, status: 0 } } as const;

/** A goal with tasks that a governor lets hedge after 40 ms, sent as far as they may be. */
function sent(tasks: readonly TaskSpec[], over: Partial<Upstream> = {}, limit: Record<string, number> = {}): Driver {
  const goal = new Driver({ governor: "by hand", upstreams: [upstream({ hedge, ...over })], tasks, spec: { budget: limit } });
  goal.dispatch();
  goal.grant({ hedgeAfterMs: 40 });
  goal.dispatch();
  return goal;
}

const leaveOf = (sends: readonly Send[]): number => sends.reduce((sum, { hedges }) => sum + (hedges?.left ?? 0), 0);
const account = (goal: Driver): unknown => {
  const { reserved, spent } = goal.state.budget.account;
  return { reserved: [...reserved], spent: [...spent] };
};
const replaysAlike = (goal: Driver): void => expect(durable(goal.replayed())).toEqual(durable(goal.state));

test.for<[string, TaskSpec, Partial<Upstream>, boolean]>([
  ["GET", get(), {}, true],
  ["a GET that says that it is not idempotent", get({ call: { upstream: "api", path: "/", idempotent: false } }), {}, false],
  ["POST", post(), {}, false],
  ["a POST that says that it is idempotent", post({ call: { upstream: "api", method: "POST", path: "/", idempotent: true } }), {}, true],
  ["a POST whose upstream honours Idempotency-Key", post(), { idempotency: "key" }, true],
  ["DELETE", get({ call: { upstream: "api", method: "DELETE", path: "/" } }), {}, false],
  ["PUT", get({ call: { upstream: "api", method: "PUT", path: "/" } }), {}, false],
  ["a GET under a lock", get({ locks: [{ name: "l" }] }), {}, false],
])("of calls, %s may have a second try: %j", ([, spec, over, may]) => {
  const tasks = some(6, spec).map((each, i) => (each.locks === undefined ? each : { ...each, locks: [{ name: `l${i}` }] }));
  expect(leaveOf(sent(tasks, over).sends) > 0).toBe(may);
});

test("nothing is hedged where its upstream does not say so, its governor does not let it, or there is but one lane", () => {
  expect(leaveOf(sent(some(12), { hedge: null }).sends)).toBe(0);
  expect(leaveOf(new Driver({ upstreams: [upstream({ hedge })], tasks: some(12) }).dispatch())).toBe(0);
  expect(leaveOf(sent(some(12), { maxConcurrency: 1 }).sends)).toBe(0);
});

test("of a thousand calls at most five in a hundred are hedged, and one more", () => {
  const goal = sent(some(1_000));
  let used = 0;
  for (let sends = goal.sends; sends.length > 0; goal.grant({ hedgeAfterMs: 40 }), sends = goal.dispatch()) {
    for (const { tasks, hedges } of sends) {
      const hedged = tasks.slice(0, hedges?.left ?? 0);
      used += hedged.length;
      goal.settle(hedged, SECOND);
      goal.settle(tasks.slice(hedged.length));
    }
  }
  expect(goal.state.counts[3]).toBe(1_000);
  expect(used).toBeGreaterThan(40);
  expect(used).toBeLessThanOrEqual(HEDGES_START + 50);
  // Tasks, and calls with those that were made twice.
  expect(account(goal)).toEqual({ reserved: [0, 0, 0, 0], spent: [1_000, 1_000 + used, 0, 0] });
  replaysAlike(goal);
});

test("leave that was not used is there again when the batch has ended", () => {
  const goal = sent(some(6));
  expect(leaveOf(goal.sends)).toBe(HEDGES_START);
  goal.settle(goal.sends[0]!.tasks);
  goal.submit(some(6));
  goal.grant({ hedgeAfterMs: 40 });
  expect(leaveOf(goal.dispatch())).toBe(HEDGES_START);
});

test("a second try is reserved with its batch, charged with its attempt, and released with the batch where none was made", () => {
  const reserve = { tokens: 100, costMicros: 7 };
  const goal = sent(some(6), { reserve });
  expect(account(goal)).toEqual({ reserved: [0, 7, 700, 49], spent: [6, 0, 0, 0] });
  goal.settle([0], { ...SECOND, tokens: 30 });
  expect(account(goal)).toEqual({ reserved: [0, 5, 500, 35], spent: [6, 2, 130, 14] });
  goal.settle([1, 2, 3, 4, 5]);
  expect(account(goal)).toEqual({ reserved: [0, 0, 0, 0], spent: [6, 7, 630, 49] });
  replaysAlike(goal);
  const plain = sent(some(6), { reserve });
  plain.settle([0, 1, 2, 3, 4, 5]);
  expect(account(plain)).toEqual({ reserved: [0, 0, 0, 0], spent: [6, 6, 600, 42] });
  replaysAlike(plain);
});

test("a task that nobody hears of again is charged as if it had been tried twice, as far as there was leave", () => {
  const goal = sent(some(6));
  goal.do({ kind: "cancel-task", task: 2 });
  expect(account(goal)).toEqual({ reserved: [0, 5, 0, 0], spent: [6, 2, 0, 0] });
  goal.do({ kind: "batch-lost", batch: 1 });
  expect(account(goal)).toEqual({ reserved: [0, 0, 0, 0], spent: [6, 7, 0, 0] });
  replaysAlike(goal);
});

test("a batch that no executor took is charged no second tries either", () => {
  const goal = sent(some(6));
  goal.do({ kind: "batch-lost", batch: 1, refusal: "overloaded" });
  expect(account(goal)).toEqual({ reserved: [0, 0, 0, 0], spent: [6, 0, 0, 0] });
  replaysAlike(goal);
});

test("a second try of a passed call takes only what no task that waits will need", () => {
  const waiting = new Driver({ governor: "by hand", upstreams: [upstream({ hedge })], tasks: some(3), spec: { budget: { calls: 4 } } });
  expect([canSpare(waiting.state, [0, 1, 0, 0]), canSpare(waiting.state, [0, 2, 0, 0])]).toEqual([true, false]);
  const unbounded = new Driver({ governor: "by hand", upstreams: [upstream({ hedge })], tasks: some(3) });
  expect(canSpare(unbounded.state, [0, 1_000, 0, 0])).toBe(true);
});

test("no hedge takes the budget of a task that waits", () => {
  expect(leaveOf(sent(some(100), { maxConcurrency: 12 }, { calls: 100 }).sends)).toBe(0);
  const goal = sent(some(100), {}, { calls: 101 });
  expect(leaveOf(goal.sends)).toBe(1);
  expect(account(goal)).toMatchObject({ reserved: [0, 66 + 1, 0, 0] });
});

test("a batch keeps one permit more than it has tasks left, for as long as it may hedge", () => {
  const goal = sent(some(6));
  const open = (): number => inUseAt(goal.state, 0);
  expect(open()).toBe(6);
  goal.settle([0]);
  expect(open()).toBe(6);
  goal.settle([1]);
  expect(open()).toBe(5);
  goal.settle([2], SECOND);
  // No second try is left, and so none to keep a permit for.
  expect(open()).toBe(3);
  goal.settle([3, 4, 5]);
  expect(open()).toBe(0);
  expect(goal.state.upstreams[0]!.origins[0]!.open).toBe(0);
});

test("leave that is charged for a canceled task may be used for another one yet, and keeps its permit", () => {
  const goal = sent(some(2), { maxConcurrency: 6 });
  const batch = () => goal.state.batches.get(goal.sends[0]!.batch)!;
  expect(batch().hedges).toMatchObject({ left: 1 });
  expect(inUseAt(goal.state, 0)).toBe(2);
  goal.do({ kind: "cancel-task", task: 0 });
  goal.do({ kind: "closed", upstream: 0, count: 2 });
  expect(batch()).toMatchObject({ left: 1, hedges: { left: 0, isUnheard: true } });
  expect(inUseAt(goal.state, 0)).toBe(2);
  goal.settle([1]);
  expect(inUseAt(goal.state, 0)).toBe(0);
});

test("of a canceled task that may have been tried twice both calls count as open until they are closed", () => {
  const goal = sent(some(2), { maxConcurrency: 6 });
  goal.settle([0]);
  expect(inUseAt(goal.state, 0)).toBe(2);
  goal.do({ kind: "cancel-task", task: 1 });
  expect(goal.aborts).toEqual([
    [1, 1, 1],
    [1, 1, 1],
  ]);
  expect(inUseAt(goal.state, 0)).toBe(2);
  goal.do({ kind: "closed", upstream: 0, count: 2 });
  expect(inUseAt(goal.state, 0)).toBe(0);
  // They do too where another one's end comes before theirs.
  const other = sent(some(2), { maxConcurrency: 6 });
  other.do({ kind: "cancel-task", task: 1 });
  other.settle([0]);
  expect(inUseAt(other.state, 0)).toBe(2);
});

test("where the bound is hard, a call that was beaten counts as open until it is closed", () => {
  const goal = sent(some(6), { maxConcurrency: 6 });
  goal.settle([0], SECOND);
  expect(inUseAt(goal.state, 0)).toBe(5 + 1);
  expect(goal.aborts).toEqual([[0, 0, 1]]);
  goal.do({ kind: "closed", upstream: 0, count: 1 });
  expect(inUseAt(goal.state, 0)).toBe(5);
  // Where it is soft, nobody counts so closely.
  const soft = sent(some(6));
  soft.settle([0], SECOND);
  expect(inUseAt(soft.state, 0)).toBe(5);
});

test("a second try goes to another origin, and what it met is said of that one", () => {
  const goal = sent(some(6), { origins: ["http://localhost:1", "http://localhost:2"] });
  const { origin, hedges } = goal.sends[0]!;
  expect(hedges!.origin).toBe(1 - origin);
  goal.settle([0], { beaten: { isFirst: true, startedAtMs: START_MS, status: 503 } });
  const { origins } = goal.state.admissions[0]!.sampler;
  expect(origins[hedges!.origin]).toEqual({ reached: 1, unavailable: 0, refused: 0 });
  expect(origins[origin]).toEqual({ reached: 0, unavailable: 0, refused: 1 });
});

test("second tries are starts, where those are counted", () => {
  const goal = new Driver({ governor: "by hand", upstreams: [upstream({ hedge, ratePerSecond: 100 })], tasks: some(6) });
  goal.dispatch();
  goal.grant({ hedgeAfterMs: 40, starts: 7 });
  expect([leaveOf(goal.dispatch()), goal.lease().starts]).toEqual([1, 0]);
});

test("a late report of an attempt that was tried twice is dropped as any other", () => {
  const goal = sent(some(6));
  const line = goal.line(0, SECOND);
  goal.do({ kind: "batch-lost", batch: 1 });
  const before = account(goal);
  goal.do({ kind: "settle", lines: [line], seed: 7 });
  expect([goal.state.late, account(goal)]).toEqual([1, before]);
});
