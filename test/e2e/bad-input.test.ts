/**
 * Bad input over real sockets: each gets the documented answer, which says
 * where the fault is, and a look at the goal shows that nothing was half kept.
 */
import { connect } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { expect, test } from "vitest";
import { BODY_BYTES_MAX, DEPTH_MAX, TASKS_PER_REQUEST_MAX } from "../../shared/limits.ts";
import type { GoalView } from "../../shared/protocol/goal.ts";
import { call, goalOf, problemIn, type Receipts, send, tasksOf } from "./api.ts";
import { useStage } from "./stage.ts";
import { answerAfter } from "./upstream.ts";

const stage = useStage(answerAfter(0));
const visit = (key: string, more: object = {}) => ({ key, call: { upstream: "real", path: `/${key}` }, ...more });
const newGoal = async (): Promise<string> => (await call<GoalView>(stage.drover, "POST", "/v1/goals", {})).id;

async function expectNothingIn(goalId: string): Promise<void> {
  const goal = await goalOf(stage.drover, goalId);
  expect(goal).toMatchObject({ status: "active", joined: 0, counts: { total: 0 } });
  expect(await tasksOf(stage.drover, goalId)).toEqual([]);
}

async function goalsNamed(name: string): Promise<number> {
  const page = await call<{ items: GoalView[] }>(stage.drover, "GET", "/v1/goals?limit=1000");
  return page.items.filter((goal) => goal.name === name).length;
}

test.for([
  ["not JSON", '{"tasks":[', "invalid_request", ""],
  ["an empty body", "", "invalid_request", ""],
  ["an array where an object belongs", '[{"key":"a"}]', "invalid_request", ""],
  ["a number where an object belongs", "7", "invalid_request", ""],
  ["an object where an array belongs", '{"tasks":{"key":"a"}}', "invalid_request", "/tasks"],
  ["no tasks at all", "{}", "invalid_request", "/tasks"],
  ["an unknown property beside the tasks", '{"tasks":[],"sealed":true}', "invalid_request", "/sealed"],
  ["bytes that are not UTF-8", Uint8Array.from([0x7b, 0xff, 0xfe, 0x7d]), "invalid_request", ""],
] as const)("a submission with %s is refused at the fault, and keeps nothing", async ([, body, code, pointer]) => {
  const id = await newGoal();
  const problem = problemIn(await send(stage.drover, "POST", `/v1/goals/${id}/tasks`, body));
  expect(problem).toMatchObject({ status: 400, code, retryable: false, errors: [{ pointer }] });
  expect(problem.detail.length).toBeGreaterThan(10);
  await expectNothingIn(id);
});

test("one line of NDJSON that is not JSON refuses the whole body, and is named", async () => {
  const id = await newGoal();
  const body = `${JSON.stringify(visit("a"))}\n{"key":\n${JSON.stringify(visit("b"))}\n`;
  const answer = await send(stage.drover, "POST", `/v1/goals/${id}/tasks`, body, { "content-type": "application/x-ndjson" });
  expect(problemIn(answer)).toMatchObject({ status: 400, code: "invalid_request", detail: expect.stringContaining("line 2") });
  await expectNothingIn(id);
});

test.for([
  ["not JSON", "{", ""],
  ["an array where an object belongs", "[]", ""],
  ["an unknown property", '{"nmae":"bad goal"}', "/nmae"],
  ["a deadline that is no number", '{"name":"bad goal","deadlineMs":"soon"}', "/deadlineMs"],
  ["tasks of which one calls nothing", '{"name":"bad goal","tasks":[{"key":"a","group":{}},{"key":"b"}]}', "/tasks/1"],
] as const)("a goal with %s is refused, and is not there", async ([, body, pointer]) => {
  const problem = problemIn(await send(stage.drover, "POST", "/v1/goals", body));
  expect(problem).toMatchObject({ status: 400, code: "invalid_request" });
  expect(problem.errors?.map((fault) => fault.pointer) ?? [""]).toEqual([pointer]);
  expect(await goalsNamed("bad goal")).toBe(0);
});

test("of 5,000 tasks with a bad one, that one is rejected with a pointer, and the others run", async () => {
  const id = await newGoal();
  const tasks: object[] = Array.from({ length: 5_000 }, (_, n) => visit(`k${n}`));
  tasks[1_234] = { key: "bad", call: { upstream: "real", path: "no-slash", extra: 1 } };
  const answer: Receipts = await call(stage.drover, "POST", `/v1/goals/${id}/tasks`, { tasks });
  expect(answer).toMatchObject({ accepted: 4_999, joined: 0, rejected: 1 });
  expect(answer.receipts).toHaveLength(1);
  const [receipt] = answer.receipts!;
  expect(receipt).toMatchObject({ index: 1_234, status: "rejected", problem: { code: "invalid_request", status: 400 } });
  expect(receipt!.problem!.errors!.map(({ pointer }) => pointer).sort()).toEqual(["/call/extra", "/call/path"]);
  expect(new Set((await tasksOf(stage.drover, id)).map(({ key }) => key)).size).toBe(4_999);

  const other = await newGoal();
  const refused = problemIn(await send(stage.drover, "POST", `/v1/goals/${other}/tasks?atomic=true`, JSON.stringify({ tasks })));
  expect(refused).toMatchObject({ status: 400, code: "invalid_request" });
  expect(refused.errors!.map(({ pointer }) => pointer).sort()).toEqual(["/tasks/1234/call/extra", "/tasks/1234/call/path"]);
  await expectNothingIn(other);
});

test("a task for an unknown upstream is rejected, and says how to register it", async () => {
  const id = await newGoal();
  const tasks = [{ key: "lost", call: { upstream: "nowhere", path: "/" } }];
  const answer: Receipts = await call(stage.drover, "POST", `/v1/goals/${id}/tasks`, { tasks });
  expect(answer).toMatchObject({ accepted: 0, rejected: 1 });
  const { problem } = answer.receipts![0]!;
  expect(problem).toMatchObject({ code: "invalid_request", errors: [{ pointer: "/call/upstream" }] });
  expect(problem!.detail).toContain("PUT /v1/upstreams/nowhere");
  await expectNothingIn(id);
});

test("tasks that wait for one another in a circle are rejected together, and what relies on them too", async () => {
  const id = await newGoal();
  const tasks = [
    visit("a", { after: ["b"] }),
    visit("b", { after: ["c"] }),
    visit("c", { afterEnd: ["a"] }),
    visit("d", { after: ["a"] }),
    visit("e"),
  ];
  const answer: Receipts = await call(stage.drover, "POST", `/v1/goals/${id}/tasks`, { tasks });
  expect(answer).toMatchObject({ accepted: 1, rejected: 4 });
  for (const { problem } of answer.receipts!)
    expect(problem).toMatchObject({ code: "invalid_request", detail: expect.stringContaining("for itself") });
  expect((await tasksOf(stage.drover, id)).map(({ key }) => key)).toEqual(["e"]);
});

test("a task below the deepest level is rejected, the levels above it are taken", async () => {
  const id = await newGoal();
  const tasks = Array.from({ length: DEPTH_MAX + 2 }, (_, n) => ({
    key: `d${n}`,
    group: {},
    ...(n === 0 ? {} : { parentTaskId: `d${n - 1}` }),
  }));
  const answer: Receipts = await call(stage.drover, "POST", `/v1/goals/${id}/tasks`, { tasks });
  expect(answer).toMatchObject({ accepted: DEPTH_MAX + 1, rejected: 1 });
  expect(answer.receipts![0]).toMatchObject({ index: DEPTH_MAX + 1, problem: { errors: [{ pointer: "/parentTaskId" }] } });
  expect(await tasksOf(stage.drover, id)).toHaveLength(DEPTH_MAX + 1);
});

test("more tasks than a request takes are refused, exactly as many are taken", async () => {
  const id = await newGoal();
  const tasks = Array.from({ length: TASKS_PER_REQUEST_MAX + 1 }, () => ({ group: {} }));
  const refused = problemIn(await send(stage.drover, "POST", `/v1/goals/${id}/tasks`, JSON.stringify({ tasks })));
  expect(refused).toMatchObject({ status: 413, code: "payload_too_large", detail: expect.stringContaining(String(TASKS_PER_REQUEST_MAX)) });
  await expectNothingIn(id);
  tasks.pop();
  expect(await call(stage.drover, "POST", `/v1/goals/${id}/tasks`, { tasks })).toMatchObject({ accepted: TASKS_PER_REQUEST_MAX });
});

/** Without a length, so it is sent in chunks. */
function streamOf(size: number): ReadableStream<Uint8Array> {
  let left = size;
  return new ReadableStream({
    pull(controller) {
      controller.enqueue(new Uint8Array(Math.min(left, 65_536)).fill(32));
      left -= 65_536;
      if (left <= 0) controller.close();
    },
  });
}

test.for(["with its length", "in chunks"] as const)("a body of 9 MiB, sent %s, is refused and keeps nothing", async (how) => {
  const id = await newGoal();
  const size = BODY_BYTES_MAX + 1024 * 1024;
  const body = how === "in chunks" ? streamOf(size) : new Uint8Array(size).fill(32);
  const answer = await send(stage.drover, "POST", `/v1/goals/${id}/tasks`, body);
  expect(problemIn(answer)).toMatchObject({
    status: 413,
    code: "payload_too_large",
    detail: expect.stringContaining(String(BODY_BYTES_MAX)),
  });
  await expectNothingIn(id);
});

/** Sends the head and a part of the body over a socket of its own; answers with what came back before the end. */
async function sendPart(path: string, head: readonly string[], part: string, end: "destroyed" | "half closed"): Promise<string> {
  const { port, hostname } = new URL(stage.drover.url);
  const socket = connect(Number(port), hostname);
  let heard = "";
  socket.on("data", (bytes) => (heard += bytes.toString())).on("error", () => undefined);
  const lines = [
    `POST ${path} HTTP/1.1`,
    "Host: drover",
    `Authorization: Bearer ${stage.drover.token}`,
    "Content-Type: application/json",
    ...head,
  ];
  socket.write(`${lines.join("\r\n")}\r\n\r\n${part}`);
  await sleep(150);
  if (end === "destroyed") socket.destroy();
  else socket.end();
  await sleep(150);
  socket.destroy();
  return heard;
}

test.for([
  ["is destroyed before its declared length", ["Content-Length: 100000"], "destroyed"],
  ["is closed before its declared length", ["Content-Length: 100000"], "half closed"],
  ["is destroyed between two chunks", ["Transfer-Encoding: chunked"], "destroyed"],
  ["is closed between two chunks", ["Transfer-Encoding: chunked"], "half closed"],
] as const)("a body whose connection %s keeps nothing", async ([, head, end]) => {
  const id = await newGoal();
  const tasks = JSON.stringify({ tasks: [visit("half")] });
  const part = head[0].startsWith("Transfer") ? `${tasks.length.toString(16)}\r\n${tasks}\r\n` : tasks;
  const heard = await sendPart(`/v1/goals/${id}/tasks`, head, part, end);
  if (heard !== "") expect(heard).toMatch(/^HTTP\/1\.1 400 /);
  await expectNothingIn(id);
  const named = JSON.stringify({ name: "half a goal" });
  await sendPart("/v1/goals", ["Content-Length: 5000"], named, end);
  expect(await goalsNamed("half a goal")).toBe(0);
});
