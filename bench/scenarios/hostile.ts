/**
 * `hostile`: what well-behaved functions notice of hostile ones beside them. A
 * goal of functions that wait 20 ms for an upstream, alone and beside a goal of
 * twelve kinds of hostile ones; each hostile task must fail by itself.
 */
import { api, declare, newGoal, untilEnded, viewGoal, viewTasks } from "../goals.ts";
import { type Figure, figure } from "../report.ts";
import { HOSTILE_BODIES } from "../sandbox/hostile.ts";
import type { Stage } from "../stage.ts";
import { medianOf, percentileOf } from "../stats.ts";
import { withUpstream } from "../upstreams.ts";
import type { Drover } from "../../client/cli/server/child.ts";

const TASKS = 1_000;
/** Of each kind. */
const HOSTILE = 5;
const TARGET = 2;
const GOOD = 'export default async ({ n }, ctx) => (await ctx.call("real", { path: `/d20/${n}` })).status + n;';

interface Neighbour {
  readonly p99Ms: number;
  readonly doneMs: number;
}

async function submitted(drover: Drover, tasks: readonly object[]): Promise<string> {
  const { id } = await newGoal(drover);
  await api(drover, "POST", `/v1/goals/${id}/tasks`, JSON.stringify({ tasks }));
  await api(drover, "POST", `/v1/goals/${id}/seal`);
  return id;
}

async function runGood(drover: Drover): Promise<Neighbour> {
  const startedAt = performance.now();
  const id = await submitted(
    drover,
    Array.from({ length: TASKS }, (_, n) => ({ key: `k${n}`, run: { function: "good", input: { n } } })),
  );
  await untilEnded(drover, id, TASKS);
  const doneMs = performance.now() - startedAt;
  const tasks = await viewTasks(drover, id);
  for (const { key, result } of tasks) {
    if (result?.body !== 200 + Number(key!.slice(1))) throw new Error(`the answer of ${key} is ${JSON.stringify(result)}`);
  }
  const tookMs = tasks.map(({ startedAt: from, endedAt }) => Date.parse(endedAt!) - Date.parse(from!));
  return { p99Ms: percentileOf(tookMs, 0.99), doneMs };
}

async function besideHostile(drover: Drover): Promise<Neighbour> {
  const kinds = HOSTILE_BODIES.map((_, kind) => kind);
  const tasks = kinds.flatMap((kind) =>
    Array.from({ length: HOSTILE }, () => ({ run: { function: `hostile-${kind}` }, retry: { maxAttempts: 1 } })),
  );
  const id = await submitted(drover, tasks);
  const good = await runGood(drover);
  await untilEnded(drover, id, tasks.length);
  const { counts } = await viewGoal(drover, id);
  if (counts["failed"] !== tasks.length) throw new Error(`a hostile task did not fail: ${JSON.stringify(counts)}`);
  return good;
}

export function hostile(stage: Stage, rounds: number): Promise<Figure[]> {
  return withUpstream(async ({ origin }) => {
    const drover = stage.drover();
    await declare(drover, "real", { origin, maxConcurrency: 64 });
    await api(drover, "PUT", "/v1/functions/good", GOOD, "text/javascript");
    for (const [kind, body] of HOSTILE_BODIES.entries()) {
      await api(drover, "PUT", `/v1/functions/hostile-${kind}`, `export default async (input, ctx) => { ${body} };`, "text/javascript");
    }
    const [alone, beside, ratio, slower]: number[][] = [[], [], [], []];
    for (let round = -1; round < rounds; round++) {
      const before = await runGood(drover);
      const among = await besideHostile(drover);
      const after = await runGood(drover);
      if (round < 0) continue;
      const p99Ms = medianOf([before.p99Ms, after.p99Ms]);
      alone!.push(p99Ms);
      beside!.push(among.p99Ms);
      ratio!.push(among.p99Ms / p99Ms);
      slower!.push((2 * among.doneMs) / (before.doneMs + after.doneMs));
    }
    return [
      figure("hostile", "1,000 functions, a call of 20 ms each: p99 of a run", "ms", alone!),
      figure("hostile", "… beside 60 hostile ones of twelve kinds, all failed", "ms", beside!),
      figure("hostile", "… so many times as long", "x", ratio!, TARGET),
      figure("hostile", "… and the goal takes so many times as long", "x", slower!),
    ];
  });
}
