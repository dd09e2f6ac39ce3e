/** What failures say of an upstream: the circuit, the retry budget; and which of its origins are called. */
import { expect, test } from "vitest";
import * as limits from "../../shared/limits.ts";
import type { TaskSpec } from "../../shared/protocol/task.ts";
import type { Upstream } from "../../shared/protocol/upstream.ts";
import { Driver, durable, get, upstream } from "./goal-harness.ts";

const many = (count: number, spec: () => TaskSpec = get): TaskSpec[] => Array.from({ length: count }, spec);
const sum = (numbers: readonly number[]): number => numbers.reduce((a, b) => a + b, 0);
const sentBy = (d: Driver): number => sum(d.dispatch().map(({ tasks }) => tasks.length));

/** A goal whose upstream takes twelve calls, and whose permits come from the test. */
const bare = (tasks: number | readonly TaskSpec[], over: Partial<Upstream> = { maxConcurrency: 12 }): Driver =>
  new Driver({ tasks: typeof tasks === "number" ? many(tasks) : tasks, upstreams: [upstream(over)], governor: "by hand" });

// The circuit.

test("while the circuit is open, what failed goes back into the queue and is not held against the task", () => {
  const d = bare([get({ retry: { maxAttempts: 2 } })]);
  d.dispatch();
  for (let probe = 1; probe <= 30; probe++) {
    d.openCircuit(1);
    expect(sentBy(d)).toBe(1);
    expect(sentBy(d)).toBe(0);
    d.settle([0], { outcome: probe % 2 === 0 ? "broken" : "timeout", status: 0 });
    expect([d.status(0), d.state.tasks.failures[0], d.state.tasks.attempt[0]]).toEqual(["queued", 0, probe]);
    // The governor hears of it.
    d.passMs(limits.ASK_INTERVAL_MS);
    d.dispatch();
  }
  expect(d.state.attempts.get(0)).toHaveLength(limits.ATTEMPTS_MAX);
  expect(durable(d.replayed())).toEqual(durable(d.state));
  d.closeCircuit();
  d.dispatch();
  d.settle([0], { outcome: "broken", status: 0 });
  expect([d.status(0), d.state.tasks.failures[0]]).toEqual(["waiting", 1]);
});

test("while the circuit is open, what the upstream itself answered counts, and what must not be repeated is in doubt", () => {
  const d = bare([get(), get(), { call: { upstream: "api", method: "POST", path: "/" } }]);
  d.grant({ calls: 3 });
  d.dispatch();
  d.openCircuit();
  d.settle([0], { status: 500 });
  d.settle([1], { status: 404 });
  d.settle([2], { outcome: "timeout", status: 0 });
  expect(d.statuses()).toEqual(["waiting", "failed", "waiting"]);
  expect(d.state.tasks.failures[0]).toBe(1);
  d.closeCircuit();
  expect(d.statuses()).toEqual(["queued", "failed", "waiting"]);
});

test("when the circuit closes, backoffs at that upstream end at once, and no others", () => {
  const other: TaskSpec = { call: { upstream: "other", path: "/" } };
  const d = new Driver({ tasks: [get(), other, get()], upstreams: [upstream(), upstream({ name: "other" })], governor: "by hand" });
  for (const name of ["api", "other"]) d.grant({ calls: 6 }, name);
  d.dispatch();
  d.settle([0, 1, 2], { status: 503 });
  expect(d.statuses()).toEqual(["waiting", "waiting", "waiting"]);
  d.grant({ calls: 6 });
  expect(d.status(0)).toBe("waiting");
  d.openCircuit();
  expect(d.status(0)).toBe("waiting");
  d.closeCircuit();
  expect(d.statuses()).toEqual(["queued", "waiting", "queued"]);
  expect(durable(d.replayed())).toEqual(durable(d.state));
});

// The retry budget.

test("retries beyond the budget are spread, and successes earn it back", () => {
  const d = new Driver({ tasks: many(60), upstreams: [upstream({ maxConcurrency: 60 })] });
  d.dispatch();
  d.settle(
    Array.from({ length: 40 }, (_, task) => task),
    { status: 503 },
  );
  const waits = (from: number, to: number): number[] => Array.from(d.state.tasks.dueAtMs.slice(from, to), (dueAtMs) => dueAtMs - d.nowMs);
  expect(Math.max(...waits(0, limits.RETRY_BUDGET_START))).toBeLessThanOrEqual(limits.RETRY_BASE_MS);
  const beyond = waits(limits.RETRY_BUDGET_START, 40);
  expect(beyond).toEqual(beyond.map((_, i) => (i + 1) * limits.RETRY_SPREAD_MS));
  // A tenth of the successes may be retries at once; the next waits its turn behind the others.
  d.settle(Array.from({ length: 15 }, (_, i) => 40 + i));
  d.settle([55, 56], { status: 503 });
  expect(waits(55, 56)[0]).toBeLessThanOrEqual(limits.RETRY_BASE_MS);
  expect(waits(56, 57)[0]).toBe((beyond.length + 1) * limits.RETRY_SPREAD_MS);
});

test("however many retries are spread, none waits longer than a backoff may", () => {
  const d = new Driver({ tasks: many(500), upstreams: [upstream({ maxConcurrency: 500 })] });
  d.dispatch();
  d.settle(
    Array.from({ length: 500 }, (_, task) => task),
    { status: 503 },
  );
  expect(Math.max(...d.state.tasks.dueAtMs.slice(0, 500)) - d.nowMs).toBe(limits.RETRY_CAP_MS);
});

// Origins.

const TWO = { origins: ["http://localhost:1", "http://localhost:2"], maxConcurrency: 100 };

test("of two origins the less loaded is called, by calls open times duration", () => {
  const d = bare(400, TWO);
  d.grant({ calls: 60 });
  const counts = [0, 0];
  for (const { origin, lanes } of d.dispatch()) counts[origin]! += lanes;
  expect(counts).toEqual([30, 30]);
  expect(d.state.upstreams[0]!.origins.map(({ open }) => open)).toEqual([30, 30]);
  for (const [batch, { origin }] of d.state.batches) {
    const tasks = Array.from({ length: d.state.tasks.n }, (_, task) => task).filter((task) => d.state.tasks.batch[task] === batch);
    d.settle(tasks, { ms: origin === 0 ? 10 : 40 });
  }
  for (const { origin, lanes } of d.dispatch()) counts[origin]! += lanes;
  // Four times as slow, a quarter of the calls.
  expect(counts[0]! - 30).toBeGreaterThanOrEqual(4 * (counts[1]! - 30) - limits.BATCH_LANES_MAX * 4);
  expect(counts[1]).toBeGreaterThan(30);
  expect(counts[0]).toBeGreaterThan(counts[1]! + 20);
});

test("origins that rest are not called, whatever the chance", () => {
  const d = bare(400, { ...TWO, origins: [...TWO.origins, "http://localhost:3"] });
  const called = new Set<number>();
  for (let seed = 0; seed < 30; seed++) {
    // A place that the configuration does not have is none.
    d.grant({ calls: 6, origins: [0, 2, 7] });
    for (const { origin, tasks } of d.dispatch(seed)) {
      called.add(origin);
      d.settle(tasks);
    }
  }
  expect(called).toEqual(new Set([0, 2]));
  d.grant({ calls: 6, origins: [1] });
  expect(d.dispatch().map(({ origin }) => origin)).toEqual([1]);
});
