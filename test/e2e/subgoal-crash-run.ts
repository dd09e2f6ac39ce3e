/**
 * Kills a server while a goal opens its sub-goals, and checks from outside that
 * each intent became exactly one goal, which ran once. By hand:
 *
 *   node test/e2e/subgoal-crash-run.ts --kills 10 --subgoals 40 --tasks 20 --window 150 --seed 1
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { type Drover, startDrover } from "../../client/cli/server/child.ts";
import { chance } from "../../shared/policy/backoff.ts";
import type { GoalView } from "../../shared/protocol/goal.ts";
import { call, goalOf, type Page, tasksOf, type TaskView, until } from "./api.ts";
import { answerAfter, startUpstream } from "./upstream.ts";
import { report } from "./rounds.ts";

export interface SubgoalCrashOptions {
  readonly kills: number;
  readonly subgoals: number;
  /** Calls in each sub-goal. */
  readonly tasks: number;
  /** The server is killed at most so long after the goal was taken. */
  readonly windowMs: number;
  readonly seed: number;
}

/** What one kill did, as seen from outside. */
export interface SubgoalFigures {
  readonly afterMs: number;
  /** Intents that were durable when the server was killed, and sub-goals that had been made for them. */
  readonly intents: number;
  readonly made: number;
  readonly repeated: number;
  readonly doneMs: number;
  /** Sentences about what should not be. */
  readonly faults: readonly string[];
}

const UPSTREAM_MS = 20;

interface WithSubgoal extends TaskView {
  readonly startedAt?: string;
  readonly subgoal?: { readonly goalId: string };
}

interface Listed {
  readonly id: string;
  readonly name: string;
  readonly status: string;
  readonly createdAt: string;
}

const countBefore = (times: readonly (string | undefined)[], atMs: number): number =>
  times.filter((time) => time !== undefined && Date.parse(time) <= atMs).length;

function bodyOf(name: string, { subgoals, tasks }: SubgoalCrashOptions): object {
  const calls = (s: number): object[] =>
    Array.from({ length: tasks }, (_, n) => ({ call: { upstream: "real", path: `/${name}/${s}/${n}` } }));
  return { name, sealed: true, tasks: Array.from({ length: subgoals }, (_, s) => ({ goal: { name: `${name}/${s}`, tasks: calls(s) } })) };
}

/** The names of all goals that the tenant knows: a second goal for one intent, or one that nobody waits for, would be among them. */
async function named(drover: Drover, prefix: string): Promise<Listed[]> {
  const found: Listed[] = [];
  for (let cursor: string | null = ""; cursor !== null;) {
    const page: Page<Listed> = await call(drover, "GET", `/v1/goals?limit=1000${cursor === "" ? "" : `&cursor=${cursor}`}`);
    found.push(...page.items.filter(({ name }) => name.startsWith(prefix)));
    cursor = page.nextCursor;
  }
  return found;
}

async function examine(drover: Drover, name: string, root: GoalView, { subgoals, tasks }: SubgoalCrashOptions): Promise<string[]> {
  const faults: string[] = [];
  if (root.status !== "succeeded") faults.push(`the root ended as ${root.status}`);
  const wanted = subgoals * (1 + tasks);
  if (root.counts.succeeded !== wanted || root.counts.total !== wanted) faults.push(`the root counts ${JSON.stringify(root.counts)}`);
  const intents = new Set(((await tasksOf(drover, root.id)) as WithSubgoal[]).map(({ subgoal }) => subgoal?.goalId));
  if (intents.size !== subgoals) faults.push(`${subgoals} tasks have ${intents.size} sub-goals`);
  const goals = await named(drover, `${name}/`);
  for (const { id, status } of goals) {
    if (!intents.has(id)) faults.push(`${id} belongs to no intent`);
    if (status !== "succeeded") faults.push(`${id} ended as ${status}`);
  }
  if (goals.length !== subgoals) faults.push(`there are ${goals.length} sub-goals for ${subgoals} intents`);
  return faults;
}

/** Runs all kills, telling of each; throws only where the run itself breaks. */
export async function subgoalCrashRun(options: SubgoalCrashOptions, tell: (figures: SubgoalFigures, round: number) => void): Promise<void> {
  const dataDir = mkdtempSync(join(tmpdir(), "drover-subgoals-"));
  const upstream = await startUpstream(answerAfter(UPSTREAM_MS));
  let drover = await startDrover({ dataDir, onStderr: () => undefined });
  try {
    await call(drover, "PUT", "/v1/upstreams/real", { origin: upstream.origin });
    for (let round = 0; round < options.kills; round++) {
      const name = `kill-${round}`;
      const root = await call<GoalView>(drover, "POST", "/v1/goals", bodyOf(name, options));
      const afterMs = Math.round(chance(options.seed, round, 1) * options.windowMs);
      await sleep(afterMs);
      const killedAtMs = Date.now();
      await drover.kill("all");
      const own = (): string[] => upstream.seen.map(({ path }) => path).filter((path) => path.startsWith(`/${name}/`));
      const port = Number(new URL(drover.url).port);
      drover = await startDrover({ dataDir, port, onStderr: () => undefined });
      const readyAt = performance.now();
      await until(`${name} has ended`, async () => (await goalOf(drover, root.id)).endedAt !== undefined, 120_000);
      const doneMs = Math.round(performance.now() - readyAt);
      // The last ends may still be on their way to the directory.
      await until(`the directory knows the ends`, async () => (await named(drover, `${name}/`)).every(({ status }) => status !== "active"));
      const faults = await examine(drover, name, await goalOf(drover, root.id), options);
      const repeated = own().length - new Set(own()).size;
      if (new Set(own()).size !== options.subgoals * options.tasks) faults.push(`the upstream saw ${new Set(own()).size} different calls`);
      const tasks = (await tasksOf(drover, root.id)) as WithSubgoal[];
      const intents = countBefore(
        tasks.map(({ startedAt }) => startedAt),
        killedAtMs,
      );
      const made = countBefore(
        (await named(drover, `${name}/`)).map(({ createdAt }) => createdAt),
        killedAtMs,
      );
      tell({ afterMs, intents, made, repeated, doneMs, faults }, round);
    }
  } finally {
    await drover.stop();
    await upstream.close();
    rmSync(dataDir, { recursive: true, force: true });
  }
}

async function main(): Promise<void> {
  const option = (value: string) => ({ type: "string", default: value }) as const;
  const { values } = parseArgs({
    options: { kills: option("10"), subgoals: option("40"), tasks: option("20"), window: option("150"), seed: option("1") },
  });
  const options = {
    kills: Number(values.kills),
    subgoals: Number(values.subgoals),
    tasks: Number(values.tasks),
    windowMs: Number(values.window),
    seed: Number(values.seed),
  };
  await report(options, subgoalCrashRun);
}

if (import.meta.main) await main();
