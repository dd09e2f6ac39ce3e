/** Functions whose calls take long, on a server as a user starts it: what they hold meanwhile, and what a crash does to them. */
import { connect, type Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { expect, test } from "vitest";
import { call, putFunction, tasksOf, until } from "./api.ts";
import { cpuMs } from "../../bench/cpu.ts";
import { useStage } from "./stage.ts";
import { answerAfter } from "./upstream.ts";

/** Long enough for a server to be killed and started meanwhile. */
const ANSWER_MS = 3_000;
const WINDOW_MS = 1_000;
const TASKS = 20;

const stage = useStage(answerAfter(ANSWER_MS));
const HANDLER = `
let runs = 0;
export default async (input, ctx) => {
  runs++;
  const { status, body } = await ctx.call("real", { path: "/pages/" + input });
  return { input, status, path: body.path, task: ctx.task.id, runs };
};`;

const put = (name: string, code: string): Promise<void> => putFunction(stage.drover, name, code);

test("functions that wait for an upstream hold no processor; those that SIGKILL ends run again under the same task ids, keys and nothing else", async () => {
  await put("waits", HANDLER);
  const { id } = await call<{ id: string }>(stage.drover, "POST", "/v1/goals", {});
  const tasks = Array.from({ length: TASKS }, (_, i) => ({ key: `page-${i}`, run: { function: "waits", input: i } }));
  await call(stage.drover, "POST", `/v1/goals/${id}/tasks`, { tasks });
  const before = stage.upstream.seen.length;
  await stage.upstream.reached(before + 6);
  const pids = [stage.drover.workerdPid(), ...stage.drover.executorPids()];
  const usedMs = cpuMs(...pids);
  await sleep(WINDOW_MS);
  expect(cpuMs(...pids) - usedMs).toBeLessThan(WINDOW_MS / 2);
  const first = stage.upstream.seen.slice(before);
  await stage.crash();
  await until("the goal has run", async () => (await tasksOf(stage.drover, id, "&status=succeeded")).length === TASKS, 60_000);
  const ended = await tasksOf(stage.drover, id);
  for (const { id: taskId, key, result } of ended) {
    const input = Number(key!.slice("page-".length));
    expect(result).toEqual({ status: 200, body: { input, status: 200, path: `/pages/${input}`, task: taskId, runs: 1 } });
    const keys = stage.upstream.seen.filter(({ path }) => path === `/pages/${input}`).map(({ key: sent }) => sent);
    expect(new Set(keys)).toEqual(new Set([`${taskId}.1`]));
  }
  const repeated = first.map(({ path }) => ended.find(({ key }) => path === `/pages/${key!.slice("page-".length)}`)!);
  for (const { attempt } of repeated) expect(attempt).toBe(2);
});

/** Sends an invocation that idles, and nothing more. */
function idling(): Socket {
  const { port } = new URL(stage.drover.url);
  const body = JSON.stringify({ input: false, timeoutMs: 60_000 });
  const head = [
    "POST /v1/functions/idles/invoke HTTP/1.1",
    "host: drover",
    `authorization: Bearer ${stage.drover.token}`,
    "content-type: application/json",
    `content-length: ${body.length}`,
  ];
  const socket = connect(Number(port), "127.0.0.1");
  socket.write(`${head.join("\r\n")}\r\n\r\n${body}`);
  return socket;
}

test("an invocation whose caller goes away ends, and holds nothing any more", async () => {
  await put("idles", "export default (isQuick) => isQuick || new Promise(() => setTimeout(() => {}, 60_000));");
  const answers = (withinMs: number): Promise<boolean> => {
    const signal = AbortSignal.timeout(withinMs);
    const headers = { authorization: `Bearer ${stage.drover.token}`, "content-type": "application/json" };
    const init = { method: "POST", headers, body: JSON.stringify({ input: true }), signal };
    return fetch(`${stage.drover.url}/v1/functions/idles/invoke`, init).then(
      ({ ok }) => ok,
      () => false,
    );
  };
  expect(await answers(10_000)).toBe(true);
  const callers = Array.from({ length: 150 }, idling);
  await sleep(2_000);
  // Every instance is in use.
  expect(await answers(500)).toBe(false);
  // workerd hears of a connection that is reset; of one that is closed it would when it writes.
  for (const caller of callers) caller.resetAndDestroy();
  expect(await answers(10_000)).toBe(true);
});
