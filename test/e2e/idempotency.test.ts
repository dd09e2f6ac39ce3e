/** The same request fifty times at once, over real sockets, and again after a SIGKILL: its effect once, its answer always the same. */
import { expect, test } from "vitest";
import type { GoalView } from "../../shared/protocol/goal.ts";
import { type Answered, call, goalOf, problemIn, send, tasksOf, until } from "./api.ts";
import { useStage } from "./stage.ts";
import { answerAfter } from "./upstream.ts";

const TIMES = 50;
const stage = useStage(answerAfter(5));

const tasksBody = (mark: string): string =>
  JSON.stringify({ tasks: Array.from({ length: 100 }, (_, n) => ({ call: { upstream: "real", path: `/${mark}/${n}` } })) });

function post(path: string, body: string, key: string): Promise<Answered> {
  return send(stage.drover, "POST", path, body, { "idempotency-key": key });
}

const atOnce = (path: string, body: string, key: string): Promise<Answered[]> =>
  Promise.all(Array.from({ length: TIMES }, () => post(path, body, key)));

/** The one answer that all of them are; exactly one of them is not marked as a replay. */
function theOne(answers: readonly Answered[], replays: number): Answered {
  expect(new Set(answers.map(({ status }) => status)).size).toBe(1);
  expect(new Set(answers.map(({ text }) => text)).size).toBe(1);
  expect(answers.filter(({ headers }) => headers.get("idempotent-replayed") === "true")).toHaveLength(replays);
  return answers[0]!;
}

const callsOf = (mark: string): number => stage.upstream.seen.filter(({ path }) => path.startsWith(`/${mark}/`)).length;

test("a submission sent fifty times at once is taken once, and a SIGKILL later its answer is still the same", async () => {
  const { id } = await call<GoalView>(stage.drover, "POST", "/v1/goals", {});
  const path = `/v1/goals/${id}/tasks?receipts=all`;
  const first = theOne(await atOnce(path, tasksBody("submit"), "s-1"), TIMES - 1);
  expect(first.status).toBe(202);
  expect(JSON.parse(first.text)).toMatchObject({ accepted: 100, joined: 0 });
  await until("all are done", async () => (await goalOf(stage.drover, id)).counts.succeeded === 100);

  await stage.crash();
  const later = theOne(await atOnce(path, tasksBody("submit"), "s-1"), TIMES);
  expect(later.text).toBe(first.text);
  expect((await goalOf(stage.drover, id)).counts).toMatchObject({ total: 100, succeeded: 100 });
  expect(callsOf("submit")).toBe(100);
  expect(problemIn(await post(path, tasksBody("other"), "s-1"))).toMatchObject({ status: 422, code: "idempotency_key_reused" });
  expect((await goalOf(stage.drover, id)).counts.total).toBe(100);
});

test("a goal made fifty times at once with its tasks is one goal, and a SIGKILL later its answer is still the same", async () => {
  const body = JSON.stringify({ name: "only one", ...(JSON.parse(tasksBody("create")) as object), sealed: true });
  const first = theOne(await atOnce("/v1/goals", body, "g-1"), TIMES - 1);
  expect(first.status).toBe(201);
  const { id } = JSON.parse(first.text) as GoalView;
  await until("the goal is done", async () => (await goalOf(stage.drover, id)).status === "succeeded");

  await stage.crash();
  const later = theOne(await atOnce("/v1/goals", body, "g-1"), TIMES);
  expect(later.text).toBe(first.text);
  expect(later.headers.get("location")).toBe(`/v1/goals/${id}`);
  const { items } = await call<{ items: GoalView[] }>(stage.drover, "GET", "/v1/goals?limit=1000");
  expect(items.filter(({ name }) => name === "only one")).toHaveLength(1);
  expect(await tasksOf(stage.drover, id)).toHaveLength(100);
  expect(callsOf("create")).toBe(100);
});

test("a request that was cut off by a SIGKILL can be sent again with its key, and is taken once", async () => {
  const { id } = await call<GoalView>(stage.drover, "POST", "/v1/goals", {});
  const path = `/v1/goals/${id}/tasks`;
  const cutOff = Promise.allSettled(Array.from({ length: TIMES }, () => post(path, tasksBody("cut"), "c-1")));
  await stage.crash();
  await cutOff;
  const again = await atOnce(path, tasksBody("cut"), "c-1");
  expect(new Set(again.map(({ text }) => text)).size).toBe(1);
  await until("all are done", async () => (await goalOf(stage.drover, id)).counts.succeeded === 100);
  expect((await goalOf(stage.drover, id)).counts.total).toBe(100);
  const keys = new Map(stage.upstream.seen.filter(({ path: seen }) => seen.startsWith("/cut/")).map(({ path: seen, key }) => [seen, key]));
  expect(new Set(keys.values()).size).toBe(100);
});
