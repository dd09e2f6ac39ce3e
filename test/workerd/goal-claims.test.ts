/** Workers that pull, against the real object: what is granted is on disk, and who waits is served in turn. */
import { abortAllDurableObjects, evictDurableObject } from "cloudflare:test";
import { expect, test, vi } from "vitest";
import type { GoalView } from "../../shared/protocol/goal.ts";
import { call, problemIn } from "./edge-kit.ts";
import { postAs, refusalIn, tokenOf } from "./tokens-kit.ts";
import { create, delay, get, goalOf, goalStub, good, inLaboratory, newGoalId, post, tasksOf, until } from "./goal-kit.ts";

vi.spyOn(console, "error").mockImplementation(() => undefined);
vi.spyOn(console, "warn").mockImplementation(() => undefined);

interface Claimed {
  readonly taskId: string;
  readonly attempt: number;
  readonly input: unknown;
  readonly leaseExpiresAt: string;
  readonly fence: number;
  readonly locks?: readonly { readonly name: string; readonly fence: number }[];
}

interface Line {
  readonly taskId: string;
  readonly status: string;
  readonly problem?: { readonly code: string; readonly detail: string };
}

type Headers = Record<string, string>;

const works = (count: number, over: object = {}): object[] =>
  Array.from({ length: count }, (_, n) => ({ key: `k${n}`, work: { queue: "review", input: { n } }, ...over }));
const made = (value: object): Promise<GoalView> => good(post("/v1/goals", value));
const ask = (id: string, body: object = {}, headers: Headers = {}): Promise<Response> =>
  post(`/v1/goals/${id}/claims`, { queue: "review", max: 10, leaseMs: 10_000, ...body }, headers);

async function claim(id: string, body: object = {}, headers: Headers = {}): Promise<readonly Claimed[]> {
  return (await good<{ claims: Claimed[] }>(ask(id, body, headers))).claims;
}

async function settle(id: string, ...settlements: readonly object[]): Promise<readonly Line[]> {
  return (await good<{ settlements: Line[] }>(post(`/v1/goals/${id}/claims/settle`, { settlements }))).settlements;
}

async function heartbeat(id: string, claims: readonly object[], leaseMs = 10_000): Promise<readonly string[]> {
  const held = await good<{ claims: readonly { status: string }[] }>(post(`/v1/goals/${id}/claims/heartbeat`, { claims, leaseMs }));
  return held.claims.map(({ status }) => status);
}

const numbers = (claims: readonly Claimed[]): number[] => claims.map(({ input }) => (input as { n: number }).n);

test("work is claimed with its input, settled with a result or a problem, and shown with both", async () => {
  const { id } = await made({ tasks: works(3) });
  expect((await tasksOf(id)).map(({ status, reason }) => `${status} ${reason}`)).toEqual(Array(3).fill("queued claim"));
  const claims = await claim(id);
  expect(numbers(claims)).toEqual([0, 1, 2]);
  expect(claims[0]).toMatchObject({ attempt: 1, leaseExpiresAt: expect.stringMatching(/Z$/), fence: expect.any(Number) });
  const [a, b, c] = claims.map(({ taskId, attempt }) => ({ taskId, attempt }));
  const lines = await settle(
    id,
    { ...a, result: { words: ["ü", null] }, usage: { calls: 2, tokens: 7, costMicros: 9 } },
    { ...b, problem: { code: "illegible", detail: "nobody can read it" } },
    { ...c, problem: { detail: "out of paper", retryable: true } },
  );
  expect(lines.map(({ status }) => status)).toEqual(["settled", "settled", "retrying"]);
  const [first, second, third] = await tasksOf(id);
  expect(first).toMatchObject({
    status: "succeeded",
    result: { status: 200, body: { words: ["ü", null] } },
    usage: { calls: 2, tokens: 7, costMicros: 9 },
  });
  const reported = { code: "illegible", detail: "nobody can read it" };
  expect(second).toMatchObject({ status: "failed", problem: { code: "upstream_error", detail: "nobody can read it", reported } });
  expect(third).toMatchObject({ status: expect.stringMatching(/waiting|queued/), attempts: [{ outcome: "failed" }] });
  expect((await goalOf(id)).budget.spent).toMatchObject({ tasks: 3, tokens: 7, costMicros: 9 });
});

test("what was claimed is on disk before it is answered, and can be settled after the object was gone", async () => {
  const { id } = await made({ tasks: works(2) });
  const [first] = await claim(id, { max: 1 });
  await abortAllDurableObjects();
  const [second] = await claim(id);
  expect(second!.taskId).not.toBe(first!.taskId);
  expect(second!.fence).toBeGreaterThan(first!.fence);
  await evictDurableObject(goalStub(id));
  expect(
    await heartbeat(
      id,
      [first!, second!].map(({ taskId, attempt }) => ({ taskId, attempt })),
    ),
  ).toEqual(["held", "held"]);
  const lines = await settle(id, { taskId: first!.taskId, attempt: 1, result: 1 }, { taskId: second!.taskId, attempt: 1, result: 2 });
  expect(lines.map(({ status }) => status)).toEqual(["settled", "settled"]);
});

test("a claim whose lease ends goes back, is claimed as the next attempt, and its first holder is told", async () => {
  const { id } = await made({ tasks: works(1) });
  const [first] = await claim(id, { leaseMs: 100 });
  const [second] = await claim(id, { waitMs: 10_000 });
  expect(second).toMatchObject({ taskId: first!.taskId, attempt: 2 });
  const [line] = await settle(id, { taskId: first!.taskId, attempt: 1, result: "late" });
  expect(line).toMatchObject({ status: "stale", problem: { code: "stale_attempt", status: 409 } });
  expect(await heartbeat(id, [{ taskId: first!.taskId, attempt: 1 }])).toEqual(["stale"]);
  expect(await get(`/v1/tasks/${first!.taskId}`)).toMatchObject({ status: "running", attempt: 2 });
});

test("three leases that end in a row end the task as poison, with what was last reported", async () => {
  const { id } = await made({ tasks: works(1) });
  const [first] = await claim(id);
  await settle(id, { taskId: first!.taskId, attempt: 1, problem: { detail: "it smells of smoke", retryable: true } });
  for (let i = 0; i < 3; i++) expect(await claim(id, { leaseMs: 100, waitMs: 20_000 })).toHaveLength(1);
  const task = await get(`/v1/tasks/${first!.taskId}`, { prefer: "wait=20" });
  expect(task).toMatchObject({ status: "failed", attempt: 4, problem: { code: "poison", reported: { detail: "it smells of smoke" } } });
});

test("who waits is served in the order of arrival, by the commit that brings work", async () => {
  const { id } = await made({});
  const order: string[] = [];
  const waiting = ["a", "b", "c"].map(async (name, i) => {
    await delay(i * 50);
    const claims = await claim(id, { max: 2, waitMs: 20_000 });
    order.push(`${name}:${String(numbers(claims))}`);
  });
  await delay(300);
  await good(post(`/v1/goals/${id}/tasks`, { tasks: works(3) }));
  await Promise.all(waiting.slice(0, 2));
  expect(order.toSorted()).toEqual(["a:0,1", "b:2"]);
  await good(post(`/v1/goals/${id}/tasks`, { tasks: [{ work: { queue: "other" } }, { work: { queue: "review", input: { n: 9 } } }] }));
  await waiting[2];
  expect(order[2]).toBe("c:9");
});

test("whoever waits in vain is answered without claims, and who waits for a goal that ends is told", async () => {
  const { id } = await made({});
  expect(await claim(id, { waitMs: 50 })).toEqual([]);
  const waiting = ask(id, { waitMs: 20_000 });
  await delay(100);
  await good(post(`/v1/goals/${id}/cancel`));
  expect(await problemIn(await waiting)).toMatchObject({ status: 409, code: "goal_ended" });
});

test("work that comes in the moment of a claim is found by it", async () => {
  const { id } = await made({});
  for (let n = 0; n < 20; n++) {
    const waiting = Promise.all([claim(id, { waitMs: 10_000, max: 1 }), claim(id, { waitMs: 10_000, max: 1 })]);
    if (n % 2 === 0) await delay(n);
    await good(post(`/v1/goals/${id}/tasks`, { tasks: [1, 2].map((part) => ({ work: { queue: "review", input: { n: n + part } } })) }));
    expect((await waiting).map(({ length }) => length)).toEqual([1, 1]);
  }
});

test("work that comes in the very turn in which a claimer finds none is not missed", async () => {
  const run = async (): Promise<string> => "";
  const json = await inLaboratory({ run }, async (goal, id) => {
    await create(goal, id, works(1));
    // All three run in one turn: the work goes before the claimer's turn, and comes after it.
    const canceling = goal.cancelTask(0);
    const place = await goal.awaitClaims({ queue: "review", max: 1, leaseMs: 1_000, waitMs: 3_000 });
    const waiting = place.claimed();
    const body = new TextEncoder().encode(JSON.stringify({ tasks: [{ work: { queue: "review", input: "late" } }] }));
    await Promise.all([canceling, goal.submit({ body, format: "json", allReceipts: false, atomic: false })]);
    const answer = await waiting;
    return answer.ok ? answer.value.json : answer.error.detail;
  });
  expect(json).toContain('"input":"late"');
});

test("who does not wait gets what those in line leave over", async () => {
  const { id } = await made({});
  const waiting = claim(id, { waitMs: 20_000, max: 2 });
  await delay(100);
  const submitting = good(post(`/v1/goals/${id}/tasks`, { tasks: works(3) }));
  expect(numbers(await waiting)).toEqual([0, 1]);
  await submitting;
  expect(numbers(await claim(id))).toEqual([2]);
});

test("a paused goal hands nothing out until it goes on", async () => {
  const { id } = await made({ tasks: works(1) });
  await good(post(`/v1/goals/${id}/pause`));
  expect(await claim(id)).toEqual([]);
  const waiting = claim(id, { waitMs: 20_000 });
  await delay(100);
  await good(post(`/v1/goals/${id}/resume`));
  expect(await waiting).toHaveLength(1);
});

test("a claim request that is repeated under its key returns the same claims, and one that got none may get some", async () => {
  const { id } = await made({});
  const key = { "idempotency-key": "w1" };
  expect(await claim(id, {}, key)).toEqual([]);
  await good(post(`/v1/goals/${id}/tasks`, { tasks: works(2) }));
  const first = await claim(id, { max: 1 }, { "idempotency-key": "w2" });
  const again = await ask(id, { max: 1 }, { "idempotency-key": "w2" });
  expect(again.headers.get("idempotent-replayed")).toBe("true");
  expect(await again.json()).toEqual({ claims: first });
  expect(await claim(id, {}, key)).toHaveLength(1);
  expect(await problemIn(await ask(id, { max: 3 }, { "idempotency-key": "w2" }))).toMatchObject({ status: 422 });
});

test("a settlement brings children in a sealed goal, all or none, and the goal ends with the last of them", async () => {
  const { id } = await made({ tasks: works(1), sealed: true });
  const [root] = await claim(id);
  const settling = { taskId: root!.taskId, attempt: 1, result: "two parts" };
  const [bad] = await settle(id, { ...settling, spawn: [{ work: { queue: "review" } }, { work: { queue: "No" } }] });
  expect(bad).toMatchObject({ status: "rejected", problem: { code: "invalid_request", errors: [{ pointer: "/spawn/1/work/queue" }] } });
  const [stray] = await settle(id, { ...settling, spawn: [{ work: { queue: "review" }, parentTaskId: "elsewhere" }] });
  expect(stray).toMatchObject({ status: "rejected", problem: { errors: [{ pointer: "/spawn/0/parentTaskId" }] } });
  expect((await goalOf(id)).counts).toMatchObject({ running: 1, total: 1 });
  await settle(id, {
    ...settling,
    spawn: [
      { key: "p", work: { queue: "review", input: { n: 5 } } },
      { after: ["p"], work: { queue: "review", input: { n: 6 } } },
    ],
  });
  expect((await goalOf(id)).counts).toMatchObject({ queued: 1, waiting: 2, total: 3 });
  await abortAllDurableObjects();
  for (const n of [5, 6]) {
    const [child] = await claim(id);
    expect(numbers([child!])).toEqual([n]);
    await settle(id, { taskId: child!.taskId, attempt: 1, result: n });
  }
  await until("the goal is done", async () => (await goalOf(id)).status === "succeeded");
  expect(await get(`/v1/tasks/${root!.taskId}`)).toMatchObject({
    status: "succeeded",
    result: { body: "two parts" },
    children: { counts: { succeeded: 2 } },
  });
});

test("the holder of a canceled task is told at heartbeat and settle", async () => {
  const { id } = await made({ tasks: works(1) });
  const [one] = await claim(id);
  await good(post(`/v1/tasks/${one!.taskId}/cancel`));
  expect(await heartbeat(id, [{ taskId: one!.taskId, attempt: 1 }])).toEqual(["canceled"]);
  expect(await settle(id, { taskId: one!.taskId, attempt: 1, result: 1 })).toMatchObject([{ status: "canceled" }]);
});

test("a worker's token pulls from its queue alone, and says nothing of other claims", async () => {
  const { id } = await made({ tasks: [...works(1), { work: { queue: "secret" } }] });
  const token = await tokenOf([
    { type: "goal", goalId: id },
    { type: "scopes", allow: ["work"] },
    { type: "queues", allow: ["review"] },
  ]);
  const [secret] = await claim(id, { queue: "secret" });
  const path = `/v1/goals/${id}/claims`;
  expect(await refusalIn(postAs(token, path, { queue: "secret" }))).toMatch(/^403 permission_denied: .*queues/);
  expect(await refusalIn(postAs(token, `/v1/goals/${id}/tasks`, { tasks: [] }))).toMatch(/^403 .*scopes/);
  const { claims } = await good<{ claims: Claimed[] }>(postAs(token, path, { queue: "review" }));
  const both = [claims[0]!, secret!].map(({ taskId, attempt }) => ({ taskId, attempt }));
  expect(await good(postAs(token, `${path}/heartbeat`, { claims: both }))).toMatchObject({
    claims: [{ status: "held" }, { status: "stale" }],
  });
  const spawn = [{ work: { queue: "secret" } }];
  const settlements = [
    { ...both[0], result: 1, spawn },
    { ...both[1], result: 2 },
    { ...both[0], result: 3 },
  ];
  expect(await good(postAs(token, `${path}/settle`, { settlements }))).toMatchObject({
    settlements: [{ status: "rejected" }, { status: "rejected", problem: { code: "permission_denied" } }, { status: "settled" }],
  });
});

test("work that declares a lock is claimed by one at a time, with the lock's fence", async () => {
  const { id } = await made({ tasks: works(2, { locks: [{ name: "page" }] }) });
  const [first, ...more] = await claim(id);
  expect(more).toEqual([]);
  expect(first).toMatchObject({ locks: [{ name: "page", fence: expect.any(Number) }] });
  await settle(id, { taskId: first!.taskId, attempt: 1, result: 1 });
  const [second] = await claim(id, { waitMs: 10_000 });
  expect(second!.locks![0]!.fence).toBeGreaterThan(first!.locks![0]!.fence);
});

test("equal work is one task where its key comes from its content", async () => {
  const tasks = [1, 1, 2].map((n) => ({ work: { queue: "review", input: { n, a: [] } }, dedupe: "content" }));
  const { id } = await made({ tasks });
  expect(await goalOf(id)).toMatchObject({ counts: { total: 2 }, joined: 1 });
});

test.for([
  ["/claims", {}, "/queue"],
  ["/claims", { queue: "review", max: 1_001 }, "/max"],
  ["/claims", { queue: "review", leaseMs: 1 }, "/leaseMs"],
  ["/claims", { queue: "review", waitMs: 60_001 }, "/waitMs"],
  ["/claims/settle", {}, "/settlements"],
  ["/claims/settle", { settlements: Array(1_001).fill(0) }, "/settlements"],
  ["/claims/heartbeat", { claims: [{ taskId: "x" }] }, "/claims/0/attempt"],
] as const)("%s refuses %j and names the place", async ([path, body, pointer]) => {
  const { id } = await made({});
  expect(await problemIn(await post(`/v1/goals/${id}${path}`, body))).toMatchObject({ status: 400, errors: [{ pointer }] });
});

test.for([
  [{ attempt: 1, result: 1 }, "/taskId"],
  [{ taskId: "x", attempt: 1 }, ""],
  [{ taskId: "x", attempt: 1, result: 1, problem: { detail: "" } }, ""],
  [{ taskId: "x", attempt: 1, problem: {} }, "/problem/detail"],
  [{ taskId: "x", attempt: 1, problem: { detail: "" }, spawn: [] }, ""],
] as const)("one bad settlement, %j, is rejected on its own line", async ([bad, pointer]) => {
  const { id } = await made({ tasks: works(1) });
  const [one] = await claim(id);
  const lines = await settle(id, bad, { taskId: one!.taskId, attempt: 1, result: 1 });
  expect(lines).toMatchObject([{ status: "rejected", problem: { errors: [{ pointer }] } }, { status: "settled" }]);
});

test("claims of a goal that was never made are not found", async () => {
  const id = newGoalId();
  for (const [path, body] of [
    ["/claims", { queue: "review" }],
    ["/claims/settle", { settlements: [] }],
    ["/claims/heartbeat", { claims: [] }],
  ] as const) {
    expect(await problemIn(await post(`/v1/goals/${id}${path}`, body))).toMatchObject({ status: 404 });
  }
  expect((await call("GET", `/v1/goals/${id}/claims`)).status).toBe(405);
});
