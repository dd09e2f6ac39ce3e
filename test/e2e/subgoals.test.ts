/** Goals inside goals over HTTP: rights and budgets narrow on the way down, counts come up, and a cancel at the root stops everything. */
import { expect, test } from "vitest";
import { FUNDS_ASK_INTERVAL_MS } from "../../shared/limits.ts";
import type { GoalView } from "../../shared/protocol/goal.ts";
import { call, goalOf, problemIn, send, until } from "./api.ts";
import { useStage } from "./stage.ts";
import { type SubgoalFigures, subgoalCrashRun } from "./subgoal-crash-run.ts";
import { callsIn, hasReserved, levelsOf, shapeFrom, tasksIn, treeOf } from "./subgoal-tree.ts";
import { answerAfter } from "./upstream.ts";

/** By hand with all 10 goals of 10 sub-goals of 50 calls: DROVER_TREE=10x10x50. */
const SHAPE = shapeFrom(process.env["DROVER_TREE"] ?? "3x4x10");
const RUN_MS_MAX = 240_000;

const stage = useStage(answerAfter(20));

const make = (body: object): Promise<GoalView> => call(stage.drover, "POST", "/v1/goals", body);
const arrived = (prefix: string): string[] => stage.upstream.seen.map(({ path }) => path).filter((path) => path.startsWith(prefix));
const get = (path: string, count: number): object[] =>
  Array.from({ length: count }, (_, n) => ({ call: { upstream: "real", path: `${path}${n}` } }));

/** When this has run, whatever was under way to the upstream before it has arrived too. */
async function runAnother(name: string): Promise<void> {
  const { id } = await make({ sealed: true, tasks: get(`/${name}/`, 100) });
  await until(`${name} has ended`, async () => (await goalOf(stage.drover, id)).endedAt !== undefined);
}

test("a tree of goals runs within budgets and policies that narrow, and is counted at every level", { timeout: RUN_MS_MAX }, async () => {
  const { id } = await make(treeOf("run", SHAPE));
  await until("the root has ended", async () => (await goalOf(stage.drover, id)).endedAt !== undefined, RUN_MS_MAX);
  const levels = await levelsOf(stage.drover, id);
  expect(levels.map(({ length }) => length)).toEqual([1, SHAPE.goals, SHAPE.goals * SHAPE.subgoals]);
  const sizes = [tasksIn(SHAPE), SHAPE.subgoals * (1 + SHAPE.calls), SHAPE.calls];
  const costs = [callsIn(SHAPE), SHAPE.subgoals * SHAPE.calls, SHAPE.calls];
  levels.forEach((goals, level) => {
    const total = sizes[level];
    for (const goal of goals) {
      expect(goal).toMatchObject({ status: "succeeded", counts: { succeeded: total, total } });
      expect(goal.budget.spent).toMatchObject({ tasks: total, calls: costs[level] });
      expect(hasReserved(goal)).toBe(false);
    }
  });
  // It has the rights of all three levels, and nothing beyond them.
  expect(levels[2]![0]!.policies).toEqual([{ upstreams: ["real"] }, { methods: ["GET"] }, { paths: ["/run/0/0/*"] }]);
  const calls = arrived("/run/");
  expect([calls.length, new Set(calls).size]).toEqual([callsIn(SHAPE), callsIn(SHAPE)]);
});

test("a goal is refused as a whole where one far down wants what a goal above it may not do", async () => {
  const { drover } = stage;
  await call(drover, "PUT", "/v1/upstreams/other", { origin: stage.upstream.origin });
  const wider = { upstreams: ["real", "other"], methods: ["GET", "POST"] };
  const treeWith = (leaf: object): object => ({
    policy: { upstreams: ["real"], methods: ["GET"] },
    tasks: [{ goal: { tasks: [{ goal: { policy: wider, tasks: [...get("/wide/", 1), { call: leaf }] } }] } }],
  });
  for (const leaf of [
    { upstream: "other", path: "/wide/other" },
    { upstream: "real", method: "POST", path: "/wide/post" },
  ]) {
    const refused = problemIn(await send(drover, "POST", "/v1/goals", JSON.stringify(treeWith(leaf))));
    expect(refused.errors!.map(({ pointer }) => pointer)).toEqual([expect.stringContaining("/tasks/0/goal/tasks/0/goal/tasks/1")]);
    // The same in a sub-goal that exists.
    const root = await make({ policy: { upstreams: ["real"], methods: ["GET"] } });
    const child = await make({ parentGoalId: root.id, policy: wider });
    const later = await send(drover, "POST", `/v1/goals/${child.id}/tasks?atomic=true`, JSON.stringify({ tasks: [{ call: leaf }] }));
    expect(problemIn(later).status).toBeGreaterThanOrEqual(400);
    expect((await goalOf(drover, child.id)).counts.total).toBe(0);
  }
  await runAnother("after-wide");
  expect(arrived("/wide/")).toEqual([]);
});

test("a sub-goal gets no call more than the goal above was given, until that one is given more", async () => {
  const { drover } = stage;
  const root = await make({ budget: { calls: 50 } });
  const middle = await make({ parentGoalId: root.id, budget: { calls: 3 } });
  const leaf = await make({ parentGoalId: middle.id, budget: { calls: 100 } });
  await call(drover, "POST", `/v1/goals/${leaf.id}/tasks`, { tasks: get("/poor/", 10) });
  await until("the sub-goal rests", async () => (await goalOf(drover, leaf.id)).status === "paused");
  // More for those whom it does not lack helps nothing.
  await call(drover, "POST", `/v1/goals/${root.id}/budget/topups`, { calls: 50 });
  await call(drover, "POST", `/v1/goals/${leaf.id}/budget/topups`, { calls: 50 });
  await runAnother("meanwhile");
  expect(arrived("/poor/")).toHaveLength(3);
  await call(drover, "POST", `/v1/goals/${middle.id}/budget/topups`, { calls: 7 });
  // Long before one that heard nothing of it would ask again.
  await until("the rest is done", async () => (await goalOf(drover, leaf.id)).counts.succeeded === 10, FUNDS_ASK_INTERVAL_MS / 2);
  expect(arrived("/poor/")).toHaveLength(10);
  await until("the root has heard", async () => (await goalOf(drover, root.id)).budget.spent["calls"] === 10);
});

test("a cancel at the root ends every goal below it, and no call comes after that", { timeout: RUN_MS_MAX }, async () => {
  const { drover, upstream } = stage;
  const { id } = await make(treeOf("stop", SHAPE));
  await upstream.reached(upstream.seen.length + Math.ceil(callsIn(SHAPE) / 10));
  await call(drover, "POST", `/v1/goals/${id}/cancel`);
  const atAnswer = arrived("/stop/").length;
  await until("every goal has ended, and holds nothing back", async () => {
    const goals = (await levelsOf(drover, id)).flat();
    // A leaf may have been done before.
    return goals.every((goal) => ["canceled", "succeeded"].includes(goal.status) && !hasReserved(goal));
  });
  expect((await goalOf(drover, id)).status).toBe("canceled");
  await runAnother("after-stop");
  const before = arrived("/stop/").length;
  // Executors know it before the goals below do. Calls would go on for many turns otherwise; a few may cross the answer.
  expect(before - atAnswer).toBeLessThan(2 * SHAPE.goals);
  expect(before).toBeLessThan(callsIn(SHAPE));
  await runAnother("long-after-stop");
  expect(arrived("/stop/")).toHaveLength(before);
  const root = await goalOf(drover, id);
  expect(root.counts.succeeded + root.counts.canceled).toBe(root.counts.total);
  // A call whose outcome nobody knows any more counts as made; nothing else does.
  expect(root.budget.spent["calls"]).toBeGreaterThanOrEqual(root.counts.succeeded);
  expect(root.budget.spent["calls"]).toBeLessThan(callsIn(SHAPE));
});

test(
  "a kill between the intent and the making of a sub-goal leaves neither an orphan nor a second one",
  { timeout: RUN_MS_MAX },
  async () => {
    const all: SubgoalFigures[] = [];
    await subgoalCrashRun({ kills: 2, subgoals: 40, tasks: 3, windowMs: 60, seed: 3 }, (figures) => all.push(figures));
    expect(all.flatMap(({ faults }) => faults)).toEqual([]);
    // A kill before the first intent, or after the last sub-goal was there, would show nothing.
    expect(all.some(({ intents, made }) => intents > 0 && made < 40)).toBe(true);
  },
);
