/**
 * `stragglers`: one task in a hundred takes a second. How long after the last
 * of them could have ended, as the upstream saw it start, is the goal done?
 */
import { putUpstream, runGoal } from "../goals.ts";
import { type Figure, figure } from "../report.ts";
import type { Stage } from "../stage.ts";
import { timedMs } from "../stats.ts";
import { pathsWithStragglers } from "../workload.ts";

const TASKS = 5_000;
const EVERY = 100;
const SLOW_MS = 1_000;
const WARM_UP = 2;

export async function stragglers(stage: Stage, rounds: number): Promise<Figure[]> {
  const drover = stage.drover();
  const paths = pathsWithStragglers(TASKS, EVERY, SLOW_MS);
  await putUpstream(stage);
  const doneMs: number[] = [];
  const floorMs: number[] = [];
  const afterLastMs: number[] = [];
  const overFloorMs: number[] = [];
  for (let round = -WARM_UP; round < rounds; round++) {
    const floor = await timedMs(() => stage.floor.fetchAll(paths, stage.upstream, 64));
    await fetch(`${stage.upstream}/stats`).then((response) => response.text());
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
