/** Goals and tasks over HTTP, through the real goal, executor and tenant, to a real upstream. */
import { env } from "cloudflare:workers";
import { expect, inject, test } from "vitest";
import type { GoalView } from "../../shared/protocol/goal.ts";
import { ok } from "../../shared/result.ts";
import { type EdgeContext, tenantStub } from "../../workers/edge/context.ts";
import { streamed } from "../../workers/edge/stream.ts";
import { call, problemIn, put, streamOf } from "./edge-kit.ts";

const JSON_HEADERS = { "content-type": "application/json" };
const MISSING_GOAL = "/v1/goals/goal_01k00000000000000000000000";

interface TaskView {
  readonly id: string;
  readonly goalId: string;
  readonly key?: string;
  readonly status: string;
  readonly reason?: string;
  readonly retryOf?: string;
  readonly result?: { status: number; body: unknown };
}

interface Page<T> {
  readonly items: readonly T[];
  readonly nextCursor: string | null;
}

const post = (path: string, value?: unknown, headers: Record<string, string> = {}): Promise<Response> =>
  call("POST", path, value === undefined ? { headers } : { body: JSON.stringify(value), headers: { ...JSON_HEADERS, ...headers } });

async function made(value?: unknown): Promise<GoalView> {
  const response = await post("/v1/goals", value);
  expect(response.status).toBe(201);
  return response.json();
}

const visit = (key: string, path = "/delay/0") => ({ key, call: { upstream: "real", path } });
const withUpstream = () => put("/v1/upstreams/real", { origin: inject("upstreamUrl") });

test("a goal is made without a body, and with every field", async () => {
  const response = await call("POST", "/v1/goals");
  expect(response.status).toBe(201);
  const bare: GoalView = await response.json();
  expect(response.headers.get("location")).toBe(`/v1/goals/${bare.id}`);
  expect(bare).toMatchObject({ name: "", labels: {}, status: "active", sealed: false, deadlineAt: null });
  const full = await made({ name: "n", labels: { team: "a" }, deadlineMs: 60_000, completion: { minSuccessful: 1 }, sealed: false });
  expect(full).toMatchObject({ name: "n", labels: { team: "a" }, status: "active" });
  expect(await (await call("GET", `/v1/goals/${full.id}`)).json()).toMatchObject({ id: full.id, deadlineAt: full.deadlineAt });
});

test.each([
  ["an unknown property", { nmae: "n" }, "/nmae"],
  ["a wrong type", { deadlineMs: "10" }, "/deadlineMs"],
  ["a label that is no string", { labels: { a: 1 } }, "/labels/a"],
])("a goal with %s is refused at the fault", async (_what, body, pointer) => {
  const found = await problemIn(await post("/v1/goals", body));
  expect(found).toMatchObject({ status: 400, code: "invalid_request", errors: [{ pointer }] });
});

test("inline tasks are all taken or none, and a refused goal does not exist", async () => {
  await withUpstream();
  const taken = await made({ tasks: [visit("a"), visit("b")] });
  expect(taken.counts.total).toBe(2);
  const before = (await (await call("GET", "/v1/goals?limit=1000")).json<Page<GoalView>>()).items.length;
  const refused = await problemIn(await post("/v1/goals", { tasks: [visit("a"), { key: "b" }] }));
  expect(refused).toMatchObject({ status: 400, code: "invalid_request" });
  expect((await (await call("GET", "/v1/goals?limit=1000")).json<Page<GoalView>>()).items).toHaveLength(before);
});

test("fifty creations at once with one key are one goal and fifty identical answers", async () => {
  const send = () => post("/v1/goals", { name: "once" }, { "idempotency-key": "create-once" });
  const responses = await Promise.all(Array.from({ length: 50 }, send));
  const bodies = new Set(await Promise.all(responses.map((response) => response.text())));
  expect(bodies.size).toBe(1);
  expect(new Set(responses.map(({ status }) => status))).toEqual(new Set([201]));
  expect(responses.filter(({ headers }) => headers.get("idempotent-replayed") === null)).toHaveLength(1);
  const listed: Page<GoalView> = await (await call("GET", "/v1/goals?limit=1000")).json();
  expect(listed.items.filter(({ name }) => name === "once")).toHaveLength(1);
  const other = await problemIn(await post("/v1/goals", { name: "twice" }, { "idempotency-key": "create-once" }));
  expect(other).toMatchObject({ status: 422, code: "idempotency_key_reused" });
});

test("fifty submissions at once with one key put their tasks in once", async () => {
  await withUpstream();
  const { id } = await made();
  const send = () =>
    post(`/v1/goals/${id}/tasks`, { tasks: [{ call: { upstream: "real", path: "/delay/0" } }] }, { "idempotency-key": '"submit-once"' });
  const responses = await Promise.all(Array.from({ length: 50 }, send));
  expect(new Set(responses.map(({ status }) => status))).toEqual(new Set([202]));
  expect(new Set(await Promise.all(responses.map((response) => response.text()))).size).toBe(1);
  expect(responses.filter(({ headers }) => headers.get("idempotent-replayed") === "true")).toHaveLength(49);
  expect((await (await call("GET", `/v1/goals/${id}`)).json<GoalView>()).counts.total).toBe(1);
});

test("tasks go in as JSON or a line each, and come out as results and as an end", async () => {
  await withUpstream();
  const { id } = await made();
  const json = await post(`/v1/goals/${id}/tasks?receipts=all`, { tasks: [visit("a"), visit("a")] });
  expect(json.status).toBe(202);
  expect(await json.json()).toMatchObject({ accepted: 1, joined: 1, rejected: 0, receipts: [{ status: "queued" }, { status: "joined" }] });
  const body = `${JSON.stringify(visit("b"))}\n${JSON.stringify({ key: "c" })}\n`;
  const lines = await call("POST", `/v1/goals/${id}/tasks`, { body, headers: { "content-type": "application/x-ndjson" } });
  expect(await lines.json()).toMatchObject({ accepted: 1, rejected: 1, receipts: [{ index: 1, status: "rejected" }] });
  expect((await post(`/v1/goals/${id}/seal`)).status).toBe(200);
  const results = await call("GET", `/v1/goals/${id}/results?follow=true`);
  expect(results.headers.get("content-type")).toBe("application/x-ndjson");
  const out = (await results.text())
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line) as Partial<TaskView> & { end?: { status: string } });
  expect(out).toHaveLength(3);
  expect(new Set(out.slice(0, -1).map(({ key }) => key))).toEqual(new Set(["a", "b"]));
  expect(out.at(-1)?.end).toMatchObject({ status: "succeeded", counts: { succeeded: 2, total: 2 } });
});

test("an atomic submission with one bad task keeps none of it", async () => {
  await withUpstream();
  const { id } = await made();
  const found = await problemIn(await post(`/v1/goals/${id}/tasks?atomic=true`, { tasks: [visit("a"), { key: "b" }] }));
  expect(found).toMatchObject({ status: 400, code: "invalid_request" });
  expect((await (await call("GET", `/v1/goals/${id}`)).json<GoalView>()).counts.total).toBe(0);
});

test("a task is waited for as long as the caller likes, and the answer says how long that was", async () => {
  await withUpstream();
  const { id } = await made({ tasks: [visit("slow", "/delay/300")] });
  const page: Page<TaskView> = await (await call("GET", `/v1/goals/${id}/tasks`)).json();
  const path = `/v1/tasks/${page.items[0]!.id}`;
  const early = await call("GET", path);
  expect(early.headers.get("preference-applied")).toBeNull();
  const late = await call("GET", path, { headers: { prefer: "wait=20" } });
  expect(late.headers.get("preference-applied")).toBe("wait=20");
  expect(await late.json<TaskView>()).toMatchObject({ status: "succeeded", goalId: id, result: { status: 200, body: { ok: true } } });
});

test("tasks are listed in pages, each once, and narrowed by a status", async () => {
  await withUpstream();
  const { id } = await made({ tasks: [0, 1, 2, 3, 4].map((n) => visit(`t${n}`)) });
  const keys: (string | undefined)[] = [];
  for (let cursor: string | null = ""; cursor !== null;) {
    const page: Page<TaskView> = await (await call("GET", `/v1/goals/${id}/tasks?limit=2&cursor=${cursor}`)).json();
    keys.push(...page.items.map(({ key }) => key));
    cursor = page.nextCursor;
  }
  expect(keys).toHaveLength(5);
  expect(new Set(keys)).toEqual(new Set(["t0", "t1", "t2", "t3", "t4"]));
  const none: Page<TaskView> = await (await call("GET", `/v1/goals/${id}/tasks?status=expired`)).json();
  expect(none).toEqual({ items: [], nextCursor: null });
});

test("a goal is paused, resumed and canceled, each as often as one likes", async () => {
  const { id } = await made({ tasks: [{ key: "g", group: {} }] });
  for (const [verb, status] of [
    ["pause", "paused"],
    ["resume", "active"],
    ["cancel", "canceled"],
  ] as const) {
    for (let i = 0; i < 2; i++) {
      const response = await post(`/v1/goals/${id}/${verb}`);
      expect([response.status, (await response.json<GoalView>()).status]).toEqual([200, status]);
    }
  }
  expect(await problemIn(await post(`/v1/goals/${id}/tasks`, { tasks: [] }))).toMatchObject({ status: 409, code: "goal_ended" });
});

test("a failed task is retried as a new one, once for one key", async () => {
  await withUpstream();
  const { id } = await made({ tasks: [visit("gone", "/status/404")] });
  const page: Page<TaskView> = await (await call("GET", `/v1/goals/${id}/tasks`)).json();
  const failed = page.items[0]!.id;
  const ended: TaskView = await (await call("GET", `/v1/tasks/${failed}`, { headers: { prefer: "wait=10" } })).json();
  expect(ended.status).toBe("failed");
  const answers = await Promise.all([1, 2, 3].map(() => post(`/v1/tasks/${failed}/retry`, undefined, { "idempotency-key": "again" })));
  const retried = await Promise.all(answers.map((answer) => answer.json<TaskView>()));
  expect(answers.map(({ status }) => status)).toEqual([201, 201, 201]);
  expect(new Set(retried.map((task) => task.id)).size).toBe(1);
  expect(retried[0]).toMatchObject({ retryOf: failed });
  expect(answers[0]!.headers.get("location")).toBe(`/v1/tasks/${retried[0]!.id}`);
});

test("a task is canceled, and a task that is not in doubt cannot be resolved", async () => {
  const { id } = await made({ tasks: [{ key: "g", group: {} }, visit("x")] });
  const page: Page<TaskView> = await (await call("GET", `/v1/goals/${id}/tasks`)).json();
  const path = `/v1/tasks/${page.items.find(({ key }) => key === "x")!.id}`;
  await call("GET", path, { headers: { prefer: "wait=10" } });
  expect(await problemIn(await post(`${path}/resolve`, { as: "succeeded", result: { body: 1 } }))).toMatchObject({ status: 409 });
  expect(await problemIn(await post(`${path}/resolve`, { as: "done" }))).toMatchObject({ status: 400, errors: [{ pointer: "/as" }] });
  expect(await problemIn(await post(`${path}/resolve`, { as: "retry", result: {} }))).toMatchObject({ status: 400 });
});

test("events begin with a snapshot, go on to the end, and are not kept by anything between", async () => {
  await withUpstream();
  const { id } = await made({ tasks: [visit("a")], sealed: true });
  const response = await call("GET", `/v1/goals/${id}/events?tasks=true`);
  expect([...["content-type", "cache-control", "x-accel-buffering"].map((name) => response.headers.get(name))]).toEqual([
    "text/event-stream",
    "no-store",
    "no",
  ]);
  const names = [...(await response.text()).matchAll(/^event: ?(\w+)$/gm)].map(([, name]) => name);
  expect([names[0], names.at(-1)]).toEqual(["snapshot", "end"]);
});

test("a HEAD of a stream ends at once, and lets go of the goal's stream", async () => {
  const { id } = await made();
  const response = await call("HEAD", `/v1/goals/${id}/events`);
  expect([response.status, await response.text()]).toEqual([200, ""]);
  const { body, wasCanceled } = streamOf([new Uint8Array(1)]);
  const context = { req: { raw: new Request("http://drover.test/", { method: "HEAD" }) } } as unknown as EdgeContext;
  expect((await streamed(context, ok(body), "text/event-stream")).body).toBeNull();
  expect(wasCanceled()).toBe(true);
});

test("the tree is bounded by a depth", async () => {
  const { id } = await made({ tasks: [{ key: "g", group: {} }] });
  expect((await call("GET", `/v1/goals/${id}/tree?depth=1`)).status).toBe(200);
  const found = await problemIn(await call("GET", `/v1/goals/${id}/tree?depth=0`));
  expect(found.errors?.map(({ pointer }) => pointer)).toEqual(["?depth"]);
});

test("the directory lists goals in their wire shape, with the end of those that ended", async () => {
  const { id, createdAt } = await made({ name: "listed", labels: { a: "b" } });
  await post(`/v1/goals/${id}/cancel`);
  const find = async () => {
    const page: Page<GoalView> = await (await call("GET", "/v1/goals?status=canceled&limit=1000")).json();
    return page.items.find((goal) => goal.id === id);
  };
  await expect
    .poll(find)
    .toMatchObject({ id, name: "listed", labels: { a: "b" }, status: "canceled", createdAt, sealed: expect.any(Boolean) });
  expect((await find())!.endedAt).toMatch(/^\d{4}-\d\d-\d\dT[\d:]+\.\d{3}Z$/);
});

test.each([
  ["GET", ""],
  ["GET", "/tasks"],
  ["GET", "/results"],
  ["GET", "/events"],
  ["GET", "/tree"],
  ["POST", "/cancel"],
  ["POST", "/tasks"],
])("%s of a goal that was never made (%s) is not found, and makes nothing", async (method, rest) => {
  const options = method === "POST" && rest === "/tasks" ? { body: '{"tasks":[]}', headers: JSON_HEADERS } : {};
  expect(await problemIn(await call(method, MISSING_GOAL + rest, options))).toMatchObject({ status: 404, code: "not_found" });
  const listed = await tenantStub(env).listGoals({ limit: 1000 });
  expect(listed.ok && listed.value.items.some(({ goalId }) => MISSING_GOAL.endsWith(goalId))).toBe(false);
});
