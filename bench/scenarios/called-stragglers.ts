/** A part of `stragglers`: what hedging makes of calls that functions make, of which one in a hundred takes a second; goals in turns. */
import { api, callsAt, declare, newGoal, untilEnded, viewGoal } from "../goals.ts";
import { type Figure, figure } from "../report.ts";
import type { Stage } from "../stage.ts";

const TASKS = 2_000;
const HEDGE = { quantile: 0.95, budgetPercent: 5 };
const CALLS = "export default async ({ upstream, path }, ctx) => (await ctx.call(upstream, { path })).status;";

/** Milliseconds of a goal of as many runs, each with a call that takes 20 ms or, with the path of stragglers, now and then a second. */
async function runOne(stage: Stage, upstream: string, path: string): Promise<{ doneMs: number; calls: number }> {
  const drover = stage.drover();
  await callsAt(stage);
  const tasks = Array.from({ length: TASKS }, (_, n) => ({
    key: `t${n}`,
    run: { function: "calls", input: { upstream, path: `${path}/q${n}` } },
  }));
  const startedAt = performance.now();
  const { id } = await newGoal(drover, { sealed: true, tasks });
  await untilEnded(drover, id, TASKS);
  const doneMs = performance.now() - startedAt;
  const calls = await callsAt(stage);
  const goal = await viewGoal(drover, id);
  if (goal.counts["succeeded"] !== TASKS) throw new Error(`the goal went wrong: ${JSON.stringify(goal)}`);
  return { doneMs, calls };
}

export async function calledStragglers(stage: Stage, rounds: number): Promise<Figure[]> {
  const drover = stage.drover();
  await api(drover, "PUT", "/v1/functions/calls", CALLS, "text/javascript");
  await declare(drover, "called-plain", { origin: stage.upstream });
  await declare(drover, "called-hedged", { origin: stage.upstream, hedge: HEDGE });
  const [straight, plain, hedged, extra]: number[][] = [[], [], [], []];
  for (let round = -1; round < rounds; round++) {
    const quick = await runOne(stage, "called-plain", "/d20");
    const slow = await runOne(stage, "called-plain", "/d20s1000");
    const twice = await runOne(stage, "called-hedged", "/d20s1000");
    if (round < 0) continue;
    straight!.push(quick.doneMs);
    plain!.push(slow.doneMs / quick.doneMs);
    hedged!.push(twice.doneMs / quick.doneMs);
    extra!.push((100 * (twice.calls - TASKS)) / TASKS);
  }
  return [
    figure("stragglers", `${TASKS} functions, a call of 20 ms each`, "ms", straight!),
    figure("stragglers", "… 1 % take 1 s, over the same without", "x", plain!),
    figure("stragglers", "… 1 % take 1 s, hedged, over the same without", "x", hedged!),
    figure("stragglers", "… calls beyond one each", "%", extra!, 6),
  ];
}
