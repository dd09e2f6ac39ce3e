/** `origins`: a fast and a slow origin, and the slow one dies in the middle; beside it the fast one alone. */
import type { Drover } from "../../client/cli/server/child.ts";
import { declare, submitGoal, untilEnded, viewTasks } from "../goals.ts";
import { type Figure, figure } from "../report.ts";
import type { Stage } from "../stage.ts";
import { pause } from "../stats.ts";
import { type Upstream, withUpstream } from "../upstreams.ts";

const TASKS = 10_000;
const MAX_CONCURRENCY = 64;
/** Where the slow one dies. */
const MIDDLE_MS = 1_500;
const FAST_MS = 20;
const SLOW_MS = 200;
const PATHS = Array.from({ length: TASKS }, (_, n) => `/own/q?x=${n}`);

interface Run {
  readonly perSecond: number;
  /** From the death on. */
  readonly afterPerSecond: number;
  readonly failed: number;
  readonly attempts: number;
}

async function run(drover: Drover, name: string, origins: readonly Upstream[], slow: Upstream | null): Promise<Run> {
  await declare(drover, name, { origins: origins.map(({ origin }) => origin), maxConcurrency: MAX_CONCURRENCY });
  const startedAt = performance.now();
  const { id } = await submitGoal(drover, name, PATHS);
  const ended = untilEnded(drover, id, TASKS);
  for (const origin of origins) await origin.tell();
  await pause(MIDDLE_MS);
  const [before] = await Promise.all([origins[0]!.tell(), slow?.kill()]);
  const middleAt = performance.now();
  await ended;
  const endedAt = performance.now();
  const after = await origins[0]!.tell();
  const tasks = await viewTasks(drover, id);
  if (before.answered === 0) throw new Error("nothing was called before the middle");
  return {
    perSecond: (TASKS * 1_000) / (endedAt - startedAt),
    afterPerSecond: (after.answered * 1_000) / (endedAt - middleAt),
    failed: tasks.filter(({ status }) => status !== "succeeded").length,
    attempts: tasks.reduce((sum, { attempt }) => sum + attempt, 0),
  };
}

export async function origins(stage: Stage, rounds: number): Promise<Figure[]> {
  const drover = stage.drover();
  const alone: Run[] = [];
  const both: Run[] = [];
  for (let round = -1; round < rounds; round++) {
    await withUpstream((fast) =>
      withUpstream(async (slow) => {
        await Promise.all([fast.tell({ delayMs: FAST_MS }), slow.tell({ delayMs: SLOW_MS })]);
        const one = await run(drover, `alone-${round + 1}`, [fast], null);
        const two = await run(drover, `both-${round + 1}`, [fast, slow], slow);
        if (round < 0) return;
        alone.push(one);
        both.push(two);
      }),
    );
  }
  const ratios = (of: (run: Run) => number): number[] => both.map((two, i) => of(two) / of(alone[i]!));
  const name = "20 ms, and 200 ms that dies";
  const perSecond = (runs: readonly Run[]): number[] => runs.map((one) => one.perSecond);
  return [
    figure("origins", "20 ms alone: done", "/s", perSecond(alone)),
    figure("origins", `${name}: done`, "/s", perSecond(both)),
    figure(
      "origins",
      `${name}: of 20 ms alone`,
      "x",
      ratios((one) => one.perSecond),
      { least: 0.9 },
    ),
    figure(
      "origins",
      `${name}: after its death, of 20 ms alone`,
      "x",
      ratios((one) => one.afterPerSecond),
      { least: 0.9 },
    ),
    figure(
      "origins",
      `${name}: tasks that failed`,
      "",
      both.map(({ failed }) => failed),
      0,
    ),
    figure(
      "origins",
      `${name}: attempts that failed`,
      "",
      both.map(({ attempts }) => attempts - TASKS),
    ),
  ];
}
