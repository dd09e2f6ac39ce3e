/** One upstream, many goals, and a server that is killed under them: the upstream counts what is open. */
import { setTimeout as sleep } from "node:timers/promises";
import { expect, test } from "vitest";
import type { GoalView } from "../../shared/protocol/goal.ts";
import { call } from "./api.ts";
import { useStage } from "./stage.ts";
import { answerAfter } from "./upstream.ts";

const MAX_CONCURRENCY = 64;
const GOALS = 20;
const TASKS = 250;

const stage = useStage(answerAfter(20), { maxConcurrency: MAX_CONCURRENCY });

async function submit(number: number): Promise<string> {
  const tasks = Array.from({ length: TASKS }, (_, n) => ({ call: { upstream: "real", path: `/goal-${number}/${n}` } }));
  const { id } = await call<GoalView>(stage.drover, "POST", "/v1/goals", { sealed: true, tasks });
  return id;
}

async function ended(id: string): Promise<GoalView> {
  for (;;) {
    const goal = await call<GoalView>(stage.drover, "GET", `/v1/goals/${id}`);
    if (goal.status !== "active") return goal;
    await sleep(100);
  }
}

test("twenty goals keep to maxConcurrency together, also when everything is killed twice meanwhile", { timeout: 120_000 }, async () => {
  const ids = await Promise.all(Array.from({ length: GOALS }, (_, number) => submit(number)));
  for (const share of [0.2, 0.5]) {
    await stage.upstream.reached(share * GOALS * TASKS);
    await stage.crash();
  }
  const goals = await Promise.all(ids.map(ended));
  expect(goals.map(({ status, counts }) => [status, counts.succeeded])).toEqual(ids.map(() => ["succeeded", TASKS]));
  expect(stage.upstream.inFlightMax).toBeLessThanOrEqual(MAX_CONCURRENCY);
  // Fewer would show nothing: the bound must have been reached.
  expect(stage.upstream.inFlightMax).toBeGreaterThan(MAX_CONCURRENCY / 2);
  expect(new Set(stage.upstream.seen.map(({ key }) => key)).size).toBe(GOALS * TASKS);
});
