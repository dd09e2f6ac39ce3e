/** `npm run example:crawler`: one task becomes 2,000, each page is fetched once, and not one call is made beyond the budget. */
import { join } from "node:path";
import { count, row } from "../../client/cli/demo/progress.ts";
import type { GoalView } from "../../shared/protocol/goal.ts";
import { PAGES, type Site } from "../site.ts";
import { deploy, runExample, runGoal } from "../stage.ts";

/** A task and a call for each page, and not one more. */
const BUDGET = { tasks: PAGES, calls: PAGES };

const CRAWL = {
  name: "crawl the atlas",
  sealed: true,
  budget: BUDGET,
  tasks: [{ key: "/", run: { function: "crawl", input: { path: "/" } } }],
};

function faultsOf({ status, counts, budget }: GoalView, { hits }: Site): string[] {
  const repeated = [...hits.values()].filter((times) => times !== 1).length;
  const expected: [string, unknown, unknown][] = [
    ["status of the goal", status, "succeeded"],
    ["tasks that succeeded", counts.succeeded, PAGES],
    ["pages that were fetched", hits.size, PAGES],
    ["pages that were fetched more than once", repeated, 0],
    ["calls that were charged", budget.spent.calls, PAGES],
  ];
  return expected.filter(([, is, should]) => is !== should).map(([what, is, should]) => `${what}: ${String(is)}, not ${String(should)}`);
}

await runExample(`A crawler of one function, over a site of ${count(PAGES)} pages`, async ({ drover, site }) => {
  await deploy(drover, "crawl", join(import.meta.dirname, "crawl.ts"));
  const startedAt = performance.now();
  const goal = await runGoal(drover, CRAWL);
  const seconds = (performance.now() - startedAt) / 1_000;
  row("done", `${count(goal.counts.succeeded)} tasks from one, in ${seconds.toFixed(1)} s`);
  row("site", `${count(site.hits.size)} pages fetched, ${count([...site.hits.values()].reduce((sum, times) => sum + times, 0))} fetches`);
  row("joined", `${count(goal.joined)} links to pages that had their task`);
  row(
    "budget",
    `${count(goal.budget.spent.calls ?? 0)} calls of ${count(BUDGET.calls)}, ${count(goal.budget.spent.tasks ?? 0)} tasks of ${count(BUDGET.tasks)}`,
  );
  return faultsOf(goal, site);
});
