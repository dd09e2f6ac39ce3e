/** The deployed transport: a goal whose batches go to the pool of executor objects instead of this Worker's entrypoint. */
import { listDurableObjectIds, runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { expect, inject, test } from "vitest";
import { Goal } from "../../durable-objects/goal/object.ts";
import { put } from "./edge-kit.ts";
import { countsOf } from "./executor-kit.ts";
import { create, goalStub, newGoalId, until, viewOf } from "./goal-kit.ts";

test("the pool does what the entrypoint does: every task once, over several objects, slow ones too", async () => {
  await put("/v1/upstreams/real", { origin: inject("upstreamUrl"), maxConcurrency: 24 });
  const id = newGoalId();
  const before = (await listDurableObjectIds(env.EXECUTOR_POOL)).length;
  await runInDurableObject(goalStub(id), async (_goal: Goal, ctx: DurableObjectState) => {
    const goal = new Goal(ctx, { ...env, EXECUTOR_TRANSPORT: "pool" });
    const tasks = Array.from({ length: 96 }, (_, n) => ({
      call: { upstream: "real", path: `/delay/${n % 12 === 0 ? 300 : 10}?name=pool&n=${n}` },
    }));
    await create(goal, id, [...tasks, { key: "bad", call: { upstream: "real", path: "/status/404?name=pool" } }], false);
    await until("all have ended", async () => {
      const { succeeded, failed } = (await viewOf(goal)).counts;
      return succeeded === 96 && failed === 1;
    });
  });
  const { total, max } = await countsOf("pool");
  expect(total).toBe(97);
  expect(max).toBeLessThanOrEqual(24);
  expect(max).toBeGreaterThan(6);
  expect((await listDurableObjectIds(env.EXECUTOR_POOL)).length - before).toBeGreaterThanOrEqual(4);
});
