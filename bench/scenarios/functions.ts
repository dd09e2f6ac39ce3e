/**
 * `functions`: a goal of 5,000 tasks of a function of 97 KB, each awaiting one
 * call of 1 ms; beside it the pool alone, which makes the same runs with the
 * same calls in one isolate, and in one for each executor of Drover. Every
 * answer of both is checked, and each says whether it saw anything of another.
 */
import { api, declare, newGoal, untilEnded, viewGoal, viewTasks } from "../goals.ts";
import { type Figure, figure } from "../report.ts";
import { busyBundle, isRight } from "../sandbox/bundles.ts";
import { bundleSandbox, type SandboxAlone } from "../sandbox/host.ts";
import type { Stage } from "../stage.ts";
import { medianOf } from "../stats.ts";
import { withUpstream } from "../upstreams.ts";

const TASKS = 5_000;
const LANES_TRIED = [16, 24, 32, 48];
/** Until both sides run compiled code. */
const WARM_UP = 2;
const TARGET = 1.5;

interface Done {
  readonly ackMs: number;
  readonly doneMs: number;
}

/** A goal from its submission to its end, with every answer right. */
async function runGoal(stage: Stage): Promise<Done> {
  const drover = stage.drover();
  const { id } = await newGoal(drover);
  const tasks = Array.from({ length: TASKS }, (_, n) => ({ key: `k${n}`, run: { function: "busy", input: { n } } }));
  const body = JSON.stringify({ tasks });
  const startedAt = performance.now();
  await api(drover, "POST", `/v1/goals/${id}/tasks`, body);
  const ackMs = performance.now() - startedAt;
  const ended = untilEnded(drover, id, TASKS);
  await api(drover, "POST", `/v1/goals/${id}/seal`);
  await ended;
  const doneMs = performance.now() - startedAt;
  const { counts } = await viewGoal(drover, id);
  for (const { key, result, problem } of await viewTasks(drover, id)) {
    if (problem !== undefined) throw new Error(`the goal went wrong: ${JSON.stringify(counts)}, as ${key} with ${JSON.stringify(problem)}`);
    if (!isRight(Number(key!.slice(1)), result!.body)) throw new Error(`the answer of ${key} is ${JSON.stringify(result)}`);
  }
  return { ackMs, doneMs };
}

/** Milliseconds of as many runs in the pool alone, shared out over such processes, with every answer right. */
async function runPool(pools: readonly SandboxAlone[], lanes: number, upstream: string): Promise<number> {
  const n = Math.ceil(TASKS / pools.length);
  const startedAt = performance.now();
  const all = await Promise.all(pools.map(async (pool) => (await pool.ask("/pool", { version: "busy", n, lanes, upstream })).json()));
  const tookMs = performance.now() - startedAt;
  for (const answers of all as unknown[][]) {
    const wrong = answers.findIndex((answer, i) => !isRight(i, answer));
    if (wrong >= 0) throw new Error(`the answer to ${wrong} is ${JSON.stringify(answers[wrong])}`);
  }
  return tookMs;
}

/** The number of lanes with which the pool alone is fastest. */
async function bestLanes(alone: SandboxAlone, upstream: string, rounds: number): Promise<number> {
  const times = new Map<number, number[]>(LANES_TRIED.map((lanes) => [lanes, []]));
  for (let round = 0; round < rounds; round++) {
    for (const lanes of LANES_TRIED) times.get(lanes)!.push(await runPool([alone], lanes, upstream));
  }
  return LANES_TRIED.toSorted((a, b) => medianOf(times.get(a)!) - medianOf(times.get(b)!))[0]!;
}

async function compare(stage: Stage, pools: readonly SandboxAlone[], origin: string, rounds: number, isFast: boolean): Promise<Figure[]> {
  const alone = pools.slice(0, 1);
  const lanes = await bestLanes(alone[0]!, origin, isFast ? 1 : 3);
  const [ackMs, doneMs, poolMs, ratios, splitRatios]: number[][] = [[], [], [], [], []];
  for (let round = -WARM_UP; round < rounds; round++) {
    const before = await runPool(alone, lanes, origin);
    const done = await runGoal(stage);
    const poolAlone = (before + (await runPool(alone, lanes, origin))) / 2;
    const split = await runPool(pools, lanes, origin);
    if (round < 0) continue;
    ackMs!.push(done.ackMs);
    doneMs!.push(done.doneMs);
    poolMs!.push(poolAlone);
    ratios!.push(done.doneMs / poolAlone);
    splitRatios!.push(done.doneMs / split);
  }
  return [
    figure("functions", "5,000 tasks of 97 KB, a call of 1 ms each: acknowledged", "ms", ackMs!),
    figure("functions", "… done, every answer right", "ms", doneMs!),
    figure("functions", `the pool alone, the same runs and calls, ${lanes} at a time`, "ms", poolMs!),
    figure("functions", "done / pool alone, in one process", "x", ratios!, TARGET),
    ...(pools.length > 1
      ? [figure("functions", `done / pool alone, in ${pools.length} processes as Drover's executors`, "x", splitRatios!)]
      : []),
  ];
}

export function functionsOf(isFast: boolean): (stage: Stage, rounds: number) => Promise<Figure[]> {
  return (stage, rounds) =>
    withUpstream(async ({ origin }) => {
      const bundle = await busyBundle();
      await declare(stage.drover(), "real", { origin, maxConcurrency: 256 });
      await api(stage.drover(), "PUT", "/v1/functions/busy", bundle, "text/javascript");
      const sandbox = await bundleSandbox();
      // One, and as many as Drover has for its executors.
      const processes = Math.max(1, stage.drover().executorPids().length);
      const pools = await Promise.all(Array.from({ length: processes }, () => sandbox.start()));
      try {
        for (const pool of pools) await pool.ask("/build", { version: "busy" }, bundle);
        return await compare(stage, pools, origin, rounds, isFast);
      } finally {
        for (const pool of pools) await pool.end();
        sandbox.end();
      }
    });
}
