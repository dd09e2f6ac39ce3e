/** Starts under `ratePerSecond`: a slice of 150 ms may bunch, and what is given back buys no more than it cost. */
import { expect, test } from "vitest";
import { Driver } from "./governor-harness.ts";

test("without a rate starts are not counted", () => {
  expect(new Driver().report("a", 20).starts).toBeNull();
});

test("a slice of 150 ms may start at once, and then what the rate brings", () => {
  const d = new Driver({ ratePerSecond: 100 });
  expect(d.report("a", 50).starts).toBe(15);
  expect(d.report("a", 50).starts).toBe(0);
  d.pass(50);
  expect(d.report("a", 50).starts).toBe(5);
  d.pass(10_000);
  expect(d.report("a", 50).starts).toBe(15);
});

test.for([0.01, 0.3, 3, 7])("a rate of %d a second lets the first call start at once, and the next in its time", (ratePerSecond) => {
  const d = new Driver({ ratePerSecond });
  expect(d.report("a", 50).starts).toBe(1);
  d.pass(1_000 / ratePerSecond - 1);
  expect(d.report("a", 50).starts).toBe(ratePerSecond < 7 ? 0 : 1);
  d.pass(2);
  expect(d.report("a", 50).starts).toBe(ratePerSecond < 7 ? 1 : 0);
});

test("no more starts are given than there are calls to start", () => {
  const d = new Driver({ ratePerSecond: 100, maxConcurrency: 8 });
  expect(d.report("a", 3).starts).toBe(3);
  expect(d.report("b", 50, { inUse: 2 }).starts).toBe(3);
});

test("clients share the slice by weight, without those who could not use it", () => {
  const d = new Driver({ ratePerSecond: 100, maxConcurrency: 30 });
  d.report("a", 10, { weight: 2 });
  d.report("b", 10);
  d.report("c", 50, { weight: 27 });
  d.pass(1_000);
  expect(d.report("a", 10, { weight: 2 }).starts).toBeGreaterThanOrEqual(1);
  const alone = new Driver({ ratePerSecond: 20, maxConcurrency: 40 });
  alone.report("a", 50);
  expect(alone.report("b", 50, { weight: 9 }).calls).toBe(0);
  alone.pass(1_000);
  expect(alone.report("a", 50).starts).toBe(3);
});

test("starts that were not used may be given again", () => {
  const d = new Driver({ ratePerSecond: 100 });
  d.report("a", 5);
  d.pass(10);
  d.report("a", 50);
  expect(d.report("a", 0, { unusedStarts: 11 }).starts).toBe(0);
  expect(d.report("b", 50).starts).toBe(11);
});

test("starts of a grant that was never taken may be given again, whatever the client says", () => {
  const d = new Driver({ ratePerSecond: 100 });
  const first = d.report("a", 5);
  d.pass(10);
  d.report("a", 50);
  d.report("a", 0, { taken: first.number });
  expect(d.report("b", 50).starts).toBe(11);
});

test("starts that others were given since weigh in their place, and giving the earlier ones back buys nothing", () => {
  const d = new Driver({ ratePerSecond: 100 });
  d.report("a", 10);
  d.pass(1_000);
  expect(d.report("b", 50, { weight: 99 }).starts).toBe(15);
  d.report("a", 0, { unusedStarts: 10 });
  expect(d.report("b", 50, { weight: 99 }).starts).toBe(0);
});

test("a client that waits for starts is told of them when the rate has some", () => {
  const d = new Driver({ ratePerSecond: 10 });
  expect(d.report("a", 5).starts).toBe(1);
  expect(d.report("a", 5, { inUse: 1 }).starts).toBe(0);
  expect(d.wakeMs()).toBe(100);
  d.pass(100);
  d.tick();
  expect(d.pushes.map(({ life, grant }) => [life, grant.starts])).toEqual([["a", 1]]);
});
