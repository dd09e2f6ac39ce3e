/** Budgets over HTTP: of goals, of the tenant, and of calls that are passed through. */
import { afterEach, expect, test } from "vitest";
import type { AccountView, BudgetView } from "../../shared/protocol/budget.ts";
import type { GoalView } from "../../shared/protocol/goal.ts";
import { proxied, send, until, upstream } from "./proxy-kit.ts";

const JSON_TYPE = { "content-type": "application/json" };
const TOP_UPS = 50;

interface Said {
  readonly status: number;
  readonly body: Record<string, unknown> & { readonly code?: string };
}

async function ask(method: string, path: string, value?: unknown, headers: Record<string, string> = {}): Promise<Said> {
  const options = value === undefined ? { headers } : { body: JSON.stringify(value), headers: { ...JSON_TYPE, ...headers } };
  const response = await send(method, path, options);
  return { status: response.status, body: await response.json<Said["body"]>() };
}

async function goalWith(spec: object): Promise<string> {
  const made = await ask("POST", "/v1/goals", spec);
  if (made.status !== 201) throw new Error(JSON.stringify(made.body));
  return made.body["id"] as string;
}

const budgetOf = async (id: string): Promise<BudgetView> => (await ask("GET", `/v1/goals/${id}/budget`)).body as unknown as BudgetView;
const viewOf = async (id: string): Promise<GoalView> => (await ask("GET", `/v1/goals/${id}`)).body as unknown as GoalView;
const tasks = (count: number, name: string): object[] =>
  Array.from({ length: count }, (_, n) => ({ call: { upstream: name, path: `/echo?n=${n}` } }));

afterEach(async () => {
  await ask("PUT", "/v1/budget", {});
});

test("a goal pauses when its budget is used up, says so of its tasks, and goes on after a top-up", async () => {
  await upstream("plain");
  const id = await goalWith({ budget: { calls: 3 }, tasks: tasks(5, "plain") });
  const events = send("GET", `/v1/goals/${id}/events`).then((response) => response.text());
  await until("it rests", async () => (await viewOf(id)).status === "paused");
  expect((await viewOf(id)).budget).toEqual({
    limit: { calls: 3 },
    reserved: { tasks: 0, calls: 0, tokens: 0, costMicros: 0 },
    spent: { tasks: 5, calls: 3, tokens: 0, costMicros: 0 },
    exhausted: true,
  });
  const page = await ask("GET", `/v1/goals/${id}/tasks?status=queued`);
  expect(page.body["items"]).toMatchObject([{ reason: "budget" }, { reason: "budget" }]);
  expect((await ask("POST", `/v1/goals/${id}/budget/topups`, { calls: 2 })).body).toMatchObject({ limit: { calls: 5 } });
  await ask("POST", `/v1/goals/${id}/seal`);
  await until("it is done", async () => (await viewOf(id)).status === "succeeded");
  expect(await budgetOf(id)).toMatchObject({ spent: { calls: 5 }, available: { calls: 0 } });
  expect(await events).toMatch(/^event: budget\ndata: .*"limit":\{"calls":5\}/m);
});

test("fifty equal top-ups with one key add once, and every one is answered alike", async () => {
  const id = await goalWith({ budget: { calls: 10 } });
  const path = `/v1/goals/${id}/budget/topups`;
  const answers = await Promise.all(Array.from({ length: TOP_UPS }, () => ask("POST", path, { calls: 7 }, { "idempotency-key": "k" })));
  expect(new Set(answers.map(({ body }) => JSON.stringify(body))).size).toBe(1);
  expect((await budgetOf(id)).limit).toEqual({ calls: 17 });
  expect(await ask("POST", path, { calls: 8 }, { "idempotency-key": "k" })).toMatchObject({ status: 422 });
});

test("a top-up must name an amount of a dimension that has a limit, and cannot take what is spent", async () => {
  const id = await goalWith({ budget: { tasks: 10 }, tasks: [{ group: {} }, { group: {} }] });
  const topUp = (value: unknown): Promise<Said> => ask("POST", `/v1/goals/${id}/budget/topups`, value);
  expect(await topUp({})).toMatchObject({ status: 400 });
  expect(await topUp({ calls: 1 })).toMatchObject({ status: 400, body: { errors: [{ pointer: "/calls" }] } });
  expect(await topUp({ tasks: 1.5 })).toMatchObject({ status: 400, body: { errors: [{ pointer: "/tasks" }] } });
  expect(await topUp({ tasks: -9 })).toMatchObject({ status: 409, body: { code: "conflict" } });
  expect(await topUp({ tasks: -8 })).toMatchObject({ status: 200, body: { limit: { tasks: 2 } } });
});

test("tasks beyond the budget are rejected one by one, and the receipts say why", async () => {
  const id = await goalWith({ budget: { tasks: 2 } });
  const { status, body } = await ask("POST", `/v1/goals/${id}/tasks`, { tasks: [{ group: {} }, { group: {} }, { group: {} }] });
  expect([status, body["accepted"], body["rejected"]]).toEqual([202, 2, 1]);
  expect(body["receipts"]).toMatchObject([{ index: 2, problem: { code: "budget_exhausted", status: 429 } }]);
});

test("what an answer says that it used is charged, and what it does not say is charged as reserved", async () => {
  await upstream("metered", { reserve: { tokens: 100, costMicros: 9 }, usage: { tokens: "/used/tokens", costMicros: "/used/cost" } });
  const text = JSON.stringify({ used: { tokens: 40 } });
  const path = `/body?${new URLSearchParams({ type: "application/json", text }).toString()}`;
  const id = await goalWith({ tasks: [{ call: { upstream: "metered", path } }], sealed: true });
  await until("it is done", async () => (await viewOf(id)).status === "succeeded");
  expect((await viewOf(id)).budget.spent).toEqual({ tasks: 1, calls: 1, tokens: 40, costMicros: 9 });
  const page = await ask("GET", `/v1/goals/${id}/tasks`);
  expect(page.body["items"]).toMatchObject([{ usage: { calls: 1, tokens: 40, costMicros: 9 } }]);
});

test("an agent reserves for work of its own, settles or releases it, and is charged in full when it says nothing", async () => {
  const id = await goalWith({ budget: { calls: 10, tokens: 100 } });
  const path = `/v1/goals/${id}/budget/reservations`;
  const first = await ask("POST", path, { calls: 6, tokens: 50, ttlMs: 60_000 }, { "idempotency-key": "r" });
  expect(first).toMatchObject({ status: 201, body: { reservationId: "rsv_1", calls: 6, tokens: 50 } });
  expect((await ask("POST", path, { calls: 6, tokens: 50, ttlMs: 60_000 }, { "idempotency-key": "r" })).body).toEqual(first.body);
  expect(await ask("POST", path, { calls: 5 })).toMatchObject({ status: 429, body: { code: "budget_exhausted" } });
  expect(await ask("POST", path, { calls: 4, ttlMs: 50 })).toMatchObject({ status: 201, body: { reservationId: "rsv_2" } });
  const settle = await ask("POST", `${path}/rsv_1/settle`, { usage: { tokens: 20 } });
  expect(settle).toMatchObject({ status: 200, body: { budget: { spent: { calls: 6, tokens: 20 } } } });
  expect(await ask("POST", `${path}/rsv_1/release`)).toMatchObject({ status: 409 });
  expect(await ask("POST", `${path}/rsv_9/release`)).toMatchObject({ status: 404 });
  await until("the other has expired", async () => (await budgetOf(id)).spent.calls === 10);
  expect(await budgetOf(id)).toMatchObject({ reserved: { calls: 0, tokens: 0 }, available: { calls: 0, tokens: 80 } });
});

test("a call that is passed through is paid from its goal's budget, and refused when that is used up", async () => {
  await upstream("passed", { reserve: { tokens: 30 } });
  const id = await goalWith({ budget: { calls: 2, tokens: 100 } });
  const pass = (headers: Record<string, string> = {}): Promise<Response> =>
    proxied("GET", "passed/echo", { headers: { "drover-goal": id, ...headers } });
  expect((await pass()).status).toBe(200);
  await until("it is charged", async () => (await budgetOf(id)).spent.tokens === 30);
  expect((await pass({ "drover-reserve": "calls=1, tokens=71" })).status).toBe(429);
  expect((await pass({ "drover-reserve": "calls=0" })).status).toBe(400);
  expect((await pass({ "drover-reserve": "calls=1, tokens=70" })).status).toBe(200);
  const refused = await pass({ "drover-reserve": "tokens=0" });
  expect([refused.status, (await refused.json<{ code: string }>()).code]).toEqual([429, "budget_exhausted"]);
  await until("both are charged", async () => (await budgetOf(id)).spent.calls === 2);
  expect(await budgetOf(id)).toMatchObject({ reserved: { calls: 0, tokens: 0 }, spent: { tokens: 100 } });
});

test("whoever passes a call through cannot take back what it has set aside", async () => {
  await upstream("kept");
  const id = await goalWith({ budget: { calls: 1 } });
  const answer = proxied("GET", "kept/delay/1000", { headers: { "drover-goal": id } });
  await until("the call is on its way", async () => (await budgetOf(id)).reserved.calls === 1);
  const path = `/v1/goals/${id}/budget/reservations/rsv_1`;
  expect(await ask("POST", `${path}/release`)).toMatchObject({ status: 409, body: { code: "conflict" } });
  expect(await ask("POST", `${path}/settle`, { usage: { calls: 0 } })).toMatchObject({ status: 409 });
  expect((await proxied("GET", "kept/echo", { headers: { "drover-goal": id } })).status).toBe(429);
  expect((await answer).status).toBe(200);
  await until("it is charged", async () => (await budgetOf(id)).spent.calls === 1);
});

test("goals draw on the tenant's budget, give back what they have not spent, and rest when it is used up", async () => {
  await upstream("shared");
  const spent = ((await ask("GET", "/v1/budget")).body as unknown as AccountView).spent.calls!;
  expect(await ask("PUT", "/v1/budget", { calls: spent + 6 })).toMatchObject({ status: 200, body: { available: { calls: 6 } } });
  const first = await goalWith({ tasks: tasks(4, "shared"), sealed: true });
  await until("the first is done", async () => (await viewOf(first)).status === "succeeded");
  await until("it has given back the rest", async () => {
    const { body } = await ask("GET", "/v1/budget");
    return (body as unknown as AccountView).available.calls === 2 && (body as unknown as AccountView).reserved.calls === 0;
  });
  const second = await goalWith({ tasks: tasks(4, "shared"), sealed: true });
  await until("the second rests", async () => (await viewOf(second)).status === "paused");
  expect(await budgetOf(second)).toMatchObject({ funds: { calls: 2 }, spent: { calls: 2 }, exhausted: true });
  expect(await ask("PUT", "/v1/budget", { calls: spent + 5 })).toMatchObject({ status: 409 });
  await ask("PUT", "/v1/budget", { calls: spent + 8 });
  await until("the second is done", async () => (await viewOf(second)).status === "succeeded");
});

test("a tenant's budget for tasks bounds what goals accept, and a goal that could not be made keeps nothing of it", async () => {
  const spent = ((await ask("GET", "/v1/budget")).body as unknown as AccountView).spent.tasks!;
  await ask("PUT", "/v1/budget", { tasks: spent + 3 });
  const made = await ask("POST", "/v1/goals", { tasks: [{ group: {} }, { group: { x: 1 } }] });
  expect(made.status).toBe(400);
  expect((await ask("GET", "/v1/budget")).body).toMatchObject({ reserved: { tasks: 0 }, available: { tasks: 3 } });
  expect(await ask("POST", "/v1/goals", { tasks: tasks(4, "shared") })).toMatchObject({ status: 429, body: { code: "budget_exhausted" } });
  const id = await goalWith({ tasks: [{ group: {} }, { group: {} }] });
  const more = await ask("POST", `/v1/goals/${id}/tasks`, { tasks: [{ group: {} }] });
  expect(more.body).toMatchObject({ accepted: 1 });
  expect((await ask("POST", `/v1/goals/${id}/tasks`, { tasks: [{ group: {} }] })).body).toMatchObject({ accepted: 0, rejected: 1 });
});

test("a goal asks its tenant for funds before it refuses to spawn or to retry for want of them", async () => {
  const spent = ((await ask("GET", "/v1/budget")).body as unknown as AccountView).spent.tasks!;
  await ask("PUT", "/v1/budget", { tasks: spent + 1_000 });
  const id = await goalWith({ tasks: [{ work: { queue: "spawning" } }] });
  const claimed = await ask("POST", `/v1/goals/${id}/claims`, { queue: "spawning" });
  const [{ taskId }] = claimed.body["claims"] as [{ taskId: string }];
  const settlement = { taskId, attempt: 1, result: 1, spawn: [{ key: "child", work: { queue: "spawned" } }] };
  const settled = await ask("POST", `/v1/goals/${id}/claims/settle`, { settlements: [settlement] });
  expect(settled.body["settlements"]).toEqual([{ taskId, status: "settled" }]);
  const page = await ask("GET", `/v1/goals/${id}/tasks?parentTaskId=${taskId}`);
  const [child] = page.body["items"] as [{ id: string }];
  await ask("POST", `/v1/tasks/${child.id}/cancel`);
  expect(await ask("POST", `/v1/tasks/${taskId}/retry`)).toMatchObject({ status: 201 });
});
