/** Five thousand equal calls at once through a started server: one call at the upstream, whatever it says of storing, however long it takes, and whoever leaves. */
import { connect, type Socket } from "node:net";
import { afterEach, expect, test } from "vitest";
import type { GoalView } from "../../shared/protocol/goal.ts";
import { call, goalOf, send, until } from "./api.ts";
import { useStage } from "./stage.ts";
import { answerAfter } from "./upstream.ts";

const HERD = 5_000;
const SECONDS_MAX = 55;

/** `/delay/{ms}`; with `no-store` in the query the answer says so. */
const stage = useStage((incoming, response) => {
  const path = incoming.url ?? "/";
  if (path.includes("no-store")) response.setHeader("cache-control", "no-store");
  answerAfter(Number(/^\/delay\/(\d+)/.exec(path)?.[1] ?? 0))(incoming, response, 0);
});

const sockets: Socket[] = [];
afterEach(() => {
  for (const socket of sockets.splice(0)) socket.destroy();
});

/** A GET on a connection of its own: the status, or 0 where there was none, and the rest. */
function get(path: string, goal?: string): { readonly socket: Socket; readonly answer: Promise<string> } {
  const { port, hostname } = new URL(stage.drover.url);
  const headers = [`Host: drover`, `Authorization: Bearer ${stage.drover.token}`];
  if (goal !== undefined) headers.push(`Drover-Goal: ${goal}`);
  const socket = connect(Number(port), hostname, () =>
    socket.write(`GET /v1/proxy/real${path} HTTP/1.1\r\n${headers.join("\r\n")}\r\n\r\n`),
  );
  sockets.push(socket);
  let heard = "";
  const answer = new Promise<string>((resolve) => {
    socket.on("data", (bytes) => {
      heard += bytes.toString();
      // The server keeps the connection for a while.
      if (hasEnded(heard)) socket.destroy();
    });
    socket.once("error", () => resolve(""));
    socket.once("close", () => resolve(heard));
  });
  return { socket, answer };
}

/** Whether the bytes of an answer that says how long it is have all come. */
function hasEnded(text: string): boolean {
  const head = text.indexOf("\r\n\r\n");
  const length = /^content-length: *(\d+)/im.exec(text.slice(0, head))?.[1];
  return head >= 0 && length !== undefined && text.length >= head + 4 + Number(length);
}

const seenAt = (path: string): number => stage.upstream.seen.filter((one) => one.path === path).length;
const isWhole = (path: string) => (text: string) => text.startsWith("HTTP/1.1 200") && text.endsWith(`{"path":"${path}"}`);

async function herd(path: string, goals: readonly (string | undefined)[]): Promise<void> {
  const startedAtMs = Date.now();
  const answers = await Promise.all(Array.from({ length: HERD }, (_, i) => get(path, goals[i % goals.length]).answer));
  console.info(`${HERD} equal calls of ${path} in ${Date.now() - startedAtMs} ms`);
  expect(answers.filter((text) => !isWhole(path)(text))).toEqual([]);
  expect(answers.filter((text) => text.includes("cache-status: drover; collapsed"))).toHaveLength(HERD - 1);
  expect(seenAt(path)).toBe(1);
}

const newGoal = async (): Promise<string> => (await call<GoalView>(stage.drover, "POST", "/v1/goals", {})).id;

test(
  "five thousand at once are one call, also where nothing may be stored, and for two goals together",
  async () => {
    // Long enough for all to arrive, on a busy machine too.
    await herd("/delay/8000?plain", [undefined]);
    await herd("/delay/5000?no-store", [await newGoal(), await newGoal()]);
  },
  SECONDS_MAX * 1_000,
);

const DISTINCT = 500;

interface Line {
  readonly key?: string;
  readonly status: string;
  readonly result: { readonly body: { readonly path: string } };
}

/** Half of the tasks for each of two goals, at once; each task's path says what its result is. */
async function twoGoals(name: string): Promise<string[]> {
  const tasks = Array.from({ length: HERD / 2 }, (_, i) => {
    return { key: String(i), call: { upstream: "real", path: `/delay/200?${name}-${i % DISTINCT}` }, coalesce: true };
  });
  const made = [0, 1].map(() => call<GoalView>(stage.drover, "POST", "/v1/goals", { sealed: true, tasks }));
  return (await Promise.all(made)).map(({ id }) => id);
}

async function expectResults(name: string, goal: string): Promise<void> {
  const { text } = await send(stage.drover, "GET", `/v1/goals/${goal}/results?follow=true`);
  const lines = text.trim().split("\n").slice(0, -1);
  expect(lines).toHaveLength(HERD / 2);
  for (const line of lines) {
    const { key, status, result } = JSON.parse(line) as Line;
    expect([status, result.body.path]).toEqual(["succeeded", `/delay/200?${name}-${Number(key) % DISTINCT}`]);
  }
}

const callsOf = (name: string): number[] => {
  const counts = new Map<string, number>();
  for (const { path } of stage.upstream.seen) if (path.includes(`?${name}-`)) counts.set(path, (counts.get(path) ?? 0) + 1);
  return [...counts.values()];
};

test(
  "five thousand tasks of two goals, of five hundred kinds, are five hundred calls, and every task has its result",
  async () => {
    const startedAtMs = Date.now();
    const goals = await twoGoals("kind");
    await Promise.all(goals.map((goal) => expectResults("kind", goal)));
    console.info(`${HERD} tasks of ${DISTINCT} kinds in ${Date.now() - startedAtMs} ms`);
    expect(callsOf("kind")).toEqual(Array.from({ length: DISTINCT }, () => 1));
    const spent = await Promise.all(goals.map(async (goal) => (await goalOf(stage.drover, goal)).budget.spent));
    expect(spent.reduce((sum, { calls = 0 }) => sum + calls, 0)).toBe(DISTINCT);
  },
  SECONDS_MAX * 1_000,
);

test(
  "a crash in the middle costs calls again, and no task",
  async () => {
    const goals = await twoGoals("crash");
    await until("some calls are made", () => callsOf("crash").length > 50);
    await stage.crash();
    await Promise.all(goals.map((goal) => expectResults("crash", goal)));
    const calls = callsOf("crash");
    expect(calls).toHaveLength(DISTINCT);
    console.info(`${calls.reduce((sum, count) => sum + count, 0) - DISTINCT} of ${DISTINCT} calls again after a crash`);
  },
  SECONDS_MAX * 1_000,
);

test("whoever leads may leave: the call goes on for the others, and is not made again", async () => {
  const first = get("/delay/1500?leader");
  await until("the call is open", () => seenAt("/delay/1500?leader") === 1);
  const others = Array.from({ length: 50 }, () => get("/delay/1500?leader").answer);
  await new Promise((resolve) => setTimeout(resolve, 500));
  first.socket.resetAndDestroy();
  expect((await Promise.all(others)).filter((text) => !isWhole("/delay/1500?leader")(text))).toEqual([]);
  expect(seenAt("/delay/1500?leader")).toBe(1);
});

test("one who left before anybody else came costs the next one a call, and no failure", async () => {
  const first = get("/delay/1000?lone");
  await until("the call is open", () => seenAt("/delay/1000?lone") === 1);
  first.socket.resetAndDestroy();
  await new Promise((resolve) => setTimeout(resolve, 200));
  const others = await Promise.all(Array.from({ length: 20 }, () => get("/delay/1000?lone").answer));
  expect(others.filter((text) => !isWhole("/delay/1000?lone")(text))).toEqual([]);
  expect(seenAt("/delay/1000?lone")).toBe(2);
});
