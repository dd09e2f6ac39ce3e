/** `goal`: 5,000 tasks to their end; beside it a bare Worker that makes the same calls at its best concurrency. */
import { putUpstream, runGoal } from "../goals.ts";
import { type Figure, figure } from "../report.ts";
import { directoryRows } from "../rows.ts";
import type { Stage } from "../stage.ts";
import { medianOf, timedMs } from "../stats.ts";
import { pathsOf } from "../workload.ts";

const TASKS = 5_000;
const LANES_TRIED = [16, 32, 64, 128];
/** Until both sides run compiled code; Drover has the more to compile. */
const WARM_UP = 6;

/** The concurrency at which the floor is fastest here and now. */
async function bestLanes(stage: Stage, paths: readonly string[]): Promise<number> {
  const times = new Map<number, number[]>(LANES_TRIED.map((lanes) => [lanes, []]));
  for (let round = 0; round < 4; round++) {
    for (const lanes of LANES_TRIED) times.get(lanes)!.push(await timedMs(() => stage.floor.fetchAll(paths, stage.upstream, lanes)));
  }
  return LANES_TRIED.toSorted((a, b) => medianOf(times.get(a)!) - medianOf(times.get(b)!))[0]!;
}

interface Variant {
  readonly name: string;
  readonly delayMs: number;
  readonly maxConcurrency: number | null;
  readonly target: number | null;
}

async function compare(stage: Stage, rounds: number, variant: Variant): Promise<Figure[]> {
  const { name, delayMs, maxConcurrency, target } = variant;
  const drover = stage.drover();
  const paths = pathsOf(TASKS, delayMs);
  await putUpstream(stage, maxConcurrency === null ? {} : { maxConcurrency });
  const lanes = maxConcurrency ?? (await bestLanes(stage, paths));
  const doneMs: number[] = [];
  const floorMs: number[] = [];
  const ratios: number[] = [];
  const rows: number[] = [];
  for (let round = -WARM_UP; round < rounds; round++) {
    const floorOnce = () => timedMs(() => stage.floor.fetchAll(paths, stage.upstream, lanes));
    const before = await floorOnce();
    const { doneMs: done, goal } = await runGoal(drover, paths, `${name}-${round}`);
    const floor = (before + (await floorOnce())) / 2;
    if (round < 0) continue;
    doneMs.push(done);
    floorMs.push(floor);
    ratios.push(done / floor);
    rows.push(goal.storage.rowsWritten + directoryRows(done));
  }
  return [
    figure("goal", `${name}: done`, "ms", doneMs),
    figure("goal", `${name}: floor, ${lanes} at a time`, "ms", floorMs),
    figure("goal", `${name}: done / floor`, "x", ratios, target),
    figure("goal", `${name}: rows written, in all objects`, "rows", rows, 400),
  ];
}

export async function goal(stage: Stage, rounds: number): Promise<Figure[]> {
  const fast = await compare(stage, rounds, { name: "0 ms", delayMs: 0, maxConcurrency: null, target: 1.4 });
  const declared = await compare(stage, rounds, { name: "20 ms, maxConcurrency 64", delayMs: 20, maxConcurrency: 64, target: null });
  return [...fast, ...declared];
}
