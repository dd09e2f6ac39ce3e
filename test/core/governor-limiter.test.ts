/**
 * The adaptive limit against a fluid upstream: so many calls at once, each of
 * the same duration, and a queue for the rest.
 */
import { expect, test } from "vitest";
import { closeWindow, cut, fitLimit, type Limiter, newLimiter, observe } from "../../durable-objects/governor/core/limiter.ts";

interface Backend {
  readonly capacity: number;
  readonly callMs: number;
}

const WINDOW_MS = 200;

/** One window with `inUse` calls open all the time. */
function pass(limiter: Limiter, { capacity, callMs }: Backend, nowMs: number, inUse: number): void {
  const ms = callMs * Math.max(1, inUse / capacity);
  const answered = Math.round((Math.min(inUse, capacity) * WINDOW_MS) / callMs);
  observe(limiter, answered, answered * ms, inUse);
  closeWindow(limiter, null, nowMs, 0.5);
}

/** A limiter that has been as busy as it may for so many windows. */
function driven(backend: Backend, windows: number, limiter: Limiter = started(), fromMs = 1_000): Limiter {
  for (let i = 0; i < windows; i++) pass(limiter, backend, fromMs + i * WINDOW_MS, Math.floor(limiter.limit));
  return limiter;
}

function started(limit = 0): Limiter {
  const limiter = newLimiter(limit, 0);
  fitLimit(limiter, null);
  closeWindow(limiter, null, 800, 0.5);
  return limiter;
}

test.for([16, 64, 300])("it finds an upstream of %d calls, and holds a short queue before it", (capacity) => {
  const limiter = started(8);
  driven({ capacity, callMs: 50 }, 150, limiter);
  expect(limiter.limit).toBeGreaterThanOrEqual(capacity);
  expect(limiter.limit).toBeLessThan(1.2 * capacity + 40);
});

test("it follows an upstream that takes a quarter, and finds back", () => {
  const limiter = driven({ capacity: 64, callMs: 100 }, 60);
  driven({ capacity: 16, callMs: 100 }, 60, limiter, 20_000);
  expect(limiter.limit).toBeLessThan(32);
  expect(limiter.limit).toBeGreaterThanOrEqual(16);
  driven({ capacity: 64, callMs: 100 }, 60, limiter, 40_000);
  expect(limiter.limit).toBeGreaterThan(60);
});

test("slow start multiplies, and ends at the first sign of a queue", () => {
  const limiter = started(10);
  pass(limiter, { capacity: 1_000, callMs: 100 }, 1_000, 10);
  expect([limiter.limit, limiter.isSlowStart]).toEqual([15, true]);
  pass(limiter, { capacity: 10, callMs: 100 }, 1_200, 15);
  expect(limiter.isSlowStart).toBe(false);
  expect(limiter.limit).toBeLessThanOrEqual(15);
});

test("refusals cut once for all that was sent before the cut could be felt", () => {
  const limiter = driven({ capacity: 64, callMs: 100 }, 30);
  const before = limiter.limit;
  observe(limiter, 0, 0, before);
  cut(limiter, null, 100_000);
  expect(limiter.limit).toBeCloseTo(before * 0.7);
  cut(limiter, null, 100_150);
  expect(limiter.limit).toBeCloseTo(before * 0.7);
  cut(limiter, null, 100_300);
  expect(limiter.limit).toBeCloseTo(before * 0.49);
});

test("a cut starts from what was in use, not from a limit that nobody reached", () => {
  const limiter = started(200);
  observe(limiter, 10, 1_000, 20);
  cut(limiter, null, 10_000);
  expect(limiter.limit).toBe(14);
});

test("a limit that is not reached stays where it is", () => {
  const limiter = started(100);
  for (let i = 0; i < 20; i++) pass(limiter, { capacity: 64, callMs: 100 }, 1_000 + i * WINDOW_MS, 30);
  expect(limiter.limit).toBe(100);
});

test("queueing of a few milliseconds is not worth a lower limit", () => {
  const limiter = driven({ capacity: 64, callMs: 2 }, 50);
  expect(limiter.limit).toBeGreaterThanOrEqual(66);
});

test("a window that holds less than a round of calls stays open", () => {
  const limiter = started(60);
  observe(limiter, 20, 20 * 300, 60);
  expect(closeWindow(limiter, null, 1_100, 0.5)).toBe(false);
  observe(limiter, 40, 40 * 600, 60);
  expect(closeWindow(limiter, null, 1_400, 0.5)).toBe(true);
  expect([limiter.meanMs, limiter.baselineMs]).toEqual([500, 500]);
});

test("a window does not wait for ever for a round that does not come", () => {
  const limiter = driven({ capacity: 64, callMs: 100 }, 10);
  observe(limiter, 6, 600, 60);
  expect(closeWindow(limiter, null, 3_200, 0.5)).toBe(false);
  expect(closeWindow(limiter, null, 4_200, 0.5)).toBe(true);
});

test("the baseline is measured anew now and then, so that a slower upstream is not taken for a full one", () => {
  const limiter = driven({ capacity: 64, callMs: 50 }, 20);
  const before = limiter.baselineMs;
  driven({ capacity: 64, callMs: 80 }, 100, limiter, 50_000);
  expect(limiter.baselineMs).toBe(before);
  driven({ capacity: 64, callMs: 80 }, 200, limiter, 90_000);
  expect(limiter.baselineMs).toBeGreaterThanOrEqual(80);
});

test("the limit stays within 4 and 1,000, and within maxConcurrency even below that", () => {
  const limiter = started(5);
  for (let i = 1; i < 10; i++) cut(limiter, null, i * 10_000);
  expect(limiter.limit).toBe(4);
  limiter.limit = 5_000;
  fitLimit(limiter, null);
  expect(limiter.limit).toBe(1_000);
  fitLimit(limiter, 2);
  expect(limiter.limit).toBe(2);
});
