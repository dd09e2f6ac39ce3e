/** A goal's own locks by HTTP, and locks that its tasks declare, on real storage and against a real upstream. */
import { abortAllDurableObjects } from "cloudflare:test";
import { inject, expect, test } from "vitest";
import { call, problemIn } from "./edge-kit.ts";
import { get, goalOf, good, post, register, tasksOf, until } from "./goal-kit.ts";

const JSON_TYPE = { "content-type": "application/json" };

const ask = (path: string, holder: string, wait: number | null = null, more: object = {}): Promise<Response> =>
  call("PUT", path, {
    body: JSON.stringify({ holder, ...more }),
    headers: { ...JSON_TYPE, ...(wait === null ? {} : { prefer: `wait=${wait}` }) },
  });
const release = (path: string, body: object): Promise<Response> => call("DELETE", path, { body: JSON.stringify(body), headers: JSON_TYPE });

interface Load {
  readonly total: number;
  readonly max: number;
}

const loadOf = async (name: string): Promise<Load> => (await fetch(`${inject("upstreamUrl")}/counts?name=${name}`)).json();
const slow = (name: string, ms: number, locks: readonly object[], more: object = {}): object => ({
  call: { upstream: "real", path: `/delay/${ms}?name=${name}` },
  locks,
  ...more,
});
const made = (body: object): Promise<{ readonly id: string }> => good(post("/v1/goals", body));
const isOver = (id: string) => async (): Promise<boolean> => !["active", "paused"].includes((await goalOf(id)).status);

test("a goal's lock is granted, waited for, renewed and released by HTTP", async () => {
  const { id } = await made({});
  const path = `/v1/goals/${id}/locks/page`;
  const first = await good<{ fence: number }>(ask(path, "a"));
  expect(await problemIn(await ask(path, "b"))).toMatchObject({ status: 423, code: "lock_held" });
  const waiting = good<{ fence: number }>(ask(path, "b", 30));
  await until("b waits", async () => (await get<{ queue: number }>(path)).queue === 1);
  expect(await good<{ fence: number }>(ask(path, "a"))).toMatchObject({ fence: first.fence });
  expect((await release(path, { fence: first.fence })).status).toBe(204);
  const second = await waiting;
  expect(second.fence).toBeGreaterThan(first.fence);
  expect((await release(path, { fence: second.fence })).status).toBe(204);
  expect((await ask(`/v1/goals/goal_01aaaaaaaaaaaaaaaaaaaaaaaa/locks/x`, "a")).status).toBe(404);
});

test("tasks with one lock never overlap at the upstream, and those without one do", async () => {
  await register("real", {});
  const { id } = await made({ tasks: Array.from({ length: 500 }, () => slow("one", 1, [{ name: "l" }])), sealed: true });
  await until("it is done", isOver(id), 120_000);
  expect(await loadOf("one")).toMatchObject({ total: 500, max: 1 });
  const free = await made({
    tasks: Array.from({ length: 60 }, () => ({ call: { upstream: "real", path: "/delay/20?name=free" } })),
    sealed: true,
  });
  await until("it is done", isOver(free.id), 30_000);
  expect((await loadOf("free")).max).toBeGreaterThan(1);
}, 180_000);

const tenantWide = (name: string): object => ({
  tasks: Array.from({ length: 12 }, () => slow(name, 5, [{ name, scope: "tenant" }])),
  sealed: true,
});

test("tasks of two goals with one lock of the tenant never overlap", async () => {
  await register("real", {});
  const goals = await Promise.all([made(tenantWide("both")), made(tenantWide("both"))]);
  await Promise.all(goals.map(({ id }) => until("it is done", isOver(id), 30_000)));
  expect(await loadOf("both")).toMatchObject({ total: 24, max: 1 });
  expect(await get("/v1/locks/both")).toMatchObject({ held: 0, queue: 0 });
});

test("nobody outside holds as a goal or a task does, so no two tasks enter one lock together", async () => {
  const { id } = await made({});
  const path = `/v1/goals/${id}/locks/page`;
  for (const holder of [id, `${id}/0`, `${id}/0/17`]) {
    expect(await problemIn(await ask(path, holder)), holder).toMatchObject({ status: 400, errors: [{ pointer: "/holder" }] });
  }
  expect((await ask(path, `${id}/0/agent-7`)).status).toBe(200);
});

test("a crash of goals and shards loses no lock and no wait: every task has its turn", async () => {
  await register("real", {});
  const goals = await Promise.all([made(tenantWide("crashed")), made(tenantWide("crashed"))]);
  await until("some have run", async () => (await loadOf("crashed")).total >= 4);
  await abortAllDurableObjects();
  await until("more have run", async () => (await loadOf("crashed")).total >= 12);
  await abortAllDurableObjects();
  await Promise.all(goals.map(({ id }) => until("it is done", isOver(id), 60_000)));
  for (const { id } of goals) expect((await goalOf(id)).counts).toMatchObject({ succeeded: 12 });
}, 90_000);

test("a task that waits for a lock shows it, and a goal that is canceled gives everything back", async () => {
  await register("real", {});
  const tenantWide = "/v1/locks/held-outside";
  const held = await good<{ fence: number }>(ask(tenantWide, "someone"));
  const { id } = await made({ tasks: [slow("held", 1, [{ name: "held-outside", scope: "tenant" }, { name: "mine" }])] });
  await until("it waits there", async () => (await get<{ queue: number }>(tenantWide)).queue === 1);
  expect((await tasksOf(id))[0]).toMatchObject({ status: "waiting", reason: "lock" });
  await good(post(`/v1/goals/${id}/cancel`));
  await until("its place is given back", async () => (await get<{ queue: number }>(tenantWide)).queue === 0);
  expect((await release(tenantWide, { fence: held.fence })).status).toBe(204);
});

test("a call carries the fences of what its task holds", async () => {
  await register("real", {});
  const { id } = await made({
    tasks: [
      { key: "g", group: {}, locks: [{ name: "outer" }] },
      { parentTaskId: "g", call: { upstream: "real", path: "/echo" }, locks: [{ name: "inner", scope: "tenant" }] },
    ],
    sealed: true,
  });
  await until("it is done", isOver(id));
  const [, task] = await tasksOf(id);
  const { headers } = task!.result!.body as { headers: Record<string, string> };
  expect(headers["drover-fence"]).toMatch(/^inner=\d+, outer=1$/);
});

const state = (id: string, key: string): string => `/v1/goals/${id}/state/${key}`;
const write = (path: string, body: object, headers: Record<string, string> = {}): Promise<Response> =>
  call("PUT", path, { body: JSON.stringify(body), headers: { ...JSON_TYPE, ...headers } });

test("shared state is written, read, compared, repeated under a key, and survives a crash", async () => {
  const { id } = await made({});
  const path = state(id, "plan%2F1");
  const keyed = { "idempotency-key": "once" };
  expect(await good(write(path, { value: { steps: [1, "zwei"] }, ifVersion: 0 }, keyed))).toEqual({ version: 1 });
  const again = await write(path, { value: { steps: [1, "zwei"] }, ifVersion: 0 }, keyed);
  expect([again.status, again.headers.get("idempotent-replayed"), await again.json()]).toEqual([200, "true", { version: 1 }]);
  expect(await problemIn(await write(path, { value: null, ifVersion: 0 }))).toMatchObject({ status: 409, code: "stale_version" });
  await abortAllDurableObjects();
  expect(await get(path)).toEqual({ key: "plan/1", version: 1, value: { steps: [1, "zwei"] } });
  expect(await good(write(path, { value: null, ifVersion: 1 }))).toEqual({ version: 2 });
  expect((await call("DELETE", path, { body: '{"ifVersion":1}', headers: JSON_TYPE })).status).toBe(409);
  expect((await call("DELETE", path)).status).toBe(204);
  expect((await call("GET", path)).status).toBe(404);
});

test("a holder that was paused past its time finds its fence refused, and the next holder's write stands", async () => {
  const { id } = await made({});
  const lock = `/v1/goals/${id}/locks/doc`;
  const paused = await good<{ fence: number }>(ask(lock, "a", null, { ttlMs: 150 }));
  const next = await good<{ fence: number }>(ask(lock, "b", 30));
  const under = (fence: number, value: string): Promise<Response> => write(state(id, "doc"), { value, lock: { name: "doc", fence } });
  expect((await under(next.fence, "from b")).status).toBe(200);
  expect(await problemIn(await under(paused.fence, "from a"))).toMatchObject({ status: 409, code: "stale_fence" });
  expect(await get(state(id, "doc"))).toMatchObject({ value: "from b" });
  expect(await problemIn(await release(lock, { fence: paused.fence }))).toMatchObject({ status: 409, code: "stale_fence" });
});

test("bad writes are refused with what to do", async () => {
  const { id } = await made({});
  expect(await problemIn(await write(state(id, "k"), {}))).toMatchObject({ status: 400, code: "invalid_request" });
  expect(await problemIn(await write(state(id, "k"), { value: 1, ifVersion: -1 }))).toMatchObject({ errors: [{ pointer: "/ifVersion" }] });
  expect(await problemIn(await write(state(id, "a%20b"), { value: 1 }))).toMatchObject({ status: 400 });
  expect(await problemIn(await write(state(id, "k"), { value: "x".repeat(70_000) }))).toMatchObject({ status: 413 });
});
