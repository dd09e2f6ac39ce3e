/** Second tries of goals' tasks, through the whole: what the task shows, what it costs, and what is never made twice. */
import { expect, inject, test } from "vitest";
import type { GoalView } from "../../shared/protocol/goal.ts";
import type { BatchReply } from "../../shared/rpc-batch.ts";
import { runBatch } from "../../workers/executor/run-batch.ts";
import { countsOf, delay, hostOf, letGo } from "./executor-kit.ts";
import {
  create,
  generous,
  get,
  goalOf,
  good,
  inLaboratory,
  type Laboratory,
  post,
  REGISTRY,
  register,
  type Run,
  tasksOf,
  until,
  viewOf,
} from "./goal-kit.ts";
import { liveOf } from "./proxy-kit.ts";

const LONG_MS = 5_000;
const AFTER_MS = 80;
const hedge = { quantile: 0.95, budgetPercent: 5 };

interface Hedged {
  readonly status: string;
  readonly usage: { readonly calls: number };
  readonly attempts: readonly { readonly outcome: string; readonly hedge?: boolean }[];
}

const callTo = (path: string, more: object = {}): object => ({ call: { upstream: "real", path, ...more } });

/** The test upstream, and a governor that lets its calls be hedged. */
const hedging = (over: object = {}): Pick<Laboratory, "tenant" | "governor"> => {
  const upstreams = [{ ...REGISTRY.upstreams[0]!, origins: [inject("upstreamUrl")], hedge, ...over }];
  return { tenant: { registry: async () => ({ version: 1, upstreams }) }, governor: { exchange: generous({ hedgeAfterMs: AFTER_MS }) } };
};

/** Runs tasks in a goal whose governor lets calls be hedged, and the executor calls the test upstream. */
async function ended(tasks: readonly object[], over: object = {}): Promise<GoalView> {
  return inLaboratory({ run: (batch) => runBatch(batch, hostOf()), ...hedging(over) }, async (goal, id) => {
    await create(goal, id, tasks, true);
    await until("the goal has ended", async () => (await viewOf(goal)).status !== "active");
    return viewOf(goal);
  });
}

test("a task whose call stalls is made again and succeeds soon; it shows both tries, and is charged for both", async () => {
  await register("hedged", { hedge });
  // Until then nobody knows what takes long.
  const warm = Array.from({ length: 150 }, (_, i) => ({ key: `w${i}`, call: { upstream: "hedged", path: "/delay/0" } }));
  const { id: first } = await good<GoalView>(post("/v1/goals", { sealed: true, tasks: warm }));
  await until("the first goal has ended", async () => (await goalOf(first)).status === "succeeded");
  await until("the governor knows", async () => (await liveOf("hedged")).hedgeAfterMs !== null);
  const tasks = Array.from({ length: 6 }, (_, i) => ({
    call: { upstream: "hedged", path: i === 0 ? `/tries/${LONG_MS}/0?name=hedged` : "/delay/10" },
  }));
  const startedAtMs = Date.now();
  const { id } = await good<GoalView>(post("/v1/goals", { sealed: true, tasks }));
  await until("it has ended", async () => (await goalOf(id)).status === "succeeded");
  expect(Date.now() - startedAtMs).toBeLessThan(LONG_MS / 2);
  const [stalled] = await tasksOf(id);
  const { usage, attempts } = await get<Hedged>(`/v1/tasks/${stalled!.id}`);
  expect(usage.calls).toBe(2);
  expect(attempts.map(({ outcome, hedge: isSecond }) => [outcome, isSecond])).toEqual([
    ["beaten", undefined],
    ["answered", true],
  ]);
  expect((await countsOf("hedged")).total).toBe(2);
});

test("what is not declared idempotent is never made twice, however slow it is", async () => {
  const path = `/tries/${4 * AFTER_MS}/0?name=never-twice`;
  const methods = ["POST", "PATCH", "DELETE", "PUT"];
  const tasks = Array.from({ length: 48 }, (_, i) =>
    i % 4 > 0 ? callTo("/delay/0") : callTo(`${path}&i=${i}`, { method: methods[(i / 4) % 4] }),
  );
  const view = await ended(tasks);
  expect(view.counts.succeeded).toBe(48);
  expect((await countsOf("never-twice")).total).toBe(12);
  // The same calls, by an upstream that honours Idempotency-Key.
  await ended(tasks, { idempotency: "key" });
  expect((await countsOf("never-twice")).total).toBeGreaterThan(24);
});

test.for(["upstream", "executor"])("at a goal's end an %s that hangs is not waited for: the call is made again", async (hangs) => {
  const hung = Promise.withResolvers<BatchReply>();
  const timeouts: number[] = [];
  const run: Run = (batch) => {
    timeouts.push(batch.items[0]!.timeoutMs);
    return hangs === "executor" && batch.items[0]!.firstAtMs === undefined ? hung.promise : runBatch(batch, hostOf());
  };
  const path = `/tries/${hangs === "upstream" ? LONG_MS : 0}/0?name=hung-${hangs}`;
  const startedAtMs = Date.now();
  // One call alone has no lane to be hedged in.
  const json = await inLaboratory({ run, ...hedging() }, async (goal, id) => {
    await create(goal, id, [callTo(path)], true);
    await until("the goal has ended", async () => (await viewOf(goal)).status !== "active");
    hung.resolve("");
    const task = await goal.getTask(0, 0);
    return task.ok ? task.value.json : "";
  });
  expect(Date.now() - startedAtMs).toBeLessThan(LONG_MS / 2);
  const { status, usage, attempts } = JSON.parse(json) as Hedged;
  expect([status, usage.calls]).toEqual(["succeeded", 2]);
  // A deadline is the attempt's, so the second call has the rest of it.
  expect([timeouts.length, timeouts[0]! - timeouts[1]! >= AFTER_MS]).toEqual([2, true]);
  expect(attempts.map(({ outcome, hedge: isSecond }) => [outcome, isSecond])).toEqual([
    ["beaten", undefined],
    ["answered", true],
  ]);
  // The first call is cut off.
  await until("nothing is open", async () => (await countsOf(`hung-${hangs}`)).inFlight === 0);
  expect((await countsOf(`hung-${hangs}`)).total).toBe(hangs === "upstream" ? 2 : 1);
});

test("a budget of calls is kept to the call: each try is charged, and nothing that was not made", async () => {
  const path = "/tries/held/0?name=hedge-budget";
  const tasks = Array.from({ length: 60 }, (_, i) => callTo(i % 20 === 0 ? `${path}&i=${i}` : "/delay/5?name=hedge-budget"));
  const view = await inLaboratory(
    { run: (batch) => runBatch(batch, hostOf()), ...hedging({ maxConcurrency: null }) },
    async (goal, goalId) => {
      const spec = {
        name: "",
        labels: {},
        deadlineMs: null,
        retentionMs: 60_000,
        completion: {},
        sealed: true,
        weight: 1,
        budget: { calls: 61 },
      };
      const made = await goal.create({ goalId, spec, tasksJson: JSON.stringify(tasks) });
      if (!made.ok) throw new Error(made.error.detail);
      await until("one is made a second time", async () => (await countsOf("hedge-budget")).total > 60);
      await delay(5 * AFTER_MS);
      await letGo("hedge-budget");
      await until("the goal has ended", async () => (await viewOf(goal)).status !== "active");
      return viewOf(goal);
    },
  );
  const { total } = await countsOf("hedge-budget");
  expect([view.counts.succeeded, total]).toEqual([60, 61]);
  expect([view.budget.spent?.["calls"], view.budget.reserved?.["calls"]]).toEqual([61, 0]);
});

test("while more is wanted than the upstream may have open nothing is hedged, and its bound holds through the end", async () => {
  await register("hedge-full", { hedge, maxConcurrency: 3 });
  const tasks = Array.from({ length: 160 }, (_, i) => ({
    call: { upstream: "hedge-full", path: i < 110 ? "/delay/0?name=hedge-full" : "/delay/60?name=hedge-full-slow" },
  }));
  const { id } = await good<GoalView>(post("/v1/goals", { sealed: true, tasks }));
  await until("it has ended", async () => (await goalOf(id)).status === "succeeded");
  const [quick, slow] = await Promise.all([countsOf("hedge-full"), countsOf("hedge-full-slow")]);
  // The last three no longer wait for a permit.
  expect(slow.total).toBeLessThanOrEqual(50 + 3);
  expect(quick.total).toBe(110);
  expect(Math.max(quick.max, slow.max)).toBeLessThanOrEqual(3);
});
