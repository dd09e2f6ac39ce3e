/** Latency histograms: what their quantiles are worth, and that parts counted apart say what the whole says. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { LATENCY_CALLS } from "../../shared/limits.ts";
import { age, HISTOGRAM_BUCKETS, merge, newHistogram, quantileMs, record } from "../../shared/policy/histogram.ts";
import { count, drain, newSampler } from "../../shared/policy/sample.ts";
import { Driver, NO_SAMPLE } from "./governor-harness.ts";

const latencies = fc.array(fc.integer({ min: 1, max: 7_200_000 }), { minLength: 1, maxLength: 200 });
const of = (list: readonly number[]): Uint32Array => {
  const histogram = newHistogram();
  for (const ms of list) record(histogram, ms);
  return histogram;
};
const exactOf = (list: readonly number[], q: number): number => list.toSorted((a, b) => a - b)[Math.ceil(q * list.length) - 1]!;

/** What a client's report says of these calls. */
function sampleOf(list: readonly number[]): ReturnType<typeof drain> {
  const sampler = newSampler();
  for (const ms of list) count(sampler, { origin: 0, verdict: "answered", ms, retryAfterMs: 0, tokens: 0 }, 0);
  return drain(sampler, 0);
}

test("a quantile is well within the 9 % of a bucket, from 1 ms to two hours", () => {
  fc.assert(
    fc.property(latencies, fc.constantFrom(0.01, 0.5, 0.95, 0.99, 1), (list, q) => {
      const exact = exactOf(list, q);
      // An answer is the middle of its bucket, in whole milliseconds: half a bucket and half a millisecond off at most.
      expect(Math.abs(quantileMs(of(list), q)! - exact)).toBeLessThanOrEqual((exact + 1) * 0.045 + 0.5);
    }),
  );
});

test("what several clients counted and sent is, merged, what one would have counted", () => {
  fc.assert(
    fc.property(fc.array(latencies, { maxLength: 8 }), (parts) => {
      const merged = newHistogram();
      for (const part of parts) merge(merged, sampleOf(part).latencies);
      expect(merged).toEqual(of(parts.flat()));
    }),
  );
});

test("an empty histogram has no quantile, and the strangest latencies count", () => {
  expect(quantileMs(newHistogram(), 0.5)).toBeNull();
  const histogram = of([-5, 0, 1e12, Number.MAX_VALUE]);
  expect(histogram.reduce((sum, each) => sum + each)).toBe(4);
  expect(histogram[0]).toBe(2);
  expect(histogram[HISTOGRAM_BUCKETS - 1]).toBe(2);
});

test("ageing halves every count, and so leaves the quantiles where they were", () => {
  const list = Array.from({ length: 400 }, (_, i) => 1 + Math.floor(i / 4) * 7);
  const aged = of(list);
  age(aged);
  expect(aged.reduce((sum, each) => sum + each)).toBeLessThanOrEqual(200);
  for (const q of [0.5, 0.95]) expect(Math.abs(quantileMs(aged, q)! - exactOf(list, q))).toBeLessThanOrEqual(exactOf(list, q) * 0.1);
});

test("a governor's latencies are of all its clients, and follow an upstream that has become slow", () => {
  const governor = new Driver();
  const hear = (life: string, ms: number, calls: number): void => {
    governor.report(life, 10, {
      sample: {
        ...NO_SAMPLE,
        answered: calls,
        sumMs: calls * ms,
        latencies: sampleOf([ms]).latencies.map((n, i) => (i === 1 ? calls : n)),
      },
    });
  };
  hear("a-1", 20, LATENCY_CALLS / 2);
  hear("b-1", 40, LATENCY_CALLS / 4);
  expect([0.5, 0.99].map((q) => quantileMs(governor.state.latencies, q))).toEqual([21, 39]);
  // More calls by far were counted at the old speed than will be at the new one.
  for (let i = 0; i < 8; i++) hear("a-1", 20, LATENCY_CALLS);
  for (let i = 0; i < 2; i++) hear("a-1", 500, LATENCY_CALLS);
  expect(quantileMs(governor.state.latencies, 0.5)).toBeGreaterThan(450);
  expect(governor.state.timed).toBe(LATENCY_CALLS * 10.75);
});
