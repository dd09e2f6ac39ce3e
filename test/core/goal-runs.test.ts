/** Tasks whose work is a function: what is sent, what its ends mean, and what they cost. */
import { expect, test } from "vitest";
import { fromSnapshot, toSnapshot } from "../../durable-objects/goal/core/snapshot.ts";
import { isBusy, isStalled, wakeAt } from "../../durable-objects/goal/core/wake.ts";
import * as limits from "../../shared/limits.ts";
import { RUN_AGAIN_STATUS } from "../../shared/policy/outcome.ts";
import { Driver, durable, get, run, upstream, version } from "./goal-harness.ts";

const FUNCTIONS = [version()];
const many = (count: number) => Array.from({ length: count }, () => run());
const driverOf = (tasks: ReturnType<typeof run>[], more: ConstructorParameters<typeof Driver>[0] = {}) =>
  new Driver({ functions: FUNCTIONS, tasks, ...more });

function rebuilds(driver: Driver): void {
  expect(durable(driver.replayed())).toEqual(durable(driver.state));
  const { meta, columns } = toSnapshot(driver.state);
  const loaded = fromSnapshot(JSON.parse(JSON.stringify(meta)), (name) => new Uint8Array(columns[name].slice().buffer).buffer);
  expect(durable(loaded)).toEqual(durable(driver.state));
}

test("a function's tasks go to several executors at once, within the goal's own window and without a governor", () => {
  const driver = driverOf(many(1_000));
  const sends = driver.dispatch();
  expect(sends.map(({ tasks }) => tasks.length)).toEqual([64, 64, 64, 64]);
  expect(driver.reports.filter(({ upstream: { name } }) => name !== "api")).toEqual([]);
  driver.settle(sends[0]!.tasks, { outcome: "returned" });
  expect(driver.dispatch().flatMap(({ tasks }) => tasks)).toHaveLength(64);
  expect(driver.state.upstreams.find(({ name }) => name === "run:summarize")!.running).toBe(limits.RUN_WINDOW_TASKS);
  rebuilds(driver);
});

test("what comes back bit by bit is gathered for the next batch, and a short queue does not wait for that", () => {
  const driver = driverOf(many(1_000));
  const [first] = driver.dispatch();
  driver.settle(first!.tasks.slice(0, 10), { outcome: "returned" });
  expect(driver.dispatch()).toEqual([]);
  driver.settle(first!.tasks.slice(10), { outcome: "returned" });
  expect(driver.dispatch().map(({ tasks }) => tasks.length)).toEqual([64]);
  for (let task = first!.tasks.length; driver.state.counts[3]! < 1_000; task++) {
    driver.settle([task], { outcome: "returned" });
    driver.dispatch();
  }
  rebuilds(driver);
});

test("a few tasks are shared out among the executors", () => {
  expect(
    driverOf(many(8))
      .dispatch()
      .map(({ tasks }) => tasks.length),
  ).toEqual([4, 4]);
});

test("what a function returns ends its task, with what its calls used and without charging them again", () => {
  const driver = driverOf([run()], { spec: { budget: { calls: 10, tokens: 100 } } });
  driver.dispatch();
  driver.settle([0], { outcome: "returned", calls: 3, tokens: 70 });
  expect(driver.status(0)).toBe("succeeded");
  expect([driver.state.tasks.usedCalls[0], driver.state.tasks.usedTokens[0]]).toEqual([3, 70]);
  expect(driver.state.budget.account.spent).toEqual([1, 0, 0, 0]);
  rebuilds(driver);
});

test("what a run has set aside is held while it runs; what its calls used of that is charged, the rest is free", () => {
  for (const outcome of ["returned", "function_error", "not_sent"] as const) {
    const drawn = outcome === "not_sent" ? undefined : [0, 3, 20, 0];
    const driver = driverOf([run({ reserve: { calls: 4, tokens: 50 } })], { spec: { budget: { calls: 4 } } });
    driver.dispatch();
    expect(driver.state.budget.account.reserved).toEqual([0, 4, 50, 0]);
    driver.settle([0], { outcome, drawn });
    expect(driver.state.budget.account.reserved).toEqual([0, 0, 0, 0]);
    expect(driver.state.budget.account.spent).toEqual([1, ...(drawn ?? [0, 0, 0, 0]).slice(1)]);
    rebuilds(driver);
  }
});

test("a run's task shows what its calls used, of what it had set aside and besides", () => {
  const driver = driverOf([run({ reserve: { calls: 2 } })], { spec: { budget: { calls: 10 } } });
  driver.dispatch();
  driver.settle([0], { outcome: "returned", calls: 3, tokens: 70, drawn: [0, 2, 0, 0] });
  expect([driver.state.tasks.usedCalls[0], driver.state.tasks.usedTokens[0]]).toEqual([5, 70]);
  expect(driver.state.budget.account.spent).toEqual([1, 2, 0, 0]);
  rebuilds(driver);
});

test("a run whose executor is lost goes back into the queue under the next attempt, and what it had set aside counts as used", () => {
  const driver = driverOf([run({ reserve: { calls: 4 } })], { spec: { budget: { calls: 8 } } });
  const [send] = driver.dispatch();
  driver.do({ kind: "batch-lost", batch: send!.batch });
  expect(driver.status(0)).toBe("queued");
  expect(driver.state.budget.account.spent).toEqual([1, 4, 0, 0]);
  driver.dispatch();
  expect(driver.state.tasks.attempt[0]).toBe(2);
  driver.settle([0], { outcome: "returned", attempt: 1 });
  expect(driver.status(0)).toBe("running");
  expect(driver.state.late).toBe(1);
  rebuilds(driver);
});

test("a run with something set aside that cannot afford a call rests like any other, though what it had comes back", () => {
  const driver = driverOf([run({ reserve: { calls: 2 } })], { spec: { budget: { calls: 3 } } });
  driver.dispatch();
  // It has used one of its own, and asked for a call that takes two.
  expect(driver.do({ kind: "reserve", by: "gate", amounts: [0, 2, 0, 0], ttlMs: 1_000 })).toMatchObject({ ok: false });
  driver.settle([0], { outcome: "budget_exhausted", drawn: [0, 1, 0, 0] });
  expect(driver.status(0)).toBe("queued");
  driver.passMs(60_000);
  expect(driver.dispatch()).toEqual([]);
  expect(driver.state.budget.isExhausted).toBe(true);
  rebuilds(driver);
});

test("what a run used beyond what it had set aside, where nothing bounds that, does not keep its function from resting", () => {
  const driver = driverOf([run({ reserve: { calls: 2, tokens: 10 } })], { spec: { budget: { calls: 3 } } });
  driver.dispatch();
  expect(driver.do({ kind: "reserve", by: "gate", amounts: [0, 2, 0, 0], ttlMs: 1_000 })).toMatchObject({ ok: false });
  driver.settle([0], { outcome: "budget_exhausted", drawn: [0, 2, 600, 0] });
  driver.passMs(60_000);
  expect(driver.dispatch()).toEqual([]);
  expect(driver.state.budget.isExhausted).toBe(true);
});

test("a function that rests and cannot afford what its next run sets aside either goes on resting, until there is as much", () => {
  const driver = driverOf([run({ reserve: { calls: 2 } })], { spec: { budget: { calls: 3 } } });
  driver.do({ kind: "reserve", by: "gate", amounts: [0, 1, 0, 0], ttlMs: 1_000_000 });
  driver.dispatch();
  expect(driver.do({ kind: "reserve", by: "gate", amounts: [0, 1, 0, 0], ttlMs: 1_000 })).toMatchObject({ ok: false });
  driver.settle([0], { outcome: "budget_exhausted", drawn: [0, 2, 0, 0] });
  driver.do({ kind: "settle-reservation", by: "gate", reservation: driver.state.budget.nextReservation - 1, used: null });
  driver.passMs(60_000);
  expect(driver.dispatch()).toEqual([]);
  expect(driver.state.budget.isExhausted).toBe(true);
  driver.do({ kind: "top-up", amounts: [0, 1, 0, 0], ceilings: [null, null, null, null] });
  expect(driver.dispatch().flatMap(({ tasks }) => tasks)).toEqual([0]);
  rebuilds(driver);
});

test("of the account above a function that rests asks as much as its next run sets aside", () => {
  const driver = driverOf([run({ reserve: { calls: 2 } })]);
  const funded = (calls: number) => driver.do({ kind: "funded", need: [0, 0, 0, 0], funds: [null, calls, null, null] });
  funded(2);
  driver.dispatch();
  expect(driver.do({ kind: "reserve", by: "gate", amounts: [0, 1, 0, 0], ttlMs: 1_000 })).toMatchObject({ ok: false });
  funded(2);
  driver.settle([0], { outcome: "budget_exhausted", drawn: [0, 2, 0, 0] });
  driver.passMs(60_000);
  driver.dispatch();
  expect(driver.asked?.need[1]).toBe(4);
  funded(4);
  expect(driver.dispatch().flatMap(({ tasks }) => tasks)).toEqual([0]);
});

test("what a function throws is final unless the error may be retried; a limit is always", () => {
  const driver = driverOf([run({ retry: { maxAttempts: 2 } }), run(), run()]);
  driver.dispatch();
  driver.settle([0], { outcome: "function_error", status: RUN_AGAIN_STATUS });
  driver.settle([1], { outcome: "function_error", status: 500 });
  driver.settle([2], { outcome: "function_limit", status: 500 });
  expect(driver.statuses()).toEqual(["waiting", "failed", "failed"]);
  driver.passMs(limits.RETRY_BASE_MS);
  driver.dispatch();
  driver.settle([0], { outcome: "function_error", status: RUN_AGAIN_STATUS });
  expect(driver.status(0)).toBe("failed");
  rebuilds(driver);
});

test("a function that the tenant does not have is refused, and one that was deleted is waited for", () => {
  const driver = driverOf([run()]);
  const reply = driver.submit([run({}, "other")]);
  expect(reply.ok && [...reply.value.receipts!.rejected.values()][0]).toMatchObject({
    code: "invalid_request",
    errors: [{ pointer: "/run/function", detail: expect.stringContaining("PUT /v1/functions/other") as string }],
  });
  driver.do({ kind: "upstreams", version: 2, upstreams: [upstream()] });
  expect(driver.dispatch()).toEqual([]);
  expect([isStalled(driver.state), isBusy(driver.state)]).toEqual([true, false]);
  driver.do({ kind: "upstreams", version: 3, upstreams: [upstream()], functions: FUNCTIONS });
  expect([isStalled(driver.state), isBusy(driver.state)]).toEqual([false, true]);
  expect(driver.dispatch()).toHaveLength(1);
  rebuilds(driver);
});

test("a policy must list the function, when its tasks are taken and again before they are sent", () => {
  const driver = driverOf([], { spec: { policies: [{ functions: ["other-*"] }] } });
  const reply = driver.submit([run()]);
  expect(reply.ok && [...reply.value.receipts!.rejected.values()][0]).toMatchObject({
    code: "permission_denied",
    detail: expect.stringContaining('the function "summarize" (rule "functions")') as string,
  });
  const later = driverOf([run()]);
  later.do({ kind: "upstreams", version: 2, upstreams: [upstream()], functions: FUNCTIONS, policy: { functions: [] } });
  expect(later.dispatch()).toEqual([]);
  expect(later.status(0)).toBe("failed");
  rebuilds(later);
});

test("executors hear of a function as soon as tasks of it are taken, paused or not", () => {
  const driver = driverOf([...many(3), get()]);
  driver.do({ kind: "pause" });
  driver.submit([run({ after: [] })]);
  driver.submit([get()]);
  expect(driver.warms).toEqual([
    ["summarize", 3],
    ["summarize", 1],
  ]);
});

test("a run that cannot afford its calls waits in the queue, and is not tried again before there is more", () => {
  const driver = driverOf(many(300), { spec: { budget: { calls: 10 } } });
  for (const { tasks } of driver.dispatch()) driver.settle(tasks, { outcome: "budget_exhausted" });
  expect(driver.state.counts[0]).toBe(300);
  for (let i = 0; i < 20; i++) {
    driver.passMs(5_000);
    expect(driver.dispatch()).toEqual([]);
  }
  expect(driver.state.budget.isExhausted).toBe(true);
  expect(isBusy(driver.state)).toBe(false);
  rebuilds(driver);
  driver.do({ kind: "top-up", amounts: [0, 5, 0, 0], ceilings: [null, null, null, null] });
  // One shows whether there is enough; the others follow it.
  const [probe, ...others] = driver.dispatch();
  expect([probe!.tasks.length, others]).toEqual([1, []]);
  driver.settle(probe!.tasks, { outcome: "returned" });
  expect(driver.dispatch().flatMap(({ tasks }) => tasks).length).toBeGreaterThan(200);
  rebuilds(driver);
});

test("what comes back between a refused call and the end of its run is tried, and a refusal of before the run says nothing of it", () => {
  const driver = driverOf(many(1), { spec: { budget: { calls: 2 } } });
  const reserve = (calls: number) => driver.do({ kind: "reserve", by: "gate", amounts: [0, calls, 0, 0], ttlMs: 1_000_000 });
  const giveBack = () =>
    driver.do({ kind: "settle-reservation", by: "gate", reservation: driver.state.budget.nextReservation - 1, used: null });
  const rest = (): void => {
    for (const { tasks } of driver.dispatch()) driver.settle(tasks, { outcome: "budget_exhausted", ms: 0 });
  };
  driver.dispatch();
  reserve(2);
  expect(reserve(1)).toMatchObject({ ok: false });
  giveBack();
  driver.settle([0], { outcome: "budget_exhausted" });
  driver.dispatch();
  expect(driver.state.budget.isExhausted).toBe(false);
  driver.passMs(wakeAt(driver.state)! - driver.nowMs);
  // This one asked for more than two, and was not refused for what somebody else held.
  rest();
  driver.dispatch();
  expect(driver.state.budget.isExhausted).toBe(true);
  rebuilds(driver);
});

test("budget that comes back bit by bit is tried at longer and longer intervals, and the goal wakes for it", () => {
  const driver = driverOf(many(2), { spec: { budget: { calls: 10 } } });
  driver.do({ kind: "reserve", by: "gate", amounts: [0, 9, 0, 0], ttlMs: 1_000_000 });
  for (const { tasks } of driver.dispatch()) driver.settle(tasks, { outcome: "budget_exhausted" });
  driver.dispatch();
  // What is lent out may come back: the goal does not rest yet.
  expect(driver.state.budget.isExhausted).toBe(false);
  const waits: number[] = [];
  for (let tries = 0; tries < 8; tries++) {
    driver.do({ kind: "settle-reservation", by: "gate", reservation: driver.state.budget.nextReservation - 1, used: null });
    const wakesAtMs = wakeAt(driver.state)!;
    waits.push(wakesAtMs - driver.nowMs);
    driver.passMs(wakesAtMs - driver.nowMs);
    driver.do({ kind: "reserve", by: "gate", amounts: [0, 9, 0, 0], ttlMs: 1_000_000 });
    driver.do({ kind: "top-up", amounts: [0, 1, 0, 0], ceilings: [null, null, null, null] });
    const sends = driver.dispatch();
    expect(sends.map(({ tasks }) => tasks.length)).toEqual([1]);
    driver.settle(sends[0]!.tasks, { outcome: "budget_exhausted" });
  }
  expect(waits).toEqual([50, 100, 200, 400, 800, 1_600, 2_000, 2_000]);
  rebuilds(driver);
});

test("a goal that fails on an exhausted budget does so once nothing runs", () => {
  const driver = driverOf(many(2), { spec: { budget: { calls: 10 }, onBudgetExhausted: "fail" } });
  driver.dispatch();
  driver.settle([0], { outcome: "budget_exhausted" });
  driver.dispatch();
  expect(driver.state.goal!.phase).toBe("active");
  driver.settle([1], { outcome: "budget_exhausted" });
  driver.dispatch();
  expect(driver.state.goal!.phase).toBe("failed");
  rebuilds(driver);
});

test("a run with locks starts once it has them, and a canceled one is aborted", () => {
  const driver = driverOf([run({ locks: [{ name: "a" }] }), run({ locks: [{ name: "a" }] })]);
  expect(driver.dispatch().flatMap(({ tasks }) => tasks)).toEqual([0]);
  driver.do({ kind: "cancel-task", task: 0 });
  expect(driver.aborts.map(([, task]) => task)).toEqual([0]);
  expect(driver.dispatch().flatMap(({ tasks }) => tasks)).toEqual([1]);
  rebuilds(driver);
});

test("a batch that no executor took rests before it is sent again", () => {
  const driver = driverOf([run()]);
  const [send] = driver.dispatch();
  driver.do({ kind: "batch-lost", batch: send!.batch, refusal: "overloaded" });
  expect(driver.dispatch()).toEqual([]);
  expect(wakeAt(driver.state)! - driver.nowMs).toBe(limits.EXECUTOR_OVERLOADED_REST_MS);
  driver.passMs(limits.EXECUTOR_OVERLOADED_REST_MS);
  expect(driver.dispatch()).toHaveLength(1);
});
