/** What functions call is what their goal pays, and the examples do what they say. */
import { execFile } from "node:child_process";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { call, goalOf, putFunction, resultsOf, until } from "./api.ts";
import { useStage } from "./stage.ts";
import { answerAfter } from "./upstream.ts";

const TASKS = 200;
const EXAMPLE_SECONDS_MAX = 120;
const ROOT = join(import.meta.dirname, "../..");

const stage = useStage(answerAfter(5), { maxConcurrency: 16 });

interface Budget {
  readonly spent: { readonly calls: number };
  readonly reserved: { readonly calls: number };
}

test("a goal pays for the calls that its functions make, and for nothing else", async () => {
  await putFunction(stage.drover, "asks", `export default async (n, ctx) => (await ctx.call("real", { path: "/" + n })).status;`);
  for (let round = 0; round < 3; round++) {
    const seen = stage.upstream.seen.length;
    const tasks = Array.from({ length: TASKS }, (_, n) => ({ key: `${n}`, run: { function: "asks", input: n } }));
    const { id } = await call<{ id: string }>(stage.drover, "POST", "/v1/goals", { tasks, sealed: true });
    await resultsOf(stage.drover, id);
    expect((await goalOf(stage.drover, id)).counts.succeeded).toBe(TASKS);
    const budget = (): Promise<Budget> => call(stage.drover, "GET", `/v1/goals/${id}/budget`);
    await until("nothing is set aside any more", async () => (await budget()).reserved.calls === 0);
    expect([stage.upstream.seen.length - seen, (await budget()).spent.calls]).toEqual([TASKS, TASKS]);
  }
});

test("a goal of one task waits for an upstream that cannot be reached, and pays for no call that was never sent", async () => {
  const origin = "http://127.0.0.1:1";
  await call(stage.drover, "PUT", "/v1/upstreams/gone", { origin });
  const tasks = [{ call: { upstream: "gone", path: "/" } }];
  const { id } = await call<{ id: string }>(stage.drover, "POST", "/v1/goals", { tasks, sealed: true });
  await sleep(3_000);
  const { status, budget } = await goalOf(stage.drover, id);
  expect(status).toBe("active");
  // Of the first ones nobody knows that nothing was sent.
  expect(budget.spent.calls).toBeLessThanOrEqual(2);
  await call(stage.drover, "PUT", "/v1/upstreams/gone", { origin: stage.upstream.origin });
  await until("it is done", async () => (await goalOf(stage.drover, id)).status === "succeeded");
});

test.each(["crawler", "facts"])(
  "the example %s does what it says",
  async (name) => {
    const { stdout } = await promisify(execFile)(process.execPath, [join(ROOT, `examples/${name}/run.ts`)], { cwd: ROOT });
    expect(stdout).toContain("All as it should be.");
  },
  EXAMPLE_SECONDS_MAX * 1_000,
);
