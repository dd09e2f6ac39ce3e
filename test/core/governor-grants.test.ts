/**
 * What clients are told they may have open: never more together than the
 * upstream takes, whoever forgets, dies or restarts.
 */
import { expect, test } from "vitest";
import { Driver, NO_SAMPLE, origin } from "./governor-harness.ts";

test("a client alone gets what it wants, up to maxConcurrency", () => {
  const d = new Driver({ maxConcurrency: 10 });
  expect(d.report("a", 4).calls).toBe(4);
  expect(d.report("a", 40).calls).toBe(10);
});

test("what one client may still use is not given to another until the first has let go of it", () => {
  const d = new Driver({ maxConcurrency: 10 });
  d.report("a", 10);
  expect(d.report("b", 10).calls).toBe(0);
  expect(d.report("a", 10).calls).toBe(5);
  expect(d.report("b", 10).calls).toBe(0);
  d.report("a", 10);
  expect(d.report("b", 10).calls).toBe(5);
});

test("calls that are open count though the latest grant is smaller", () => {
  const d = new Driver({ maxConcurrency: 10 });
  d.report("a", 10);
  d.report("b", 10);
  d.report("a", 10, { inUse: 10 });
  expect(d.report("a", 10, { inUse: 8 }).calls).toBe(5);
  expect(d.report("b", 10).calls).toBe(2);
});

test("a grant that was sent and never taken counts until a report comes that does not know of it", () => {
  const d = new Driver({ maxConcurrency: 10 });
  const first = d.report("a", 2);
  d.report("a", 10, { taken: first.number });
  expect(d.report("b", 10).calls).toBe(0);
  d.report("a", 2, { taken: first.number, held: 2 });
  expect(d.report("b", 10).calls).toBe(8);
});

test("permits may rest as long as what all want is at most an eighth of what there is, and starts are not counted", () => {
  const d = new Driver({ maxConcurrency: 40 });
  expect(d.report("a", 3).isAmple).toBe(true);
  expect(d.report("b", 2).isAmple).toBe(true);
  expect(d.report("c", 1).isAmple).toBeUndefined();
  d.report("a", 1);
  expect(d.report("c", 1).isAmple).toBe(true);
  expect(new Driver({ maxConcurrency: 10, ratePerSecond: 100 }).report("a", 1).isAmple).toBeUndefined();
});

test("calls that ended one after the other are no evidence that as many may be open at once", () => {
  const d = new Driver();
  const limit = (d.state.limiter.limit = 5);
  d.report("a", 1);
  for (let i = 0; i < 40; i++) {
    d.pass(800);
    d.report("a", 1, { inUse: 1, held: 1, sample: { ...NO_SAMPLE, answered: 8, sumMs: 800, origins: [origin({ reached: 8 })] } });
  }
  expect(d.state.limiter.limit).toBe(limit);
});

test("permits that are given back go to who waits for them, without being asked", () => {
  const d = new Driver({ maxConcurrency: 10 });
  d.report("a", 10);
  d.report("b", 10);
  d.pass(100);
  d.report("a", 3);
  expect(d.pushed()).toEqual({ b: 7 });
});

test("an earlier life of a client keeps its permits until its lease has run out", () => {
  const d = new Driver({ maxConcurrency: 10 });
  d.report("a-1", 6);
  expect(d.report("a-2", 10).calls).toBe(4);
  d.pass(4_999);
  expect(d.report("a-2", 10).calls).toBe(4);
  d.pass(1);
  expect(d.report("a-2", 10).calls).toBe(10);
});

test("a report that was overtaken changes nothing", () => {
  const d = new Driver({ maxConcurrency: 10 });
  d.report("a", 8);
  const latest = d.report("a", 5);
  const late = d.report("a", 9, { seq: 1, inUse: 9 });
  expect([late.seq, late.calls]).toEqual([latest.seq, 5]);
  expect(late.number).toBeGreaterThan(latest.number);
  expect(d.report("b", 10).calls).toBe(5);
});

test("while more is open than a lowered maxConcurrency allows, nobody starts another call", () => {
  const d = new Driver({ maxConcurrency: 4 });
  d.report("a", 2);
  d.report("b", 2);
  const lowered = { upstream: { ...d.state.upstream!, maxConcurrency: 1 }, version: 2 };
  d.report("a", 2, { inUse: 2, ...lowered });
  expect(d.report("b", 2, { inUse: 1, held: 1, ...lowered }).calls).toBe(0);
  d.report("a", 0, lowered);
  expect(d.report("b", 2, lowered).calls).toBe(1);
});

test("a client that is to have more waits too, until what is open beside it has ended", () => {
  const d = new Driver({ maxConcurrency: 6 });
  d.report("a", 4);
  d.report("b", 2);
  const lowered = { upstream: { ...d.state.upstream!, maxConcurrency: 3 }, version: 2 };
  d.report("a", 2, { inUse: 2, held: 0, wants: [0, 0, 0], ...lowered });
  expect(d.report("b", 9, { inUse: 2, held: 2, ...lowered }).calls).toBe(1);
});

test("a restarted governor gives only what clients hold, until every lease has run out", () => {
  const d = new Driver({ maxConcurrency: 10 });
  d.report("a", 6);
  expect(d.kept).toMatchObject({ epoch: 1, isBusy: true, ttlMs: 5_000 });
  d.restart();
  expect(d.report("a", 10, { held: 6 })).toMatchObject({ epoch: 2, calls: 6 });
  expect(d.report("b", 10).calls).toBe(0);
  d.pass(4_999);
  expect(d.report("a", 10).calls).toBe(6);
  expect(d.report("b", 10).calls).toBe(0);
  d.pass(1);
  expect(d.report("b", 10).calls).toBe(4);
});

test("a governor that restarts while it learns goes on learning for as long as the first would have", () => {
  const d = new Driver({ maxConcurrency: 10 });
  d.report("a", 6);
  d.kept = { ...d.kept!, ttlMs: 15_000 };
  d.restart();
  d.report("b", 10);
  expect(d.kept.ttlMs).toBe(15_000);
});

test("a process that died took its calls with it: its governor need not learn", () => {
  const d = new Driver({ maxConcurrency: 10 });
  d.restart("p1");
  d.report("a", 6);
  d.restart("p2");
  expect(d.report("b", 10).calls).toBe(10);
});

test("a restarted governor takes back what a lowered maxConcurrency no longer allows", () => {
  const d = new Driver({ maxConcurrency: 4 });
  d.report("a", 10);
  d.restart();
  d.report("a", 6, { held: 6 });
  expect(d.report("b", 6, { held: 6 }).calls).toBe(0);
});

test("a lease lasts five seconds, four calls where those are longer, and 15 seconds at most", () => {
  const ttlAfter = (ms: number): number => {
    const d = new Driver();
    d.report("a", 20);
    for (let i = 0; i < 2; i++) {
      d.pass(300);
      d.report("a", 20, {
        inUse: 20,
        sample: { answered: 50, sumMs: 50 * ms, tokens: 0, metered: 0, retryAfterMs: 0, origins: [], latencies: [] },
      });
    }
    return d.report("a", 20).ttlMs;
  };
  expect([ttlAfter(10), ttlAfter(2_000), ttlAfter(9_000)]).toEqual([5_000, 8_000, 15_000]);
});

test("it writes before the first permit and after the last, and comes to rest by itself", () => {
  const d = new Driver({ maxConcurrency: 10 });
  d.report("a", 0);
  expect(d.kept).toBeNull();
  d.report("a", 5);
  expect(d.kept).toMatchObject({ isBusy: true });
  d.report("a", 5, { inUse: 5 });
  expect(d.wakeMs()).toBe(5_000);
  d.report("a", 0);
  expect(d.kept).toMatchObject({ isBusy: true });
  expect(d.wakeMs()).toBe(2_000);
  d.pass(2_000);
  d.tick();
  expect(d.kept).toMatchObject({ isBusy: false });
});

test("it comes to rest by itself when a client has gone without a word", () => {
  const d = new Driver({ maxConcurrency: 10 });
  d.report("a", 5);
  d.pass(5_000);
  d.tick();
  expect(d.kept).toMatchObject({ isBusy: false });
  expect(d.wakeMs()).toBeNull();
});
