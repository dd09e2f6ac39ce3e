/**
 * Runs of functions share an isolate, and each belongs to the request of its
 * batch. What one waits for must never be answered from another's request:
 * where that one has ended, the platform drops the answer, and says so.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { expect, test } from "vitest";
import { call, goalOf, putFunction, until } from "./api.ts";
import { useStage } from "./stage.ts";
import { answerAfter } from "./upstream.ts";

const TASKS = 120;
const FUNCTIONS = {
  reads: "export default async (_, ctx) => (await ctx.call('real', { path: '/read' })).status;",
  writes: "export default async (_, ctx) => (await ctx.call('real', { method: 'POST', path: '/write', body: {} })).status;",
  // What it does not wait for is cut off with its batch.
  leaves:
    "export default (_, ctx) => { for (const method of ['GET', 'POST']) ctx.call('real', { method, path: '/left' }).catch(() => {}); };",
} as const;

const stage = useStage(answerAfter(150), { maxConcurrency: 32 });

const put = (name: string, code: string, engine?: string): Promise<void> => putFunction(stage.drover, name, code, engine);

async function goalWith(names: readonly string[]): Promise<string> {
  const tasks = Array.from({ length: TASKS }, (_, i) => ({ key: `${i}`, run: { function: names[i % names.length] } }));
  return (await call<{ id: string }>(stage.drover, "POST", "/v1/goals", { sealed: true, tasks })).id;
}

test("no call of a function is answered from another request, whatever is canceled and left open beside it", async () => {
  for (const [name, code] of Object.entries(FUNCTIONS)) await put(name, code);
  await put("isolated", FUNCTIONS.reads, "isolate");
  const kept = [await goalWith(["reads", "writes"]), await goalWith(["leaves", "isolated"])];
  const canceled = [await goalWith(["reads", "writes"]), await goalWith(["writes", "leaves", "isolated"])];
  for (const id of canceled) {
    await sleep(400);
    await call(stage.drover, "POST", `/v1/goals/${id}/cancel`, {}).catch(() => undefined);
  }
  for (const id of kept) await until("the goal has ended", async () => (await goalOf(stage.drover, id)).status === "succeeded", 60_000);
  // Again in the same isolate, when those requests have ended.
  const last = await goalWith(["reads", "writes", "leaves", "isolated"]);
  await until("the last goal has ended", async () => (await goalOf(stage.drover, last)).status === "succeeded", 60_000);
  expect(stage.said).not.toMatch(/different request context|cross-context|on behalf of a different request/);
});
