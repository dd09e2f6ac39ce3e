/** Goals inside goals when messages between them get lost or come twice, and when either object goes. */
import { abortAllDurableObjects } from "cloudflare:test";
import { afterEach, expect, test, vi } from "vitest";
import { Goal } from "../../durable-objects/goal/object.ts";
import type { GoalView } from "../../shared/protocol/goal.ts";
import { call } from "./edge-kit.ts";
import { countsOf } from "./executor-kit.ts";
import { get, goalOf, good, post, register, tasksOf, type TaskView, until } from "./goal-kit.ts";

vi.spyOn(console, "error").mockImplementation(() => undefined);
vi.spyOn(console, "warn").mockImplementation(() => undefined);

const SUBGOALS = 3;
const CALLS = 4;

interface WithSubgoal extends TaskView {
  readonly subgoal?: { readonly goalId: string };
}

let restore = (): void => undefined;
afterEach(() => restore());

/** Comes between a goal and those that call it: `fault` gets the number of the call, from 1, and the call as it would have been. */
function between<M extends "obey" | "hear">(
  method: M,
  fault: (number: number, pass: () => ReturnType<Goal[M]>) => ReturnType<Goal[M]>,
): () => number {
  const original = Goal.prototype[method] as (...args: unknown[]) => ReturnType<Goal[M]>;
  let number = 0;
  const spy = vi.spyOn(Goal.prototype, method as "hear").mockImplementation(function (this: Goal, ...args: unknown[]) {
    return fault(++number, () => original.apply(this, args)) as ReturnType<Goal["hear"]>;
  });
  restore = () => spy.mockRestore();
  return () => number;
}

const lost = (): never => {
  throw new Error("the message was lost");
};

async function start(name: string, delayMs = 0): Promise<string> {
  await register("real");
  const calls = Array.from({ length: CALLS }, () => ({ call: { upstream: "real", path: `/delay/${delayMs}?name=${name}` } }));
  const tasks = Array.from({ length: SUBGOALS }, (_, n) => ({ goal: { name: `${name}-${n}`, tasks: calls } }));
  return (await good<GoalView>(post("/v1/goals", { name, sealed: true, tasks }))).id;
}

/** All is done, and there is one goal for each intent, which ran once. */
async function expectOnce(id: string, name: string): Promise<void> {
  await until("the goal has ended", async () => (await goalOf(id)).endedAt !== undefined);
  const total = SUBGOALS * (1 + CALLS);
  expect(await goalOf(id)).toMatchObject({ status: "succeeded", counts: { succeeded: total, total } });
  const intents = ((await tasksOf(id)) as WithSubgoal[]).map(({ subgoal }) => subgoal?.goalId);
  const { items } = await get<{ items: { id: string; name: string }[] }>("/v1/goals?limit=1000");
  const goals = items.filter((goal) => goal.name.startsWith(`${name}-`));
  expect(new Set(goals.map((goal) => goal.id))).toEqual(new Set(intents));
  expect(goals).toHaveLength(SUBGOALS);
}

test("an order that is lost, or whose answer is, makes its sub-goal once", async () => {
  const sent = between("obey", async (number, pass) => {
    if (number <= SUBGOALS) return lost();
    const answer = await pass();
    return number <= 2 * SUBGOALS ? lost() : answer;
  });
  const id = await start("lost-order");
  await expectOnce(id, "lost-order");
  expect((await countsOf("lost-order")).total).toBe(SUBGOALS * CALLS);
  expect(sent()).toBeGreaterThan(2 * SUBGOALS - 1);
});

test("a report that is lost, or comes twice, counts once", async () => {
  const heard = between("hear", async (number, pass) => {
    if (number <= SUBGOALS) return lost();
    await pass();
    return pass();
  });
  const id = await start("lost-report");
  await expectOnce(id, "lost-report");
  expect(heard()).toBeGreaterThan(SUBGOALS);
});

test("a goal that is aborted between an intent and the making of its goal makes it when it is back", async () => {
  let isBack = false;
  const sent = between("obey", (_number, pass) => (isBack ? pass() : new Promise(() => undefined)));
  const id = await start("aborted-above");
  await until("an order is under way", () => sent() > 0);
  isBack = true;
  await abortAllDurableObjects();
  // The upstream alone tells that work goes on: nobody asks.
  await until("all were called", async () => (await countsOf("aborted-above")).total === SUBGOALS * CALLS);
  await expectOnce(id, "aborted-above");
});

test("sub-goals that are aborted in the middle of their work go on, and end their tasks once", async () => {
  const id = await start("aborted-below", 200);
  await until("calls are open", async () => (await countsOf("aborted-below")).total > 0);
  await abortAllDurableObjects();
  await until("all were called", async () => (await countsOf("aborted-below")).total >= SUBGOALS * CALLS);
  await expectOnce(id, "aborted-below");
});

test("a sub-goal whose making is overtaken by a cancel ends as canceled, though it gets no grants any more", async () => {
  let isCanceled = false;
  const sent = between("obey", async (_number, pass) => {
    await until("the goal above is canceled", () => isCanceled);
    return pass();
  });
  await register("real");
  const tasks = [{ goal: { tasks: [{ call: { upstream: "real", path: "/delay/0?name=overtaken" } }] } }];
  const { id } = await good<GoalView>(post("/v1/goals", { budget: { tasks: 5, calls: 5 }, tasks }));
  await until("the order is under way", () => sent() > 0);
  await good(post(`/v1/goals/${id}/cancel`));
  isCanceled = true;
  const [task] = (await tasksOf(id)) as WithSubgoal[];
  await until("the sub-goal is there", async () => (await call("GET", `/v1/goals/${task!.subgoal!.goalId}`)).ok);
  expect((await goalOf(task!.subgoal!.goalId)).status).toBe("canceled");
  await until("nothing is held for it", async () => (await goalOf(id)).budget.reserved["tasks"] === 0);
  expect((await countsOf("overtaken")).total).toBe(0);
});
