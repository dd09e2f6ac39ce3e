/**
 * A tree of goals whose rights and budgets narrow on the way down: how it runs,
 * and how it stops when its root is canceled. By hand:
 *
 *   node test/e2e/subgoal-tree.ts --tree 10x10x50 --rounds 3 --cancels 4
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { type Drover, startDrover } from "../../client/cli/server/child.ts";
import type { GoalView } from "../../shared/protocol/goal.ts";
import { call, goalOf, send, tasksOf, type TaskView, until } from "./api.ts";
import { answerAfter, startUpstream } from "./upstream.ts";

export interface Shape {
  /** Goals in the root. */
  readonly goals: number;
  /** Goals in each of those. */
  readonly subgoals: number;
  /** Calls in each of those. */
  readonly calls: number;
}

export interface WithSubgoal extends TaskView {
  readonly subgoal?: { readonly goalId: string };
}

const RUN_MS_MAX = 300_000;

/** `3x4x10`: goals, sub-goals in each, calls in each of those. */
export function shapeFrom(text: string): Shape {
  const [goals, subgoals, calls] = text.split("x").map(Number);
  return { goals: goals!, subgoals: subgoals!, calls: calls! };
}

export const callsIn = ({ goals, subgoals, calls }: Shape): number => goals * subgoals * calls;
export const tasksIn = (shape: Shape): number => shape.goals * (1 + shape.subgoals) + callsIn(shape);

/** Each level is allowed less than the one above, and is given just what it needs. */
export function treeOf(name: string, shape: Shape): object {
  const { goals, subgoals, calls } = shape;
  const leaf = (a: number, b: number): object => ({
    goal: {
      budget: { tasks: calls, calls },
      policy: { paths: [`/${name}/${a}/${b}/*`] },
      tasks: Array.from({ length: calls }, (_, n) => ({ call: { upstream: "real", path: `/${name}/${a}/${b}/${n}` } })),
    },
  });
  const middle = (a: number): object => ({
    goal: {
      budget: { tasks: subgoals * (1 + calls), calls: subgoals * calls },
      policy: { methods: ["GET"] },
      tasks: Array.from({ length: subgoals }, (_, b) => leaf(a, b)),
    },
  });
  return {
    name,
    sealed: true,
    budget: { tasks: tasksIn(shape), calls: callsIn(shape) },
    policy: { upstreams: ["real"] },
    tasks: Array.from({ length: goals }, (_, a) => middle(a)),
  };
}

/** The sub-goals that a goal has opened. */
export async function subgoalsOf(drover: Drover, goalId: string): Promise<string[]> {
  const tasks = (await tasksOf(drover, goalId)) as WithSubgoal[];
  return tasks.flatMap(({ subgoal }) => (subgoal === undefined ? [] : [subgoal.goalId]));
}

/** All goals of the tree that exist, level by level. */
export async function levelsOf(drover: Drover, rootId: string): Promise<GoalView[][]> {
  const levels: GoalView[][] = [];
  for (let ids = [rootId]; ids.length > 0;) {
    const answers = await Promise.all(ids.map((id) => send(drover, "GET", `/v1/goals/${id}`)));
    const goals = answers.filter(({ status }) => status === 200).map(({ text }) => JSON.parse(text) as GoalView);
    levels.push(goals);
    ids = (await Promise.all(goals.map(({ id }) => subgoalsOf(drover, id)))).flat();
  }
  return levels.filter(({ length }) => length > 0);
}

/** Whether nothing is held back for work that may still cost something. */
export const hasReserved = ({ budget }: GoalView): boolean => Object.values(budget.reserved).some((amount) => amount !== 0);

async function runRound(name: string, shape: Shape, drover: Drover): Promise<object> {
  const startMs = performance.now();
  const { id } = await call<GoalView>(drover, "POST", "/v1/goals", treeOf(name, shape));
  const submitMs = Math.round(performance.now() - startMs);
  await until(`${name} has ended`, async () => (await goalOf(drover, id)).endedAt !== undefined, RUN_MS_MAX);
  const { status, counts } = await goalOf(drover, id);
  return { name, status, succeeded: counts.succeeded, submitMs, endedMs: Math.round(performance.now() - startMs) };
}

async function cancelRound(
  name: string,
  shape: Shape,
  drover: Drover,
  arrivals: readonly { path: string; atMs: number }[],
): Promise<object> {
  const own = () => arrivals.filter(({ path }) => path.startsWith(`/${name}/`));
  const { id } = await call<GoalView>(drover, "POST", "/v1/goals", treeOf(name, shape));
  await until("calls are on their way", () => own().length >= callsIn(shape) / 10, RUN_MS_MAX);
  const askedMs = performance.now();
  await call(drover, "POST", `/v1/goals/${id}/cancel`);
  const answeredMs = performance.now();
  const isOver = async (): Promise<boolean> => {
    const levels = await levelsOf(drover, id);
    // A leaf may have ended by itself before it was told.
    return levels.flat().every((goal) => goal.endedAt !== undefined && !hasReserved(goal));
  };
  await until("all is canceled, and nothing reserved", isOver);
  const overMs = performance.now() - answeredMs;
  const calls = own();
  const lastMs = Math.max(...calls.map(({ atMs }) => atMs)) - answeredMs;
  const late = calls.filter(({ atMs }) => atMs > answeredMs).length;
  const figures = { answerMs: answeredMs - askedMs, lastCallStartedMs: lastMs, seenOverMs: overMs };
  const rounded = Object.fromEntries(Object.entries(figures).map(([key, value]) => [key, Math.round(value)]));
  return { name, calls: calls.length, callsAfterAnswer: late, ...rounded };
}

async function main(): Promise<void> {
  const option = (value: string) => ({ type: "string", default: value }) as const;
  const { values } = parseArgs({
    options: { tree: option("10x10x50"), rounds: option("3"), cancels: option("1"), "upstream-ms": option("20") },
  });
  const shape = shapeFrom(values.tree);
  const dataDir = mkdtempSync(join(tmpdir(), "drover-tree-"));
  const arrivals: { path: string; atMs: number }[] = [];
  const answer = answerAfter(Number(values["upstream-ms"]));
  const upstream = await startUpstream((request, response, number) => {
    arrivals.push({ path: request.url!, atMs: performance.now() });
    answer(request, response, number);
  });
  const drover = await startDrover({ dataDir });
  try {
    await call(drover, "PUT", "/v1/upstreams/real", { origin: upstream.origin });
    for (let round = 0; round < Number(values.rounds); round++) {
      console.log(JSON.stringify(await runRound(`run-${round}`, shape, drover)));
      for (let cancel = 0; cancel < Number(values.cancels); cancel++) {
        console.log(JSON.stringify(await cancelRound(`stop-${round}-${cancel}`, shape, drover, arrivals)));
      }
    }
  } finally {
    await drover.stop();
    await upstream.close();
    rmSync(dataDir, { recursive: true, force: true });
  }
}

if (import.meta.main) await main();
