/** A gate's queue of one upstream: who goes next and where to, what is reported, and what a caller is told. */
import { expect, test } from "vitest";
import {
  configure,
  earn,
  finish,
  newQueue,
  type Queue,
  reportAtMs,
  reportOf,
  retryAfterMs,
  start,
  startSecond,
  type Waiter,
} from "../../durable-objects/gate/core/queue.ts";
import { GATE_ASK_INTERVAL_MS, GATE_REST_MS, GATE_REST_PERMITS_MAX } from "../../shared/limits.ts";
import { HEDGES_START } from "../../shared/limits-hedging.ts";
import { take } from "../../shared/policy/lease.ts";
import type { Grant } from "../../shared/protocol/admission.ts";
import { parseUpstream, type Upstream } from "../../shared/protocol/upstream.ts";

const LIFE = "0123456789abcdef";

function upstreamOf(spec: object): Upstream {
  const parsed = parseUpstream("u", spec);
  if (!parsed.ok) throw new Error(JSON.stringify(parsed.error));
  return parsed.value;
}

const ONE = upstreamOf({ origin: "http://a:1" });
const THREE = upstreamOf({ origins: ["http://a:1", "http://b:1", "http://c:1"] });

/** A queue that has asked and was granted `calls`. */
function granted(upstream: Upstream, calls: number, more: Partial<Grant> = {}): Queue<Waiter> {
  const queue = newQueue<Waiter>(upstream, 1, LIFE);
  for (let i = 0; i < calls; i++) queue.waiting.add({ untilMs: 60_000, avoid: [] });
  const { seq } = reportOf(queue, "gate", 0);
  queue.waiting.clear();
  const grant: Grant = {
    epoch: 1,
    number: 1,
    seq,
    calls,
    starts: null,
    ttlMs: 3_000,
    gateMs: 0,
    isOpen: false,
    origins: null,
    callsPerSecond: 0,
  };
  take(queue.lease, { ...grant, ...more }, 0);
  return queue;
}

const answered = (ms: number) => ({ outcome: "answered", status: 200, ms, retryAfterMs: 0 }) as const;

test("as many calls start as were granted, and an end makes room for one more", () => {
  const queue = granted(ONE, 2);
  expect([start(queue, [], 1, 0), start(queue, [], 2, 0), start(queue, [], 3, 0)]).toEqual([0, 0, null]);
  finish(queue, 0, answered(5), 10);
  expect([start(queue, [], 4, 10), start(queue, [], 5, 10)]).toEqual([0, null]);
});

test("nothing starts once the lease is over, while the upstream asks for rest, or beyond the starts that a rate allows", () => {
  expect(start(granted(ONE, 2), [], 1, 2_400)).toBeNull();
  expect(start(granted(ONE, 2, { gateMs: 500 }), [], 1, 499)).toBeNull();
  const rated = granted(ONE, 5, { starts: 1 });
  expect([start(rated, [], 1, 0), start(rated, [], 2, 0)]).toEqual([0, null]);
});

test("a refused call's permit rests until the governor has heard of it; one whose caller left is free at once", () => {
  const queue = granted(ONE, 1);
  start(queue, [], 1, 0);
  finish(queue, 0, null, 1);
  expect(start(queue, [], 2, 1)).toBe(0);
  finish(queue, 0, { outcome: "answered", status: 429, ms: 3, retryAfterMs: 2_000 }, 4);
  expect(start(queue, [], 3, 4)).toBeNull();
  expect(reportAtMs(queue, 4)).toBeLessThan(50);
  const { sample } = reportOf(queue, "gate", 5);
  expect(sample).toMatchObject({ answered: 0, retryAfterMs: 1_999, origins: [{ reached: 0, unavailable: 0, refused: 1 }] });
});

test("an origin that failed the call is avoided, as long as the governor allows another", () => {
  const places = (avoid: number[], origins: readonly number[] | null) => {
    const queue = granted(THREE, 200, { origins });
    return new Set(Array.from({ length: 200 }, (_, seed) => start(queue, avoid, seed, 0)));
  };
  expect(places([], null)).toEqual(new Set([0, 1, 2]));
  expect(places([0], null)).toEqual(new Set([1, 2]));
  expect(places([0], [0, 2])).toEqual(new Set([2]));
  expect(places([0], [0])).toEqual(new Set([0]));
});

test("another address in an origin's place begins without a past", () => {
  const queue = granted(THREE, 3);
  queue.origins.forEach((origin) => Object.assign(origin, { open: 1, latencyMs: 9 }));
  configure(queue, upstreamOf({ origins: ["http://a:1", "http://z:1", "http://c:1"] }), 2);
  expect(queue.origins).toEqual([
    { open: 1, latencyMs: 9 },
    { open: 0, latencyMs: 0 },
    { open: 1, latencyMs: 9 },
  ]);
});

test("a new caller is told of at once, unless the governor gave less than it was asked for already", () => {
  const queue = granted(ONE, 1);
  start(queue, [], 1, 0);
  queue.waiting.add({ untilMs: 60_000, avoid: [] });
  expect(reportAtMs(queue, 1)).toBe(GATE_ASK_INTERVAL_MS);
  const scarce = granted(ONE, 4, { calls: 1 });
  start(scarce, [], 1, 0);
  for (let i = 0; i < 9; i++) scarce.waiting.add({ untilMs: 60_000, avoid: [] });
  expect(reportAtMs(scarce, 1)).toBeGreaterThan(GATE_ASK_INTERVAL_MS);
});

test("a gate with nothing to do gives back what it holds, and then is silent", () => {
  const queue = granted(ONE, 1);
  start(queue, [], 1, 0);
  finish(queue, 0, answered(5), 5);
  expect(reportAtMs(queue, 5)).toBeLessThanOrEqual(5);
  const report = reportOf(queue, "proxy-root-1", 5);
  expect(report).toMatchObject({
    client: "proxy-root-1",
    life: LIFE,
    wants: [0, 0, 0],
    inUse: 0,
    held: 0,
    sample: { answered: 1, sumMs: 5 },
  });
  take(
    queue.lease,
    {
      epoch: 1,
      number: 2,
      seq: report.seq,
      calls: 0,
      starts: null,
      ttlMs: 3_000,
      gateMs: 0,
      isOpen: false,
      origins: null,
      callsPerSecond: 0,
    },
    6,
  );
  expect(reportAtMs(queue, 10_000)).toBeNull();
});

test("where there is plenty, a few permits rest for the next call, which asks nobody, and go back a second after it last asked", () => {
  const queue = granted(ONE, GATE_REST_PERMITS_MAX, { isAmple: true });
  for (const atMs of [0, 500]) {
    start(queue, [], 1, atMs);
    finish(queue, 0, answered(5), atMs + 5);
    expect(reportAtMs(queue, atMs + 5)).toBe(GATE_REST_MS);
  }
  expect(start(queue, [], 1, 800)).toBe(0);
  finish(queue, 0, answered(400), 1_200);
  expect(reportAtMs(queue, 1_200)).toBe(1_200);
});

test("a gate that learns that its upstream is another does not take it that there are plenty", () => {
  const queue = granted(ONE, 1, { isAmple: true });
  start(queue, [], 1, 0);
  configure(queue, upstreamOf({ origin: "http://a:1", maxConcurrency: 1 }), 2);
  finish(queue, 0, answered(5), 5);
  expect(reportAtMs(queue, 5)).toBeLessThanOrEqual(5);
});

test("permits do not rest where the upstream refused the last call, or where they are many", () => {
  const refused = granted(ONE, 1, { isAmple: true });
  start(refused, [], 1, 0);
  finish(refused, 0, { outcome: "answered", status: 429, ms: 3, retryAfterMs: 0 }, 3);
  const many = granted(ONE, GATE_REST_PERMITS_MAX + 1, { isAmple: true });
  start(many, [], 1, 0);
  finish(many, 0, answered(3), 3);
  for (const queue of [refused, many]) expect(reportAtMs(queue, 3)).toBeLessThan(50);
});

test("whoever was not served is told how long the queue takes, a second at least", () => {
  const queue = granted(ONE, 1, { callsPerSecond: 2 });
  expect(retryAfterMs(queue, 0)).toBe(1_000);
  for (let i = 0; i < 9; i++) queue.waiting.add({ untilMs: 0, avoid: [] });
  expect(retryAfterMs(queue, 0)).toBe(5_000);
  expect(retryAfterMs(granted(ONE, 1, { gateMs: 7_000 }), 0)).toBe(7_000);
});

const HEDGED = upstreamOf({ origins: ["http://a:1", "http://b:1"], hedge: { quantile: 0.95, budgetPercent: 5 } });

test("a call is made a second time at another origin, while the governor lets calls be hedged and nobody waits", () => {
  const queue = granted(HEDGED, 4, { hedgeAfterMs: 50 });
  const place = start(queue, [], 1, 0)!;
  queue.waiting.add({ untilMs: 60_000, avoid: [] });
  expect(startSecond(queue, [place], 2, 0)).toBeNull();
  queue.waiting.clear();
  expect(startSecond(queue, [place], 2, 0)).toBe(1 - place);
  expect(queue.open).toBe(2);
  expect(startSecond(granted(HEDGED, 4), [], 1, 0)).toBeNull();
  expect(startSecond(granted(THREE, 4, { hedgeAfterMs: 50 }), [], 1, 0)).toBeNull();
});

test("a second try takes a permit of its own", () => {
  const queue = granted(HEDGED, 1, { hedgeAfterMs: 50 });
  start(queue, [], 1, 0);
  expect(startSecond(queue, [], 2, 0)).toBeNull();
  finish(queue, 0, answered(5), 10);
  expect(startSecond(queue, [], 2, 10)).not.toBeNull();
});

test("of a hundred calls so many are made a second time as the upstream says, and those that there are at first", () => {
  const queue = granted(HEDGED, 10, { hedgeAfterMs: 50 });
  let seconds = 0;
  for (let i = 0; i < 200; i++) {
    finish(queue, start(queue, [], i, 0)!, null, 0);
    earn(queue);
    const place = startSecond(queue, [], i, 0);
    if (place === null) continue;
    seconds++;
    finish(queue, place, null, 0);
  }
  expect(seconds).toBe(10 + HEDGES_START);
});
