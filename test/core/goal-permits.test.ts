/** What a goal may send: permits from a governor, how long they last, and what it reports. */
import { expect, test } from "vitest";
import { isBusy, wakeAt } from "../../durable-objects/goal/core/wake.ts";
import * as limits from "../../shared/limits.ts";
import { bucketOf } from "../../shared/policy/histogram.ts";
import type { TaskSpec } from "../../shared/protocol/task.ts";
import type { Upstream } from "../../shared/protocol/upstream.ts";
import { Driver, get, LIFE, START_MS, upstream } from "./goal-harness.ts";

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
  const d = bare(30, { origins: ["http://localhost:1", "http://localhost:2"], maxConcurrency: 100 });
  d.dispatch();
  d.grant({ epoch: 3, number: 8, calls: 12 });
  const sends = d.dispatch();
  expect(new Set(sends.map(({ origin }) => origin))).toEqual(new Set([0, 1]));
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
