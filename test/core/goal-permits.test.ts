/** What a goal may send: permits from a governor, how long they last, what it reports, and what failures say of the upstream. */
import { expect, test } from "vitest";
import { isBusy, wakeAt } from "../../durable-objects/goal/core/wake.ts";
import * as limits from "../../shared/limits.ts";
import { bucketOf } from "../../shared/policy/histogram.ts";
import type { TaskSpec } from "../../shared/protocol/task.ts";
import type { Upstream } from "../../shared/protocol/upstream.ts";
import { Driver, durable, get, LIFE, START_MS, upstream } from "./goal-harness.ts";

const many = (count: number, spec: () => TaskSpec = get): TaskSpec[] => Array.from({ length: count }, spec);
const sum = (numbers: readonly number[]): number => numbers.reduce((a, b) => a + b, 0);
const sentBy = (d: Driver): number => sum(d.dispatch().map(({ tasks }) => tasks.length));
const USED_MS = limits.LEASE_TTL_MS_MIN * limits.LEASE_USE;

/** A goal whose upstream takes twelve calls, and whose permits come from the test. */
const bare = (tasks: number | readonly TaskSpec[], over: Partial<Upstream> = { maxConcurrency: 12 }): Driver =>
  new Driver({ tasks: typeof tasks === "number" ? many(tasks) : tasks, upstreams: [upstream(over)], governor: "by hand" });

test("no call starts without a permit, and the goal asks for them", () => {
  const d = bare(9);
  expect(d.dispatch()).toEqual([]);
  expect(d.reports).toMatchObject([{ life: LIFE, seq: 1, epoch: 0, taken: 0, inUse: 0, held: 0, wants: [0, 9, 0], weight: 1, version: 1 }]);
  // The answer is awaited, and nothing is sent meanwhile.
  d.passMs(60_000);
  expect(d.dispatch()).toEqual([]);
  expect(d.reports).toHaveLength(1);
  expect(isBusy(d.state)).toBe(true);
  d.grant({ calls: 2 });
  expect(sentBy(d)).toBe(2);
});

test("where the upstream declares maxConcurrency, the window is the permits; where it does not, its batches are full", () => {
  const bounded = bare(500);
  bounded.grant({ calls: 7 });
  expect(sentBy(bounded)).toBe(7);
  expect(bounded.state.upstreams[0]).toMatchObject({ lanes: 7, running: 7 });
  const free = bare(500, {});
  // With a known latency, batches are larger than their lanes.
  free.state.upstreams[0]!.latencyMs = 1;
  free.grant({ calls: 7 });
  const sent = sentBy(free);
  expect(free.state.upstreams[0]!.lanes).toBeLessThanOrEqual(7);
  expect(sent).toBeGreaterThan(7);
  expect(sent).toBeLessThanOrEqual(2 * limits.BATCH_TASKS_MAX);
});

test("a lease runs from when its report was sent, and nothing starts once it is over", () => {
  const d = bare(9);
  d.dispatch();
  d.nowMs += 1_000;
  d.grant({ calls: 1, ttlMs: limits.LEASE_TTL_MS_MIN });
  expect(sentBy(d)).toBe(1);
  d.nowMs = START_MS + USED_MS - 1;
  d.settle([0]);
  expect(sentBy(d)).toBe(1);
  d.settle([1]);
  d.nowMs = START_MS + USED_MS;
  expect(sentBy(d)).toBe(0);
  d.grant({ calls: 1, ttlMs: limits.LEASE_TTL_MS_MIN });
  expect(sentBy(d)).toBe(1);
});

test("only an answer to the latest report is taken: its governor counts no other", () => {
  const d = bare(9);
  d.dispatch();
  const first = d.reports[0]!.seq;
  d.do({ kind: "unanswered", upstream: "api" });
  d.passMs(2_000);
  d.dispatch();
  expect(d.reports).toHaveLength(2);
  d.grant({ calls: 1, seq: first });
  expect(sentBy(d)).toBe(0);
  d.grant({ calls: 1 });
  expect(sentBy(d)).toBe(1);
});

test("a permit rests until a report that told of its call is answered, not an earlier one", () => {
  const d = bare(20);
  d.dispatch();
  d.grant({ calls: 4 });
  expect(sentBy(d)).toBe(4);
  d.settle([0], { status: 503 });
  // On its way before the governor can have heard of the failure.
  d.grant({ calls: 4 });
  expect(sentBy(d)).toBe(0);
  d.passMs(limits.REFUSED_ASK_INTERVAL_MS);
  d.dispatch();
  d.settle([1], { status: 503 });
  d.grant({ calls: 4 });
  // One of the two is known, the other is not yet.
  expect(sentBy(d)).toBe(1);
});

test("a grant replaces the earlier ones: a smaller one lets what runs end and starts nothing, an older one is dropped", () => {
  const d = bare(20);
  const first = d.grant({ calls: 6 });
  expect(sentBy(d)).toBe(6);
  d.grant({ calls: 2 });
  d.grant({ ...first, calls: 12 });
  for (const task of [0, 1, 2, 3]) {
    d.settle([task]);
    expect(sentBy(d)).toBe(0);
  }
  d.settle([4]);
  expect(sentBy(d)).toBe(1);
  // A governor that has lost its memory begins a new epoch, and its numbers anew.
  d.grant({ epoch: 2, number: 1, calls: 5 });
  expect(sentBy(d)).toBe(3);
});

test("a grant to another life of the goal, or of an upstream that it does not know, changes nothing", () => {
  const d = bare(3);
  d.dispatch();
  const grant = {
    epoch: 1,
    number: 9,
    seq: 1,
    calls: 3,
    starts: null,
    ttlMs: 1e15,
    gateMs: 0,
    isOpen: false,
    origins: null,
    callsPerSecond: 0,
  };
  d.do({ kind: "grant", upstream: "api", life: "fedcba9876543210", grant });
  d.do({ kind: "grant", upstream: "nobody", life: LIFE, grant });
  expect(sentBy(d)).toBe(0);
  d.do({ kind: "grant", upstream: "api", life: LIFE, grant });
  expect(sentBy(d)).toBe(3);
});

test("no more starts than were granted, and what waits for them does not wake the goal", () => {
  const d = bare(9, { ratePerSecond: 5 });
  d.grant({ calls: 66, starts: 2 });
  const [send] = d.dispatch();
  expect(send!.tasks).toEqual([0, 1]);
  d.settle(send!.tasks);
  expect(sentBy(d)).toBe(0);
  expect(wakeAt(d.state)).toBeGreaterThan(d.nowMs + 1_000);
  d.grant({ calls: 66, starts: 3 });
  expect(sentBy(d)).toBe(3);
});

test("starts that were not used are told", () => {
  const d = bare(3);
  d.dispatch();
  d.grant({ calls: 3, starts: 5 });
  d.passMs(limits.LEASE_TTL_MS_MIN);
  expect(sentBy(d)).toBe(3);
  d.settle([0, 1, 2]);
  d.dispatch();
  expect(d.reports.at(-1)).toMatchObject({ unusedStarts: 2 });
});

test("a governor's gate holds every call, and wakes the goal when it opens", () => {
  const d = bare(3);
  d.grant({ calls: 3, gateMs: 500 });
  expect(sentBy(d)).toBe(0);
  expect(wakeAt(d.state)).toBe(START_MS + 500);
  d.passMs(499);
  expect(sentBy(d)).toBe(0);
  d.passMs(1);
  expect(sentBy(d)).toBe(3);
});

test.for([
  ["503", { status: 503 }],
  ["429", { status: 429 }],
  ["a timeout", { outcome: "timeout", status: 0 }],
  ["a broken connection", { outcome: "broken", status: 0 }],
] as const)("after %s the call's permit rests until the governor has heard of it", ([, answer]) => {
  const d = bare(20);
  d.dispatch();
  d.grant({ calls: 4 });
  expect(sentBy(d)).toBe(4);
  d.settle([0], answer);
  d.settle([1]);
  expect(sentBy(d)).toBe(1);
  d.passMs(limits.REFUSED_ASK_INTERVAL_MS);
  d.dispatch();
  expect(d.reports.at(-1)).toMatchObject({ seq: 2, inUse: 3, held: 3 });
  d.grant({ calls: 4 });
  expect(sentBy(d)).toBe(1);
});

test("an answer that says nothing of the upstream's load spoils no permit", () => {
  const d = bare(20);
  d.grant({ calls: 4 });
  d.dispatch();
  d.settle([0], { status: 404 });
  d.settle([1], { status: 500 });
  d.settle([2], { outcome: "not_sent", status: 400 });
  d.settle([3], { outcome: "broken", status: 499 });
  expect(sentBy(d)).toBe(4);
});

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

// Reports.

test("demand is what is queued and what is open, by priority; a paused goal wants nothing", () => {
  const d = bare([
    get({ priority: "interactive" }),
    get(),
    get(),
    get({ priority: "background" }),
    get({ key: "k" }),
    get({ after: ["k"] }),
  ]);
  d.dispatch();
  expect(d.reports.at(-1)!.wants).toEqual([1, 3, 1]);
  d.grant({ calls: 2 });
  d.dispatch();
  d.settle([0]);
  d.dispatch();
  d.passMs(limits.LEASE_TTL_MS_MIN);
  d.lease().spoiled = 1;
  d.dispatch();
  expect(d.reports.at(-1)!.wants).toEqual([0, 3, 1]);
  d.grant({ calls: 2 });
  d.do({ kind: "pause" });
  d.settle([1, 2]);
  d.dispatch();
  expect(d.reports.at(-1)!.wants).toEqual([0, 0, 0]);
});

test("reports carry totals: the latest grant, what is open and held, and all that the calls met since the last one", () => {
  const d = bare(30, TWO);
  d.dispatch();
  d.grant({ epoch: 3, number: 8, calls: 12 });
  const sends = d.dispatch();
  expect(sends.map(({ origin }) => origin).toSorted()).toEqual([0, 1]);
  const [a, b] = sends.toSorted((x, y) => x.origin - y.origin).map(({ tasks }) => tasks) as [number[], number[]];
  d.settle(a.slice(0, 3), { ms: 10 });
  d.settle([a[3]!], { status: 503, retryAfterMs: 700, ms: 5 });
  d.settle([b[0]!], { outcome: "broken", status: 0 });
  d.settle([b[1]!], { status: 404, ms: 20 });
  d.settle([b[2]!], { outcome: "not_sent", status: 400 });
  d.passMs(limits.REFUSED_ASK_INTERVAL_MS);
  d.dispatch();
  expect(d.reports).toHaveLength(2);
  expect(d.reports[1]).toMatchObject({ seq: 2, epoch: 3, taken: 8, held: 10, inUse: d.state.upstreams[0]!.lanes });
  expect(d.reports[1]!.sample).toEqual({
    answered: 4,
    sumMs: 50,
    tokens: 0,
    metered: 0,
    retryAfterMs: 700 - limits.REFUSED_ASK_INTERVAL_MS,
    origins: [
      { reached: 3, unavailable: 0, refused: 1 },
      { reached: 1, unavailable: 1, refused: 0 },
    ],
    latencies: [bucketOf(10), 3, bucketOf(20), 1],
  });
  d.grant({ epoch: 3, number: 9, calls: 12 });
  d.passMs(limits.LEASE_TTL_MS_MAX);
  d.lease().spoiled = 1;
  d.dispatch();
  expect(d.reports[2]).toMatchObject({ seq: 3, taken: 9, sample: { answered: 0, sumMs: 0, retryAfterMs: 0, origins: [], latencies: [] } });
});

test("a report that got no answer is followed by another, not at once", () => {
  const d = bare(3);
  d.dispatch();
  d.passMs(1_000);
  d.do({ kind: "unanswered", upstream: "api" });
  d.passMs(limits.ASK_RETRY_MS - 1);
  d.dispatch();
  expect(d.reports).toHaveLength(1);
  d.passMs(1);
  d.dispatch();
  expect(d.reports).toHaveLength(2);
});

test("a goal that has nothing more to do gives its permits back, and asks no more", () => {
  const d = bare(2);
  d.dispatch();
  d.grant({ calls: 2 });
  d.dispatch();
  d.settle([0, 1]);
  d.dispatch();
  expect(d.reports.at(-1)).toMatchObject({ seq: 2, inUse: 0, wants: [0, 0, 0] });
  d.grant({ calls: 0 });
  for (let ms = 0; ms < 60_000; ms += 5_000) {
    d.passMs(5_000);
    d.dispatch();
  }
  expect(d.reports).toHaveLength(2);
});

test("a new incarnation begins without permits, and with the same work", () => {
  const d = bare(6);
  d.grant({ calls: 3 });
  d.dispatch();
  d.state = { ...d.replayed(), life: "00000000000000aa" };
  d.do({ kind: "recover" });
  expect(sentBy(d)).toBe(0);
  expect(d.reports.at(-1)).toMatchObject({ life: "00000000000000aa", seq: 1, epoch: 0, taken: 0, held: 0, inUse: 0, wants: [0, 6, 0] });
});
