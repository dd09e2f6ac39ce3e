/** Workers outside as processes of their own: one is killed in the middle of its work, and so is the server. */
import { type ChildProcess, fork, spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { request } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { afterEach, expect, test } from "vitest";
import { call, goalOf, resultsOf, until } from "./api.ts";
import type { Claim, Told } from "./pull-worker.ts";
import { useStage } from "./stage.ts";
import { answerAfter } from "./upstream.ts";

const PROGRAM = fileURLToPath(new URL("pull-worker.ts", import.meta.url));
const TASKS = 300;

const stage = useStage(answerAfter(0));
const running = new Set<ChildProcess>();
afterEach(() => {
  for (const child of running) child.kill("SIGKILL");
});

interface Worker {
  readonly told: readonly Told[];
  readonly exited: Promise<unknown>;
  kill(): Promise<void>;
}

function startWorker(goalId: string): Worker {
  const { url, token } = stage.drover;
  const child = fork(PROGRAM, [url, token, goalId]);
  const told: Told[] = [];
  running.add(child);
  child.on("message", (message: Told) => told.push(message));
  const exited = once(child, "exit").finally(() => running.delete(child));
  return {
    told,
    exited,
    async kill() {
      child.kill("SIGKILL");
      await exited;
    },
  };
}

const nameOf = ({ taskId, attempt }: Claim): string => `${taskId}.${attempt}`;
const saying = (worker: Worker, what: Told["what"]): Claim[] =>
  worker.told.filter((told) => told.what === what).flatMap(({ claims }) => claims);

async function reviews(): Promise<string> {
  const tasks = Array.from({ length: TASKS }, (_, n) => ({ key: `r${n}`, work: { queue: "review", input: { n } } }));
  const body = JSON.parse(JSON.stringify({ tasks, sealed: true })) as object;
  return (await call<{ id: string }>(stage.drover, "POST", "/v1/goals", body)).id;
}

/** Claims that a worker has taken and had no answer for. */
function openOf(worker: Worker): Claim[] {
  const settled = new Set(saying(worker, "settled").map(nameOf));
  return saying(worker, "claimed").filter((claim) => !settled.has(nameOf(claim)));
}

test("one of two workers is killed midway: every task is done once, or again as a later attempt", async () => {
  const goalId = await reviews();
  const [killed, other] = [startWorker(goalId), startWorker(goalId)];
  await until("both are at work", () => saying(killed, "settled").length >= 20 && saying(other, "settled").length >= 20);
  await until("it holds claims", () => openOf(killed).length > 0 && killed.told.at(-1)!.what === "claimed");
  await killed.kill();
  const lost = openOf(killed);
  expect(lost.length).toBeGreaterThan(0);
  const { tasks, end } = await resultsOf(stage.drover, goalId);
  await other.exited;
  expect(end.status).toBe("succeeded");
  expect(new Set(tasks.map(({ id }) => id)).size).toBe(TASKS);
  const claims = [...saying(killed, "claimed"), ...saying(other, "claimed")];
  expect(new Set(claims.map(nameOf)).size).toBe(claims.length);
  // Only what the killed one held was done again.
  const again = tasks.filter(({ attempt }) => attempt > 1).map(({ id }) => id);
  expect(again.toSorted()).toEqual(
    lost
      .map(({ taskId }) => taskId)
      .filter((id) => again.includes(id))
      .toSorted(),
  );
  expect(again.length).toBeGreaterThan(0);
  for (const { id, attempt, result } of tasks) {
    const last = claims.find((claim) => claim.taskId === id && claim.attempt === attempt)!;
    expect(result!.body).toMatchObject({ n: last.input.n });
    const earlier = claims.filter((claim) => claim.taskId === id && claim.attempt < attempt);
    expect(earlier.every(({ fence }) => fence < last.fence)).toBe(true);
  }
});

test("a settlement for a claim that another worker has by now is stale, and changes nothing", async () => {
  const goalId = await reviews();
  const path = `/v1/goals/${goalId}/claims`;
  const claim = async (leaseMs: number): Promise<Claim> => {
    return (await call<{ claims: Claim[] }>(stage.drover, "POST", path, { queue: "review", leaseMs, waitMs: 10_000, max: TASKS }))
      .claims[0]!;
  };
  const first = await claim(100);
  const second = await claim(60_000);
  expect(second).toMatchObject({ taskId: first.taskId, attempt: 2 });
  const before = await call(stage.drover, "GET", `/v1/tasks/${first.taskId}`);
  const settle = (attempt: number, result: string): Promise<object> =>
    call(stage.drover, "POST", `${path}/settle`, { settlements: [{ taskId: first.taskId, attempt, result }] });
  expect(await settle(1, "late")).toMatchObject({ settlements: [{ status: "stale", problem: { code: "stale_attempt", status: 409 } }] });
  expect(await call(stage.drover, "GET", `/v1/tasks/${first.taskId}`)).toEqual(before);
  expect(await settle(2, "in time")).toMatchObject({ settlements: [{ status: "settled" }] });
  expect(await call(stage.drover, "GET", `/v1/tasks/${first.taskId}`)).toMatchObject({ status: "succeeded", result: { body: "in time" } });
  await call(stage.drover, "POST", `/v1/goals/${goalId}/cancel`);
});

test("claims outlive a server that is killed: their holder settles them with the next one", async () => {
  const goalId = await reviews();
  const path = `/v1/goals/${goalId}/claims`;
  const take = { queue: "review", leaseMs: 60_000, max: 50 };
  const headers = { "idempotency-key": "before the crash" };
  const { claims } = await call<{ claims: Claim[] }>(stage.drover, "POST", path, take, headers);
  await stage.crash();
  const again = await call<{ claims: Claim[] }>(stage.drover, "POST", path, take, headers);
  expect(again.claims).toEqual(claims);
  const settlements = claims.map(({ taskId, attempt, input }) => ({ taskId, attempt, result: input }));
  const settled = await call<{ settlements: { status: string }[] }>(stage.drover, "POST", `${path}/settle`, { settlements });
  expect(settled.settlements.every(({ status }) => status === "settled")).toBe(true);
  expect((await goalOf(stage.drover, goalId)).counts).toMatchObject({ succeeded: 50, queued: TASKS - 50, running: 0 });
  await call(stage.drover, "POST", `/v1/goals/${goalId}/cancel`);
});

test("the smallest worker of the docs does a goal's work", async () => {
  const goalId = await reviews();
  const [, code] = /```js\n([^]*?)```/.exec(readFileSync(new URL("../../docs/coordination/pull.md", import.meta.url), "utf8"))!;
  const env = { ...process.env, DROVER_URL: stage.drover.url, DROVER_TOKEN: stage.drover.token, GOAL_ID: goalId };
  const source = `const review = async ({ n }) => ({ n, verdict: "good" });\n${code}`;
  const child = spawn(process.execPath, ["--input-type=module", "--eval", source], { env, stdio: "ignore" });
  running.add(child);
  const { tasks, end } = await resultsOf(stage.drover, goalId);
  expect([tasks.length, end.status]).toEqual([TASKS, "succeeded"]);
  expect(tasks.every(({ attempt, result }) => attempt === 1 && (result!.body as { verdict: string }).verdict === "good")).toBe(true);
});

test("a worker that goes away while it waits leaves the line, and the work goes to one that is there", async () => {
  const { id } = await call<{ id: string }>(stage.drover, "POST", "/v1/goals", {});
  const path = `/v1/goals/${id}/claims`;
  const headers = { authorization: `Bearer ${stage.drover.token}`, "content-type": "application/json" };
  const waiting = { queue: "review", leaseMs: 60_000, waitMs: 30_000 };
  const outgoing = request(stage.drover.url + path, { method: "POST", headers });
  outgoing.on("error", () => undefined).end(JSON.stringify(waiting));
  await sleep(300);
  // A reset: whoever only closes its half may still be reading.
  outgoing.socket!.resetAndDestroy();
  await sleep(300);
  await call(stage.drover, "POST", `/v1/goals/${id}/tasks`, { tasks: [{ work: { queue: "review" } }] });
  const { claims } = await call<{ claims: Claim[] }>(stage.drover, "POST", path, { ...waiting, waitMs: 5_000 });
  expect(claims).toMatchObject([{ attempt: 1 }]);
});
