/** Backoff, limits and errors: the numbers that the rest of Drover trusts. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { ERRORS, failure, problemOf, REQUEST_ERRORS, TASK_ERRORS } from "../../shared/errors.ts";
import * as limits from "../../shared/limits.ts";
import * as ofHedging from "../../shared/limits-hedging.ts";
import { backoffMs, chance } from "../../shared/policy/backoff.ts";
import { faultsOf } from "../../shared/protocol/faults.ts";

const share = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true });

test("a backoff lies between nothing and the doubling ceiling, and never above the cap", () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 100_000 }), share, (failures, chance01) => {
      const ms = backoffMs(failures, chance01);
      const ceiling = Math.min(limits.RETRY_CAP_MS, limits.RETRY_BASE_MS * 2 ** (failures - 1));
      expect(Number.isInteger(ms) && ms >= 0 && ms < ceiling).toBe(true);
    }),
  );
});

test("a backoff spreads over its whole range: full jitter, not a bit of it", () => {
  expect(backoffMs(4, 0)).toBe(0);
  expect(backoffMs(4, 0.5)).toBe(200);
  expect(backoffMs(4, 0.9999)).toBe(399);
  expect(backoffMs(50, 0.9999)).toBe(19_998);
});

test("a backoff without a failure, or with a chance of one, is a bug", () => {
  expect(() => backoffMs(0, 0.5)).toThrow("backoff takes");
  expect(() => backoffMs(1, 1)).toThrow("backoff takes");
});

test("chance is a share of one, the same for the same seed", () => {
  fc.assert(
    fc.property(fc.integer(), fc.nat(), fc.nat(), (seed, a, b) => {
      const drawn = chance(seed, a, b);
      expect(drawn >= 0 && drawn < 1 && drawn === chance(seed, a, b)).toBe(true);
    }),
  );
});

test.for(["the task", "the attempt", "the seed"] as const)("chance is even over 16 shares when %s varies", (what) => {
  const shares = new Uint32Array(16);
  const draws = 16_000;
  for (let i = 0; i < draws; i++) {
    const drawn = what === "the task" ? chance(7, i, 1) : what === "the attempt" ? chance(7, 1, i) : chance(i, 1, 1);
    const at = Math.floor(drawn * 16);
    shares[at] = shares[at]! + 1;
  }
  for (const count of shares) expect(Math.abs(count - draws / 16)).toBeLessThan(200);
});

test("every limit is a positive whole number, every share a part of one, and the relations between them hold", () => {
  const shares = new Set([
    "RETRY_BUDGET_SHARE",
    "LEASE_USE",
    "BAND_FLOOR",
    "FUNCTION_STRIKE_SHARE",
    "GARBAGE_TIME_SHARE",
    "HEDGE_QUANTILE_DEFAULT",
  ]);
  const entries = [...Object.entries(limits), ...Object.entries(ofHedging)];
  expect(entries.length).toBeGreaterThan(40);
  for (const [name, value] of entries) {
    const isGood = shares.has(name) ? value > 0 && value < 1 : Number.isSafeInteger(value) && value > 0;
    expect(isGood, name).toBe(true);
  }
});

test("request and task errors share no code but name the same things", () => {
  expect(Object.keys(ERRORS)).toHaveLength(Object.keys(REQUEST_ERRORS).length + Object.keys(TASK_ERRORS).length);
  for (const [code, { status }] of Object.entries(ERRORS)) expect(status >= 400 && status < 600, code).toBe(true);
});

test("a problem carries status, title and type of its code, and what was said of it", () => {
  expect(problemOf(failure("goal_sealed", "no more", { goalId: "goal_x" }))).toEqual({
    type: "urn:drover:error:goal_sealed",
    title: "The goal is sealed and takes no more tasks",
    status: 409,
    retryable: false,
    code: "goal_sealed",
    detail: "no more",
    goalId: "goal_x",
  });
});

test("a fault's pointer is escaped as RFC 6901 says", () => {
  const issue = { type: "string", kind: "schema", expected: "string", received: "1", message: "Invalid type", input: 1 } as const;
  const path = [{ key: "a/b" }, { key: "~c" }, { key: 0 }, { key: "~1" }] as never;
  expect(faultsOf({ issues: [{ ...issue, path }] }, "/tasks/3")).toEqual([
    { pointer: "/tasks/3/a~1b/~0c/0/~01", detail: "must be string, not 1" },
  ]);
});
