/** Executors in processes of their own: they do the work, and whatever becomes of them, no task is lost and none of them is left behind. */
import { mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { expect, test } from "vitest";
import type { Drover } from "../../client/cli/server/child.ts";
import { startTimeOf } from "../../client/cli/server/processes.ts";
import { call, goalOf, putFunction, send, tasksOf, until } from "./api.ts";
import { cpuMs } from "../../bench/cpu.ts";
import { useServers } from "./servers.ts";
import { useStage } from "./stage.ts";
import { answerAfter } from "./upstream.ts";

const ANSWER_MS = 1_500;
const EXECUTORS = 2;
const stage = useStage(answerAfter(ANSWER_MS), {}, EXECUTORS);
const BUSY = "export default (n) => { let x = n; for (let i = 0; i < 60_000; i++) x += i; return x; };";
const WAITS = `export default async (n, ctx) => (await ctx.call("real", { path: "/waits/" + n })).body.path;`;
const busyOf = (n: number): number => n + (60_000 * 59_999) / 2;

const { newFolder, start: startWith } = useServers();

const start = (dataDir: string, executors: number, env: Record<string, string> = {}): Promise<Drover> =>
  startWith({ dataDir, executors, env, onStderr: () => undefined });

const isAlive = (pid: number): boolean => startTimeOf(pid) !== null;

/** All of them have been started, and run. */
async function executorsOf(drover: Drover): Promise<number[]> {
  const areUp = (): boolean => drover.executorPids().length === EXECUTORS && drover.executorPids().every(isAlive);
  await until("the executors run", areUp);
  return drover.executorPids();
}

/** Runs so many busy functions, and looks at each result. */
async function runBusy(drover: Drover, count: number): Promise<void> {
  await putFunction(drover, "busy", BUSY);
  const tasks = Array.from({ length: count }, (_, n) => ({ key: `${n}`, run: { function: "busy", input: n } }));
  const { id } = await call<{ id: string }>(drover, "POST", "/v1/goals", { tasks, sealed: true });
  await until("the functions have run", async () => (await goalOf(drover, id)).counts.succeeded === count);
  for (const { key, result } of await tasksOf(drover, id)) expect(result!.body).toBe(busyOf(Number(key)));
}

test("functions run in the executors' processes, on as many cores", async () => {
  const pids = await executorsOf(stage.drover);
  await runBusy(stage.drover, 200);
  for (const pid of pids) expect(cpuMs(pid)).toBeGreaterThan(cpuMs(stage.drover.workerdPid()) / 4);
  const before = pids.map((pid) => cpuMs(pid));
  await runBusy(stage.drover, 200);
  const used = pids.map((pid, i) => cpuMs(pid) - before[i]!);
  expect(Math.max(...used)).toBeLessThan(4 * Math.min(...used));
});

test("when executors are killed, functions run again as the same tasks, what must not be repeated is not, and others take over", async () => {
  const { drover, upstream } = stage;
  await putFunction(drover, "waits", WAITS);
  const pids = await executorsOf(drover);
  const before = upstream.seen.length;
  const runs = Array.from({ length: 10 }, (_, n) => ({ key: `run-${n}`, run: { function: "waits", input: n } }));
  const posts = Array.from({ length: 4 }, (_, n) => ({
    key: `post-${n}`,
    call: { upstream: "real", method: "POST", path: `/posts/${n}` },
  }));
  const { id } = await call<{ id: string }>(drover, "POST", "/v1/goals", { tasks: [...runs, ...posts], sealed: true });
  await upstream.reached(before + 14);
  for (const pid of pids) process.kill(pid, "SIGKILL");
  await until("the functions have run", async () => (await goalOf(drover, id)).counts.succeeded === 10);
  for (const task of await tasksOf(drover, id)) {
    const keys = upstream.seen
      .slice(before)
      .filter(({ path }) => path.endsWith(task.key!.replace("run-", "/waits/").replace("post-", "/posts/")));
    if (task.key!.startsWith("post-")) {
      // Its outcome is unknown from the end of its lease on; an answer may come until then.
      expect([task.key, task.status, keys.length]).toEqual([task.key, "running", 1]);
    } else {
      expect([task.key, task.status]).toEqual([task.key, "succeeded"]);
      // The first to be killed had its runs taken over by the second.
      expect(task.attempt).toBeGreaterThanOrEqual(2);
      expect(task.attempt).toBeLessThanOrEqual(3);
      expect(new Set(keys.map(({ key }) => key))).toEqual(new Set([`${task.id}.1`]));
    }
  }
  const next = await executorsOf(drover);
  for (const pid of next) expect(pids).not.toContain(pid);
  await runBusy(drover, 100);
  for (const pid of next) expect(cpuMs(pid)).toBeGreaterThan(0);
});

/** Milliseconds until the server says that it is well. */
async function wellAfterMs(): Promise<number> {
  const startedAt = performance.now();
  expect((await fetch(`${stage.drover.url}/healthz`)).status).toBe(200);
  return performance.now() - startedAt;
}

test("a function that is invoked by itself and loops for ever stops a process of an executor, and not the server", async () => {
  const { drover } = stage;
  await putFunction(drover, "loops", "export default () => { for (;;); };", "isolate");
  await putFunction(drover, "doubles", "export default (n) => { console.log('doubling', n); return n * 2; };");
  const pids = await executorsOf(drover);
  const looping = send(drover, "POST", "/v1/functions/loops/invoke", JSON.stringify({ timeoutMs: 1_500 }));
  await until("it loops", () => pids.some((pid) => cpuMs(pid) > 1_000), 10_000);
  expect(await wellAfterMs()).toBeLessThan(1_000);
  const { status, text } = await looping;
  expect([status, (JSON.parse(text) as { detail: string }).detail]).toEqual([500, "the function did not end within 1500 ms"]);
  for (let n = 0; n < 4; n++) {
    const doubled = await call(drover, "POST", "/v1/functions/doubles/invoke", { input: n });
    expect(doubled).toMatchObject({ output: 2 * n, logs: [{ text: `doubling ${n}` }] });
  }
  // It would be ended after a minute without an answer.
  for (const pid of pids) process.kill(pid, "SIGKILL");
  await until("others have taken their place", () => drover.executorPids().every((pid) => !pids.includes(pid) && isAlive(pid)));
});

test("an invocation whose process is killed is answered, and says what to do", async () => {
  const { drover } = stage;
  await putFunction(drover, "idles", "export default () => new Promise(() => setTimeout(() => {}, 30_000));");
  const pids = await executorsOf(drover);
  const idling = send(drover, "POST", "/v1/functions/idles/invoke", JSON.stringify({ timeoutMs: 30_000 }));
  // It idles by then.
  await sleep(500);
  for (const pid of pids) process.kill(pid, "SIGKILL");
  const { status, text } = await idling;
  expect(status).toBe(503);
  expect(text).toContain("invoke it again");
});

test("executors end with the workerd that they work for, whoever ends it", async () => {
  const folder = newFolder();
  const first = await start(folder, EXECUTORS);
  const before = await executorsOf(first);
  const workerd = first.workerdPid();
  process.kill(workerd, "SIGKILL");
  await until("the executors have ended", () => !before.some(isAlive));
  await until("there are others", () => first.executorPids().every((pid) => !before.includes(pid) && isAlive(pid)));
  await until("workerd is back", () => first.workerdPid() !== workerd);
  await runBusy(first, 20);

  // Its server gone, a workerd works on, and its executors with it.
  const orphans = await executorsOf(first);
  await first.kill("parent");
  expect(orphans.filter(isAlive)).toEqual(orphans);
  const second = await start(folder, EXECUTORS);
  await until("the next server has ended them", () => !orphans.some(isAlive));

  const killed = await executorsOf(second);
  await second.kill("all");
  await until("they end with everything", () => !killed.some(isAlive));
  const third = await start(folder, EXECUTORS);
  const stopped = await executorsOf(third);
  expect(await third.stop()).toBe(0);
  expect(stopped.filter(isAlive)).toEqual([]);
});

test("without executors the server's own process does it all", async () => {
  const drover = await start(newFolder(), 0);
  expect(drover.executorPids()).toEqual([]);
  await runBusy(drover, 20);
});

test("a server that cannot give executors processes says so, and does it all itself", async () => {
  const programs = newFolder();
  writeFileSync(join(programs, "mkfifo"), "#!/bin/sh\necho no pipes here >&2\nexit 1\n", { mode: 0o755 });
  let said = "";
  const PATH = `${programs}:${process.env["PATH"]}`;
  const drover = await startWith({ dataDir: newFolder(), executors: EXECUTORS, env: { PATH }, onStderr: (text) => void (said += text) });
  expect(said).toContain("executors cannot have processes of their own");
  expect(drover.executorPids()).toEqual([]);
  await runBusy(drover, 20);
});

test("a data folder whose path is too long for a socket has its sockets elsewhere, and nothing of them stays", async () => {
  const temporary = newFolder();
  const folder = join(newFolder(), "long-".repeat(20));
  mkdirSync(folder);
  const drover = await start(folder, EXECUTORS, { TMPDIR: temporary });
  const pids = await executorsOf(drover);
  expect(readdirSync(temporary)).not.toEqual([]);
  await runBusy(drover, 100);
  for (const pid of pids) expect(cpuMs(pid)).toBeGreaterThan(100);
  await drover.stop();
  expect(readdirSync(temporary).filter((name) => name.startsWith("drover-"))).toEqual([]);
});
