/**
 * Sends thousands of tasks at once, calls or functions that make one each,
 * against a budget for fewer calls, kills the server in the middle of some of
 * the runs, and counts at the upstream. Then a top-up, sent again and again
 * under one key, lets the rest be done. By hand:
 *
 *   node test/e2e/budget-run.ts --runs 20 --kills 5
 *   node test/e2e/budget-run.ts --runs 10 --kills 5 --kind functions --tasks 500 --calls 123
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { type Drover, startDrover } from "../../client/cli/server/child.ts";
import { chance } from "../../shared/policy/backoff.ts";
import type { BudgetView } from "../../shared/protocol/budget.ts";
import { call, goalOf, putFunction, type Receipts, send, until } from "./api.ts";
import { answerAfter, startUpstream, type Upstream } from "./upstream.ts";
import { report } from "./rounds.ts";

const KINDS = ["calls", "functions"] as const;

export interface BudgetOptions {
  /** Who makes the calls. */
  readonly kind: (typeof KINDS)[number];
  readonly runs: number;
  /** Runs with a SIGKILL in the middle. */
  readonly kills: number;
  readonly tasks: number;
  /** What the budget allows. */
  readonly calls: number;
  readonly seed: number;
}

/** What one run did, as seen from outside. */
export interface Run {
  readonly isKilled: boolean;
  /** Calls that the upstream counted when the goal rested, and in all. */
  readonly paused: number;
  readonly total: number;
  readonly restedMs: number;
  readonly doneMs: number;
  /** Sentences about what should not be. */
  readonly faults: readonly string[];
}

const CONCURRENCY = 64;
const UPSTREAM_MS = 5;
const TOP_UPS = 50;

interface Stage {
  readonly dataDir: string;
  readonly upstream: Upstream;
  drover: Drover;
}

const FUNCTION = `export default async (path, ctx) => (await ctx.call("counted", { path })).status;`;

function taskOf({ kind }: BudgetOptions, path: string): object {
  return kind === "calls" ? { call: { upstream: "counted", path } } : { run: { function: "calls-once", input: path } };
}

const seenOf = ({ upstream }: Stage, goalId: string): number => upstream.seen.filter(({ path }) => path.startsWith(`/${goalId}/`)).length;

async function restart(stage: Stage): Promise<void> {
  await stage.drover.kill("all");
  const port = Number(new URL(stage.drover.url).port);
  stage.drover = await startDrover({ dataDir: stage.dataDir, port, onStderr: () => undefined });
}

/** The same top-up many times at once: it must be added once. */
async function topUp({ drover }: Stage, goalId: string, calls: number, faults: string[]): Promise<void> {
  const path = `/v1/goals/${goalId}/budget/topups`;
  const before = await call<BudgetView>(drover, "GET", `/v1/goals/${goalId}/budget`);
  const body = JSON.stringify({ calls });
  const answers = await Promise.all(Array.from({ length: TOP_UPS }, () => send(drover, "POST", path, body, { "idempotency-key": "more" })));
  const after = await call<BudgetView>(drover, "GET", `/v1/goals/${goalId}/budget`);
  if (answers.some(({ status }) => status !== 200)) faults.push("a top-up was refused");
  if (new Set(answers.map(({ text }) => text)).size !== 1) faults.push("equal top-ups were answered differently");
  if (after.limit.calls !== before.limit.calls! + calls)
    faults.push(`the limit is ${after.limit.calls}, not ${before.limit.calls! + calls}`);
}

async function runOnce(stage: Stage, options: BudgetOptions, round: number, isKilled: boolean): Promise<Run> {
  const { tasks, calls, seed } = options;
  const faults: string[] = [];
  const { id } = await call<{ id: string }>(stage.drover, "POST", "/v1/goals", { name: `budget ${round}`, budget: { calls } });
  const specs = Array.from({ length: tasks }, (_, n) => taskOf(options, `/${id}/${n}`));
  const before = stage.upstream.seen.length;
  const startedAt = performance.now();
  const { accepted } = await call<Receipts>(stage.drover, "POST", `/v1/goals/${id}/tasks`, { tasks: specs });
  if (accepted !== tasks) faults.push(`${accepted} of ${tasks} tasks were accepted`);
  if (isKilled) {
    await stage.upstream.reached(before + Math.floor(chance(seed, round, 1) * calls * 0.9));
    await restart(stage);
  }
  await until(`${id} rests`, async () => (await goalOf(stage.drover, id)).status === "paused", 60_000);
  const restedMs = Math.round(performance.now() - startedAt);
  const paused = seenOf(stage, id);
  if (paused > calls || (!isKilled && paused < calls)) faults.push(`${paused} calls were made of ${calls}`);
  const resting = await goalOf(stage.drover, id);
  if (resting.budget.spent.calls !== calls || resting.budget.reserved.calls !== 0) {
    faults.push(`${resting.budget.spent.calls} calls are charged and ${resting.budget.reserved.calls} reserved of ${calls}`);
  }
  // What was lost with the server was charged, and is done again.
  await topUp(stage, id, tasks - resting.counts.succeeded, faults);
  await call(stage.drover, "POST", `/v1/goals/${id}/seal`);
  await until(`${id} is done`, async () => (await goalOf(stage.drover, id)).status === "succeeded", 60_000);
  const doneMs = Math.round(performance.now() - startedAt);
  // What gates have laid in they give back a moment later; one that was killed with the server cannot.
  if (!isKilled) await until(`${id} is settled`, async () => (await goalOf(stage.drover, id)).budget.reserved.calls === 0, 60_000);
  const { counts, budget } = await goalOf(stage.drover, id);
  const total = seenOf(stage, id);
  if (counts.succeeded !== tasks) faults.push(`${counts.succeeded} of ${tasks} tasks have succeeded`);
  if (total > budget.spent.calls! || (!isKilled && total !== tasks))
    faults.push(`${total} calls were made and ${budget.spent.calls} charged`);
  if (!isKilled && budget.reserved.calls !== 0) faults.push(`${budget.reserved.calls} calls are reserved after the end`);
  return { isKilled, paused, total, restedMs, doneMs, faults };
}

/** Does all runs on one server, telling of each; throws only where a run itself breaks. */
export async function budgetRun(options: BudgetOptions, tell: (run: Run, round: number) => void): Promise<void> {
  const dataDir = mkdtempSync(join(tmpdir(), "drover-budget-"));
  const upstream = await startUpstream(answerAfter(UPSTREAM_MS));
  const stage: Stage = { dataDir, upstream, drover: await startDrover({ dataDir, onStderr: () => undefined }) };
  try {
    await call(stage.drover, "PUT", "/v1/upstreams/counted", { origin: upstream.origin, maxConcurrency: CONCURRENCY });
    if (options.kind === "functions") await putFunction(stage.drover, "calls-once", FUNCTION);
    const every = options.kills === 0 ? Number.POSITIVE_INFINITY : Math.floor(options.runs / options.kills);
    for (let round = 0; round < options.runs; round++) {
      const isKilled = (round + 1) % every === 0 && Math.floor((round + 1) / every) <= options.kills;
      tell(await runOnce(stage, options, round, isKilled), round);
    }
  } finally {
    await stage.drover.stop();
    await upstream.close();
    rmSync(dataDir, { recursive: true, force: true });
  }
}

async function main(): Promise<void> {
  const option = (value: string) => ({ type: "string", default: value }) as const;
  const { values } = parseArgs({
    options: {
      kind: option("calls"),
      runs: option("20"),
      kills: option("5"),
      tasks: option("5000"),
      calls: option("1234"),
      seed: option("1"),
    },
  });
  const number = (name: keyof typeof values): number => Number(values[name]);
  const kind = KINDS.find((each) => each === values.kind);
  if (kind === undefined) throw new Error(`--kind is one of ${KINDS.join(", ")}`);
  const options = {
    kind,
    runs: number("runs"),
    kills: number("kills"),
    tasks: number("tasks"),
    calls: number("calls"),
    seed: number("seed"),
  };
  await report(options, budgetRun);
}

if (import.meta.main) await main();
