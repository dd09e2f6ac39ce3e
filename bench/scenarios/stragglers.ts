/**
 * `stragglers`: calls of which one in a hundred takes a second. First, how long
 * after the last of them could have ended, as the upstream saw it start, the
 * goal is done. Then what hedging makes of it: the same goal without
 * stragglers, with them, and with them hedged, one after the other in each
 * round; and that nothing is hedged that must not be, or where the upstream has
 * enough to do.
 */
import type { Drover } from "../../client/cli/server/child.ts";
import { callsAt, declare, type GoalView, newGoal, putUpstream, runGoal, untilEnded, viewGoal, viewTasks } from "../goals.ts";
import { type Figure, figure } from "../report.ts";
import type { Stage } from "../stage.ts";
import { timedMs } from "../stats.ts";
import { pathsOf, pathsWithStragglers } from "../workload.ts";
import { calledStragglers } from "./called-stragglers.ts";
import { passedStragglers } from "./passed-stragglers.ts";

const TASKS = 5_000;
const EVERY = 100;
const USUAL_MS = 20;
const SLOW_MS = 1_000;
const WARM_UP = 2;
const HEDGE = { quantile: 0.95, budgetPercent: 5 };
/** Few permits, all of them wanted for most of the goal. */
const FULL = { tasks: 1_000, maxConcurrency: 16 };
const POSTS = 500;

interface Run {
  readonly doneMs: number;
  /** What the upstream saw beyond one call a task, in a hundred. */
  readonly extraPercent: number;
  readonly calls: number;
  readonly goal: GoalView;
}

/** One goal, with all its tasks in one request, from that request to its end. */
async function runOne(stage: Stage, drover: Drover, upstream: string, paths: readonly string[], method = "GET"): Promise<Run> {
  await callsAt(stage);
  const tasks = paths.map((path, n) => ({ key: `t${n}`, call: { upstream, method, path } }));
  const startedAt = performance.now();
  const { id } = await newGoal(drover, { sealed: true, tasks });
  await untilEnded(drover, id, paths.length);
  const doneMs = performance.now() - startedAt;
  const calls = await callsAt(stage);
  const goal = await viewGoal(drover, id);
  if (goal.counts["succeeded"] !== paths.length) throw new Error(`the goal went wrong: ${JSON.stringify(goal)}`);
  return { doneMs, calls, extraPercent: (100 * (calls - paths.length)) / paths.length, goal };
}

async function afterTheLast(stage: Stage, rounds: number): Promise<Figure[]> {
  const drover = stage.drover();
  const paths = pathsWithStragglers(TASKS, EVERY, SLOW_MS);
  await putUpstream(stage);
  const doneMs: number[] = [];
  const floorMs: number[] = [];
  const afterLastMs: number[] = [];
  const overFloorMs: number[] = [];
  for (let round = -WARM_UP; round < rounds; round++) {
    const floor = await timedMs(() => stage.floor.fetchAll(paths, stage.upstream, 64));
    await callsAt(stage);
    const run = await runGoal(drover, paths, `stragglers-${round}`);
    const { lastSlowAtMs } = (await (await fetch(`${stage.upstream}/stats`)).json()) as { lastSlowAtMs: number };
    if (round < 0) continue;
    doneMs.push(run.doneMs);
    floorMs.push(floor);
    afterLastMs.push(run.endedAtMs - (lastSlowAtMs + SLOW_MS));
    overFloorMs.push(run.doneMs - floor);
  }
  return [
    figure("stragglers", "done", "ms", doneMs),
    figure("stragglers", "floor, 64 at a time", "ms", floorMs),
    figure("stragglers", "done after the last straggler's second", "ms", afterLastMs, 500),
    figure("stragglers", "done after the floor's end", "ms", overFloorMs, 500),
  ];
}

async function hedged(stage: Stage, rounds: number): Promise<Figure[]> {
  const drover = stage.drover();
  const [quick, mixed] = [pathsOf(TASKS, USUAL_MS), pathsOf(TASKS, USUAL_MS).map((path) => path.replace("/q", `s${SLOW_MS}/q`))];
  for (const name of ["straight", "plain"]) await declare(drover, name, { origin: stage.upstream });
  await declare(drover, "hedged", { origin: stage.upstream, hedge: HEDGE });
  const rows: { readonly straight: Run; readonly plain: Run; readonly hedged: Run }[] = [];
  for (let round = -1; round < rounds; round++) {
    const straight = await runOne(stage, drover, "straight", quick);
    const plain = await runOne(stage, drover, "plain", mixed);
    const run = await runOne(stage, drover, "hedged", mixed);
    if (round >= 0) rows.push({ straight, plain, hedged: run });
  }
  const of = (pick: (row: (typeof rows)[number]) => number): number[] => rows.map(pick);
  const tail = ({ goal }: Run): number => goal.latency["p99Ms"]! / goal.latency["p50Ms"]!;
  return [
    figure(
      "stragglers",
      "20 ms a call, none slow: done",
      "ms",
      of((row) => row.straight.doneMs),
    ),
    figure(
      "stragglers",
      "1 % take 1 s, not hedged: done, times that",
      "x",
      of((row) => row.plain.doneMs / row.straight.doneMs),
    ),
    figure(
      "stragglers",
      "1 % take 1 s, hedged: done, times that",
      "x",
      of((row) => row.hedged.doneMs / row.straight.doneMs),
      1.3,
    ),
    figure(
      "stragglers",
      "hedged: calls beyond one a task",
      "%",
      of((row) => row.hedged.extraPercent),
      6,
    ),
    figure(
      "stragglers",
      "hedged: p99 of an attempt, times its p50",
      "x",
      of((row) => tail(row.hedged)),
      3,
    ),
    figure(
      "stragglers",
      "not hedged: p99 of an attempt, times its p50",
      "x",
      of((row) => tail(row.plain)),
    ),
  ];
}

async function neverTwice(stage: Stage, rounds: number): Promise<Figure[]> {
  const drover = stage.drover();
  await declare(drover, "full", { origin: stage.upstream, hedge: HEDGE, maxConcurrency: FULL.maxConcurrency });
  const twice: number[] = [];
  const whileFull: number[] = [];
  for (let round = 0; round < rounds; round++) {
    const posts = pathsOf(POSTS, USUAL_MS).map((path) => path.replace("/q", `s${SLOW_MS}/q`));
    twice.push((await runOne(stage, drover, "hedged", posts, "POST")).calls - POSTS);
    const full = await runOne(stage, drover, "full", posts.concat(posts).slice(0, FULL.tasks));
    const tasks = await viewTasks(drover, full.goal.id);
    const lastStartedAt = Math.max(...tasks.map(({ startedAt }) => Date.parse(startedAt!)));
    // From then on permits are free, and stragglers are run again.
    const hedged = tasks.filter(({ attempts }) => attempts.some(({ outcome }) => outcome === "beaten"));
    whileFull.push(hedged.filter(({ endedAt }) => Date.parse(endedAt!) <= lastStartedAt).length);
  }
  return [
    figure("stragglers", "POST, hedged upstream: calls made twice", "", twice, 0),
    figure("stragglers", "all permits wanted: tasks hedged while others waited", "", whileFull, 0),
  ];
}

export async function stragglers(stage: Stage, rounds: number): Promise<Figure[]> {
  return [
    ...(await afterTheLast(stage, rounds)),
    ...(await hedged(stage, rounds)),
    ...(await neverTwice(stage, rounds)),
    ...(await passedStragglers(stage, rounds)),
    ...(await calledStragglers(stage, rounds)),
  ];
}
