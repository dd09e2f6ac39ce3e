/** Budgets, seen from outside. `budget-run.ts` is the program; by hand it makes more runs. */
import { expect, test } from "vitest";
import { budgetRun, type Run } from "./budget-run.ts";

test(
  "5,000 tasks at once against a budget for 1,234 calls make 1,234, never one more, and the rest after a top-up that 50 equal requests add once",
  { timeout: 120_000 },
  async () => {
    const all: Run[] = [];
    await budgetRun({ kind: "calls", runs: 1, kills: 0, tasks: 5_000, calls: 1_234, seed: 7 }, (run) => all.push(run));
    expect(all).toMatchObject([{ paused: 1_234, total: 5_000, faults: [] }]);
  },
);

test("a server that is killed in the middle makes no more calls than the budget allows", { timeout: 120_000 }, async () => {
  const all: Run[] = [];
  await budgetRun({ kind: "calls", runs: 1, kills: 1, tasks: 1_000, calls: 234, seed: 7 }, (run) => all.push(run));
  expect(all).toMatchObject([{ isKilled: true, faults: [] }]);
});

test("500 functions that make a call each, against a budget for 123, make 123, and end after a top-up", { timeout: 120_000 }, async () => {
  const all: Run[] = [];
  await budgetRun({ kind: "functions", runs: 1, kills: 0, tasks: 500, calls: 123, seed: 7 }, (run) => all.push(run));
  expect(all).toMatchObject([{ paused: 123, total: 500, faults: [] }]);
});
