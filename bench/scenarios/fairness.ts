/**
 * `fairness`: small goals that come while a herd of 5,000 tasks keeps the
 * upstream busy; beside them the same tasks behind the herd, in its own goal.
 * And three goals of different weights.
 */
import type { Drover } from "../../client/cli/server/child.ts";
import { api, bodyOf, declare, newGoal, submitGoal, type TaskView, untilEnded, viewTasks } from "../goals.ts";
import { type Figure, figure } from "../report.ts";
import type { Stage } from "../stage.ts";
import { medianOf, pause } from "../stats.ts";
import { type Upstream, withUpstream } from "../upstreams.ts";
import { pathsOf } from "../workload.ts";

const HERD = 5_000;
const SMALL = 20;
const DELAY_MS = 100;
const MAX_CONCURRENCY = 64;
/** The herd is under way before anybody else comes. */
const HEAD_START_MS = 1_000;
const SMALL_GOALS = 7;
const SMALL_GOALS_FAST = 3;
const BETWEEN_MS = 300;
const WEIGHTS = [1, 2, 4];
const SHARE_OFF_PERCENT = 10;

const sinceMs = (tasks: readonly TaskView[], submittedAtMs: number): number[] =>
  tasks.map(({ endedAt }) => Date.parse(endedAt!) - submittedAtMs);

async function startHerd(drover: Drover, upstream: Upstream): Promise<string> {
  await declare(drover, "shared", { origin: upstream.origin, maxConcurrency: MAX_CONCURRENCY });
  const { id } = await newGoal(drover);
  await api(drover, "POST", `/v1/goals/${id}/tasks`, bodyOf(pathsOf(HERD, DELAY_MS), "herd", "shared"));
  await pause(HEAD_START_MS);
  return id;
}

/** How long after its submission each task of small goals ended, one goal after the other. */
async function besideHerd(drover: Drover, upstream: Upstream, count: number): Promise<number[]> {
  const herd = await startHerd(drover, upstream);
  const all: number[] = [];
  for (let goal = 0; goal < count; goal++) {
    const submittedAtMs = Date.now();
    const { id } = await submitGoal(drover, "shared", pathsOf(SMALL, DELAY_MS));
    await untilEnded(drover, id, SMALL);
    all.push(...sinceMs(await viewTasks(drover, id), submittedAtMs));
    await pause(BETWEEN_MS);
  }
  await api(drover, "POST", `/v1/goals/${herd}/cancel`);
  return all;
}

async function behindHerd(drover: Drover, upstream: Upstream): Promise<number[]> {
  const id = await startHerd(drover, upstream);
  const submittedAtMs = Date.now();
  await api(drover, "POST", `/v1/goals/${id}/tasks`, bodyOf(pathsOf(SMALL, DELAY_MS), "small", "shared"));
  await api(drover, "POST", `/v1/goals/${id}/seal`);
  await untilEnded(drover, id, HERD + SMALL);
  return sinceMs((await viewTasks(drover, id)).slice(HERD), submittedAtMs);
}

/** Calls of each of the weighted goals that were answered while all three had a backlog. */
async function weighted(drover: Drover, upstream: Upstream, ms: number): Promise<{ calls: number[]; perSecond: number }> {
  const paths = pathsOf(HERD, DELAY_MS);
  const goals = await Promise.all(WEIGHTS.map((weight) => submitGoal(drover, "shared", paths, { weight })));
  // Whoever comes first has all of it until the others are there.
  await pause(HEAD_START_MS);
  await upstream.tell();
  await pause(ms);
  const window = await upstream.tell();
  await Promise.all(goals.map(({ id }) => api(drover, "POST", `/v1/goals/${id}/cancel`)));
  return { calls: goals.map(({ id }) => window.byGoal[id] ?? 0), perSecond: (window.answered * 1_000) / window.ms };
}

export function fairnessOf(isFast: boolean): (stage: Stage) => Promise<Figure[]> {
  return (stage) =>
    withUpstream(async (upstream) => {
      const drover = stage.drover();
      const small = await besideHerd(drover, upstream, isFast ? SMALL_GOALS_FAST : SMALL_GOALS);
      await pause(HEAD_START_MS);
      const behind = await behindHerd(drover, upstream);
      const { calls, perSecond } = await weighted(drover, upstream, 8_000);
      const sum = calls.reduce((a, b) => a + b, 0);
      const weights = WEIGHTS.reduce((a, b) => a + b, 0);
      const scenario = "fairness";
      return [
        figure(scenario, `tasks of a goal of ${SMALL} beside ${HERD}: ended`, "ms", small, 300),
        figure(scenario, "the same tasks behind them in one goal: ended", "ms", behind),
        figure(scenario, "behind / beside", "x", [medianOf(behind) / medianOf(small)], { least: 10 }),
        ...WEIGHTS.map((weight, i) => {
          const share = weight / weights;
          const offPercent = 100 * Math.abs(calls[i]! / sum / share - 1);
          return figure(scenario, `weight ${weight} of ${weights}: off its share`, "%", [offPercent], SHARE_OFF_PERCENT);
        }),
        figure(scenario, `three goals: calls a second, of ${(MAX_CONCURRENCY * 1_000) / DELAY_MS} that could be`, "/s", [perSecond]),
      ];
    });
}
