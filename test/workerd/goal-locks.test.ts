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
  const { id } = await made({ tasks: Array.from({ length: 60 }, () => slow("one", 1, [{ name: "l" }])), sealed: true });
  await until("it is done", isOver(id), 30_000);
  expect(await loadOf("one")).toMatchObject({ total: 60, max: 1 });
  const free = await made({
    tasks: Array.from({ length: 60 }, () => ({ call: { upstream: "real", path: "/delay/20?name=free" } })),
    sealed: true,
  });
  await until("it is done", isOver(free.id), 30_000);
  expect((await loadOf("free")).max).toBeGreaterThan(1);
});

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
