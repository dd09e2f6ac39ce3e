/** What a goal keeps when its object goes: evicted, aborted, refused by its disk, never made, or past its time. */
import { abortAllDurableObjects, evictDurableObject, runDurableObjectAlarm, runInDurableObject } from "cloudflare:test";
import { expect, test, vi } from "vitest";
import type { Goal } from "../../durable-objects/goal/object.ts";
import type { GoalView } from "../../shared/protocol/goal.ts";
import { call, problemIn } from "./edge-kit.ts";
import { countsOf } from "./executor-kit.ts";
import { delay, get, goalOf, goalStub, good, newGoalId, post, register, tasksOf, textOf, until } from "./goal-kit.ts";

vi.spyOn(console, "error").mockImplementation(() => undefined);
vi.spyOn(console, "warn").mockImplementation(() => undefined);

const visits = (count: number, name: string, ms: number): object[] =>
  Array.from({ length: count }, (_, n) => ({ key: `k${n}`, call: { upstream: "real", path: `/delay/${ms}?name=${name}` } }));

const made = (value: object): Promise<GoalView> => good(post("/v1/goals", value));
const isOver = (id: string) => async (): Promise<boolean> => (await goalOf(id)).status === "succeeded";

/** A goal with something of everything, in which nothing moves any more. */
async function stillGoal(): Promise<string> {
  await register("real");
  const { id } = await made({ name: "still", labels: { a: "ü" } });
  const tasks = [
    ...visits(40, id, 0),
    { key: "bad", call: { upstream: "real", path: "/status/404" } },
    { key: "parent", group: {} },
    { key: "child", parentTaskId: "parent", call: { upstream: "real", path: "/delay/0" } },
    { key: "later", after: ["parent"], call: { upstream: "real", path: "/delay/0" } },
    { key: "never", after: ["bad"], call: { upstream: "real", path: "/delay/0" } },
    { key: "held", group: {} },
    { key: "holds", after: ["held"], call: { upstream: "real", path: "/delay/0" } },
  ];
  await good(post(`/v1/goals/${id}/tasks`, { tasks }));
  await until("only what is held is left", async () => {
    const { counts } = await goalOf(id);
    return counts.total === 47 && counts.queued + counts.running === 0 && counts.waiting === 2;
  });
  await good(post(`/v1/goals/${id}/pause`));
  return id;
}

async function everythingOf(id: string): Promise<unknown> {
  const results = await textOf(`/v1/goals/${id}/results?limit=1000`);
  return { goal: await goalOf(id), tasks: await tasksOf(id), results, tree: await get(`/v1/goals/${id}/tree`) };
}

test.for([
  ["evicted", (id: string) => evictDurableObject(goalStub(id))],
  ["aborted", () => abortAllDurableObjects()],
] as const)("a goal that was %s is the same to everyone who asks", async ([, end]) => {
  const id = await stillGoal();
  const before = await everythingOf(id);
  await end(id);
  expect(await everythingOf(id)).toEqual(before);
  await good(post(`/v1/goals/${id}/resume`));
  const [held] = await tasksOf(id, "&status=waiting");
  await good(post(`/v1/tasks/${held!.id}/cancel`));
  expect((await goalOf(id)).counts).toMatchObject({ queued: 0, waiting: 0 });
});

test("a goal that is aborted in the middle of its work goes on without anybody asking, and ends each task once", async () => {
  await register("real", { maxConcurrency: 12 });
  const { id } = await made({ tasks: visits(60, "aborted", 40), sealed: true });
  for (let round = 0; round < 2; round++) {
    await until("some have run", async () => (await countsOf("aborted")).total >= 20 * (round + 1));
    await abortAllDurableObjects();
  }
  // The upstream alone tells that work goes on.
  await until("all were called", async () => (await countsOf("aborted")).total >= 60);
  await until("the goal is done", isOver(id));
  const ended = (await textOf(`/v1/goals/${id}/results?limit=1000`)).trimEnd().split("\n");
  expect(new Set(ended.slice(0, -1).map((line) => (JSON.parse(line) as { id: string }).id)).size).toBe(60);
  expect((await countsOf("aborted")).total).toBeLessThanOrEqual(60 + 2 * 12);
});

test("a goal that is evicted in the middle of its work goes on, and repeats no more calls than were open", async () => {
  await register("real", { maxConcurrency: 12 });
  const { id } = await made({ tasks: visits(60, "evicted", 40), sealed: true });
  await until("some have run", async () => (await countsOf("evicted")).total >= 20);
  await evictDurableObject(goalStub(id));
  await until("the goal is done", isOver(id));
  expect((await goalOf(id)).counts).toMatchObject({ succeeded: 60, total: 60 });
  expect((await countsOf("evicted")).total).toBeLessThanOrEqual(60 + 12);
});

const inGoal = <T>(id: string, work: (ctx: DurableObjectState) => T): Promise<T> =>
  runInDurableObject(goalStub(id), (_goal: Goal, ctx: DurableObjectState) => work(ctx));

const REFUSE = "CREATE TRIGGER refuse BEFORE INSERT ON log BEGIN SELECT RAISE(ABORT, 'the disk is full'); END";

test("a commit that fails ends the object, and what comes back is what is on disk", async () => {
  const id = await stillGoal();
  await good(post(`/v1/goals/${id}/resume`));
  const before = await everythingOf(id);
  await inGoal(id, (ctx) => void ctx.storage.sql.exec(REFUSE));
  const tasks = [{ key: "lost", call: { upstream: "real", path: "/delay/0?name=lost" } }];
  await expect(
    post(`/v1/goals/${id}/tasks`, { tasks }, { "idempotency-key": "x" }).then(({ status }) => status),
  ).resolves.toBeGreaterThanOrEqual(500);
  expect(await everythingOf(id)).toEqual(before);
  await inGoal(id, (ctx) => void ctx.storage.sql.exec("DROP TRIGGER refuse"));
  // The key was not used up by a request that had no effect.
  expect(await good(post(`/v1/goals/${id}/tasks`, { tasks }, { "idempotency-key": "x" }))).toMatchObject({ accepted: 1 });
  await until("it has run", async () => (await countsOf("lost")).total === 1);
});

test("results that could not be kept are fetched again, and count once", async () => {
  await register("real", { maxConcurrency: 6 });
  const { id } = await made({});
  await inGoal(
    id,
    (ctx) =>
      void ctx.storage.sql.exec("CREATE TRIGGER refuse BEFORE INSERT ON log WHEN NEW.results <> '' BEGIN SELECT RAISE(ABORT, 'full'); END"),
  );
  await good(post(`/v1/goals/${id}/tasks`, { tasks: visits(6, "refused", 0) }));
  await until("they have run", async () => (await countsOf("refused")).total >= 6);
  await delay(100);
  await until("the trigger is gone", () =>
    inGoal(id, (ctx) => void ctx.storage.sql.exec("DROP TRIGGER IF EXISTS refuse")).then(
      () => true,
      () => false,
    ),
  );
  await good(post(`/v1/goals/${id}/seal`));
  await until("the goal is done", isOver(id));
  expect((await countsOf("refused")).total).toBeGreaterThan(6);
  expect((await goalOf(id)).counts).toMatchObject({ succeeded: 6, total: 6 });
});

test("asking for a goal that was never made writes nothing", async () => {
  const id = newGoalId();
  const requests = [
    ["GET", ""],
    ["GET", "/tasks"],
    ["GET", "/results?follow=true"],
    ["GET", "/events"],
    ["GET", "/tree"],
    ["POST", "/seal"],
    ["POST", "/pause"],
    ["POST", "/tasks"],
  ] as const;
  for (const [method, path] of requests) {
    const body =
      path === "/tasks" && method === "POST"
        ? { body: '{"tasks":[{"group":{}}]}', headers: { "content-type": "application/json", "idempotency-key": "k" } }
        : {};
    expect(await problemIn(await call(method, `/v1/goals/${id}${path}`, body))).toMatchObject({ status: 404, code: "not_found" });
  }
  for (const verb of ["cancel", "retry", "resolve"]) {
    const answer = await post(`/v1/tasks/task_${id.slice(5)}000000/${verb}`, verb === "resolve" ? { as: "failed" } : {});
    expect(await problemIn(answer)).toMatchObject({ status: 404, code: "not_found" });
  }
  const left = await inGoal(id, async (ctx) => {
    const tables = ctx.storage.sql.exec("SELECT name FROM sqlite_master WHERE name NOT LIKE '\\_cf%' ESCAPE '\\'").toArray();
    return [tables, await ctx.storage.getAlarm()];
  });
  expect(left).toEqual([[], null]);
});

test("a goal whose tasks cannot be taken is not made, and writes nothing", async () => {
  const id = newGoalId();
  const spec = { name: "", labels: {}, deadlineMs: null, retentionMs: 0, completion: {}, sealed: true, weight: 1 };
  const refused = await goalStub(id).create({ goalId: id, spec, tasksJson: '[{"key":"a"}]' });
  expect(refused).toMatchObject({ ok: false, error: { code: "invalid_request" } });
  expect(await inGoal(id, (ctx) => ctx.storage.sql.exec("SELECT name FROM sqlite_master WHERE name = 'log'").toArray())).toEqual([]);
});

test("past its retention a goal leaves nothing, not even its entry in the directory", async () => {
  await register("real");
  const { id } = await made({ name: "short-lived", retentionMs: 300, tasks: visits(3, "short", 0), sealed: true });
  const isListed = async (): Promise<boolean> => {
    const { items } = await get<{ items: GoalView[] }>("/v1/goals?limit=1000");
    return items.some((goal) => goal.id === id);
  };
  await until("the goal is done", isOver(id));
  expect(await isListed()).toBe(true);
  await until("it has left the directory", async () => !(await isListed()));
  await until("its rows are gone", async () => {
    const answer = await call("GET", `/v1/goals/${id}`).catch(() => null);
    return answer?.status === 404;
  });
  expect(await inGoal(id, (ctx) => ctx.storage.sql.exec("SELECT name FROM sqlite_master WHERE name = 'log'").toArray())).toEqual([]);
  expect(await runDurableObjectAlarm(goalStub(id))).toBe(false);
});
