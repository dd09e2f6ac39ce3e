/** `Prefer: respond-async`: what cannot run in time becomes a task, and what can is passed through as ever. */
import { expect, inject, test } from "vitest";
import { countsOf } from "./executor-kit.ts";
import { type Echo, newGoal, proxied, send, until, upstream } from "./proxy-kit.ts";

const ASYNC = { prefer: "respond-async, wait=0" };

interface Queued {
  readonly goalId: string;
  readonly taskId: string;
  readonly status: string;
}

interface Task {
  readonly status: string;
  readonly goalId: string;
  readonly result?: { readonly status: number; readonly body: unknown };
}

const taskOf = async (id: string): Promise<Task> => (await send("GET", `/v1/tasks/${id}`, { headers: { prefer: "wait=20" } })).json();

/** Takes the upstream's only permit for a while; resolves to what waits for its end. */
async function occupy(name: string): Promise<() => Promise<unknown>> {
  await upstream(name, { maxConcurrency: 1 });
  const slow = proxied("GET", `${name}/delay/2500?name=${name}`).then((response) => response.text());
  await until("the slow call is open", async () => (await countsOf(name)).inFlight === 1);
  return () => slow;
}

test("a call that can run at once is passed through, whatever its caller would accept", async () => {
  await upstream("free");
  const response = await proxied("GET", "free/body?text=ok", { headers: { prefer: "respond-async" } });
  expect([response.status, await response.text()]).toEqual([200, "ok"]);
});

test("a call without a permit becomes a task with its method, path, headers and body, and its result can be asked for", async () => {
  const release = await occupy("busy");
  const body = new Uint8Array([0, 1, 255]);
  const options = { body, headers: { ...ASYNC, "x-own": "kept", "content-type": "application/octet-stream", cookie: "c=1" } };
  const response = await proxied("POST", "busy/echo?x=%20y", options);
  expect(response.status).toBe(202);
  expect(response.headers.get("preference-applied")).toBe("respond-async");
  const queued = await response.json<Queued>();
  expect(queued.status).toBe("queued");
  expect(response.headers.get("location")).toBe(`/v1/tasks/${queued.taskId}`);
  await release();
  const task = await taskOf(queued.taskId);
  expect(task).toMatchObject({ status: "succeeded", goalId: queued.goalId });
  const echo = task.result!.body as Echo;
  expect(echo).toMatchObject({ method: "POST", path: "/echo?x=%20y" });
  expect(echo.headers).toMatchObject({ "x-own": "kept", cookie: "c=1", "idempotency-key": queued.taskId });
  expect(echo.headers).not.toHaveProperty("authorization");
});

test("such calls of one caller belong to one standing goal, and those for a goal to that goal", async () => {
  const release = await occupy("held");
  const call = async (headers: Record<string, string> = {}): Promise<Queued> =>
    (await proxied("GET", "held/body?text=x", { headers: { ...ASYNC, ...headers } })).json();
  const [one, two] = [await call(), await call()];
  expect(two.goalId).toBe(one.goalId);
  expect(two.taskId).not.toBe(one.taskId);
  const goal = await newGoal();
  expect((await call({ "drover-goal": goal })).goalId).toBe(goal);
  await release();
  await until("the standing goal is idle", async () => (await taskOf(two.taskId)).status === "succeeded");
});

test("a call with a key is one task however often it is made, and runs once", async () => {
  await upstream("keyed-later", { origins: [inject("upstreamUrl")] });
  const headers = { ...ASYNC, "idempotency-key": "order-1" };
  const all = await Promise.all(
    Array.from({ length: 10 }, async () => (await proxied("POST", "keyed-later/body?name=keyed-later&text=x", { headers })).json<Queued>()),
  );
  expect(new Set(all.map(({ taskId }) => taskId)).size).toBe(1);
  expect((await taskOf(all[0]!.taskId)).status).toBe("succeeded");
  expect((await countsOf("keyed-later")).total).toBe(1);
});
