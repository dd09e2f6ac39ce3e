/**
 * `functions`: a goal of 5,000 tasks of a function of 97 KB, each awaiting one
 * call of 1 ms; beside it the pool alone, which makes the same runs with the
 * same calls in one isolate. Every answer of both is checked, and each says
 * whether it saw anything of another.
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
  if (counts["succeeded"] !== TASKS) throw new Error(`the goal went wrong: ${JSON.stringify(counts)}`);
  for (const { key, result } of await viewTasks(drover, id)) {
    if (!isRight(Number(key!.slice(1)), result!.body)) throw new Error(`the answer of ${key} is ${JSON.stringify(result)}`);
  }
  return { ackMs, doneMs };
}

/** Milliseconds of as many runs in the pool alone, with every answer right. */
async function runPool(alone: SandboxAlone, lanes: number, upstream: string): Promise<number> {
  const startedAt = performance.now();
  const answers = (await (await alone.ask("/pool", { version: "busy", n: TASKS, lanes, upstream })).json()) as unknown[];
  const tookMs = performance.now() - startedAt;
  const wrong = answers.findIndex((answer, i) => !isRight(i, answer));
  if (wrong >= 0) throw new Error(`the answer to ${wrong} is ${JSON.stringify(answers[wrong])}`);
  return tookMs;
}

export function functionsOf(isFast: boolean): (stage: Stage, rounds: number) => Promise<Figure[]> {
  return (stage, rounds) =>
    withUpstream(async ({ origin }) => {
      const drover = stage.drover();
      const bundle = await busyBundle();
      const sandbox = await bundleSandbox();
      const pool = await sandbox.start();
      await pool.ask("/build", { version: "busy" }, bundle);
      await declare(drover, "real", { origin, maxConcurrency: 256 });
      await api(drover, "PUT", "/v1/functions/busy", bundle, "text/javascript");
      const times = new Map<number, number[]>(LANES_TRIED.map((lanes) => [lanes, []]));
      for (let round = 0; round < (isFast ? 1 : 3); round++) {
        for (const lanes of LANES_TRIED) times.get(lanes)!.push(await runPool(pool, lanes, origin));
      }
      const lanes = LANES_TRIED.toSorted((a, b) => medianOf(times.get(a)!) - medianOf(times.get(b)!))[0]!;
      const [ackMs, doneMs, poolMs, ratios]: number[][] = [[], [], [], []];
      for (let round = -WARM_UP; round < rounds; round++) {
        const before = await runPool(pool, lanes, origin);
        const done = await runGoal(stage);
        const alone = (before + (await runPool(pool, lanes, origin))) / 2;
        if (round < 0) continue;
        ackMs!.push(done.ackMs);
        doneMs!.push(done.doneMs);
        poolMs!.push(alone);
        ratios!.push(done.doneMs / alone);
      }
      await pool.end();
      sandbox.end();
      return [
        figure("functions", "5,000 tasks of 97 KB, a call of 1 ms each: acknowledged", "ms", ackMs!),
        figure("functions", "… done, every answer right", "ms", doneMs!),
        figure("functions", `the pool alone, the same runs and calls, ${lanes} at a time`, "ms", poolMs!),
        figure("functions", "done / pool alone", "x", ratios!, TARGET),
      ];
    });
}
