/** Capability tokens over HTTP: what each may do, how they are narrowed, and how they end. */
import { expect, test } from "vitest";
import type { Caveat } from "../../shared/token/caveats.ts";
import { call, put } from "./edge-kit.ts";
import { get, good, post, register } from "./goal-kit.ts";
import { narrowedBy, postAs, refusalIn, tokenOf } from "./tokens-kit.ts";

const as = (token: string, method: string, path: string): Promise<Response> => call(method, path, { token });
const newGoal = async (): Promise<string> => (await good<{ id: string }>(post("/v1/goals", {}))).id;
const task = (over: object = {}) => ({ call: { upstream: "tokens-up", path: "/echo", ...over } });

test("a token of one goal reads and changes that goal and nothing else, whether the other one exists or not", async () => {
  const [mine, other] = [await newGoal(), await newGoal()];
  const token = await tokenOf([{ type: "goal", goalId: mine }]);
  expect((await as(token, "GET", `/v1/goals/${mine}`)).status).toBe(200);
  expect((await postAs(token, `/v1/goals/${mine}/pause`)).status).toBe(200);
  const nowhere = "goal_01k00000000000000000000000";
  const refusals = await Promise.all(
    [other, nowhere].flatMap((id) => [
      refusalIn(as(token, "GET", `/v1/goals/${id}`)),
      refusalIn(postAs(token, `/v1/goals/${id}/tasks`, { tasks: [] })),
      refusalIn(as(token, "GET", `/v1/tasks/task_${id.slice(5)}000000`)),
      refusalIn(postAs(token, `/v1/tasks/task_${id.slice(5)}000000/cancel`)),
    ]),
  );
  expect(new Set(refusals)).toEqual(new Set([`403 permission_denied: the token is for the goal ${mine} alone (caveat "goal")`]));
  for (const wide of ["GET /v1/goals", "POST /v1/goals", "GET /v1/upstreams", "GET /v1/policy", "GET /v1/proxy/tokens-up/echo"]) {
    const [method, path] = wide.split(" ") as [string, string];
    expect(await refusalIn(as(token, method, path)), wide).toContain('(caveat "goal")');
  }
});

test.each<[string, string[], string[]]>([
  ["read", ["GET /v1/goals"], ["POST /v1/goals", "GET /v1/upstreams", "POST /v1/tokens/revoke", "GET /v1/proxy/a/b"]],
  ["submit", ["POST /v1/goals"], ["GET /v1/goals", "PUT /v1/policy"]],
  ["approve", [], ["GET /v1/goals", "POST /v1/goals"]],
  ["admin", ["GET /v1/goals", "POST /v1/goals", "GET /v1/upstreams", "GET /v1/policy"], []],
])("the scope %s opens its own routes alone", async (scope, open, closed) => {
  const token = await tokenOf([{ type: "scopes", allow: [scope as "read"] }]);
  for (const route of open) {
    const [method, path] = route.split(" ") as [string, string];
    expect((await as(token, method, path)).status, route).toBeLessThan(300);
  }
  for (const route of closed) {
    const [method, path] = route.split(" ") as [string, string];
    expect(await refusalIn(as(token, method, path)), route).toMatch(/^403 permission_denied: .*caveat "scopes"/);
  }
});

test("a holder narrows a token alone, and a child never has what its parent has not", async () => {
  const parent = await tokenOf([{ type: "scopes", allow: ["read", "submit"] }]);
  const child = await narrowedBy(parent, [{ type: "scopes", allow: ["read"] }]);
  expect((await as(child, "GET", "/v1/goals")).status).toBe(200);
  expect((await postAs(child, "/v1/goals")).status).toBe(403);
  expect((await as(child, "GET", "/v1/upstreams")).status).toBe(403);
  const bought = await tokenOf([{ type: "scopes", allow: ["admin"] }], {}, child);
  expect((await as(bought, "GET", "/v1/upstreams")).status).toBe(403);
});

test("tasks that a token's lists do not allow are rejected by name, one by one or all together", async () => {
  await register("tokens-up");
  const id = await newGoal();
  const lists: Caveat[] = [
    { type: "upstreams", allow: ["tokens-*"] },
    { type: "methods", allow: ["GET"] },
    { type: "paths", allow: ["/echo*"] },
  ];
  const token = await tokenOf([{ type: "goal", goalId: id }, ...lists]);
  const tasks = [
    task(),
    task({ method: "DELETE" }),
    task({ path: "/delay/5" }),
    task({ upstream: "secret" }),
    task({ path: "/echo%2f..%2fx" }),
  ];
  const answer = await good<{ accepted: number; receipts: { index: number; problem: { code: string; detail: string } }[] }>(
    postAs(token, `/v1/goals/${id}/tasks`, { tasks }),
  );
  expect(answer.accepted).toBe(1);
  expect(answer.receipts.map(({ index, problem }) => [index, problem.code, /rule "(\w+)"/.exec(problem.detail)?.[1]])).toEqual([
    [1, "permission_denied", "methods"],
    [2, "permission_denied", "paths"],
    [3, "permission_denied", "upstreams"],
    [4, "permission_denied", "paths"],
  ]);
  expect(await refusalIn(postAs(token, `/v1/goals/${id}/tasks?atomic=true`, { tasks }))).toMatch(/^403 permission_denied/);
});

test("a goal may never do more than the token that made it", async () => {
  await register("tokens-up");
  const token = await tokenOf([{ type: "upstreams", allow: ["other"] }]);
  const { id } = await good<{ id: string }>(postAs(token, "/v1/goals", {}));
  const answer = await good<{ accepted: number }>(post(`/v1/goals/${id}/tasks`, { tasks: [task()] }));
  expect(answer.accepted).toBe(0);
});

test("a call passed through is held to the token's lists", async () => {
  await register("tokens-up");
  const token = await tokenOf([
    { type: "upstreams", allow: ["tokens-up"] },
    { type: "methods", allow: ["GET"] },
  ]);
  const { exports } = await import("cloudflare:workers");
  const entry = (exports as unknown as { default: Fetcher }).default;
  const { env } = await import("cloudflare:workers");
  const minted = await entry.fetch("http://drover.test/v1/tokens", {
    method: "POST",
    body: JSON.stringify({
      caveats: [
        { type: "upstreams", allow: ["tokens-up"] },
        { type: "methods", allow: ["GET"] },
      ],
    }),
    headers: { authorization: `Bearer ${env.ROOT_TOKEN}`, "content-type": "application/json" },
  });
  const { token: own } = await minted.json<{ token: string }>();
  const headers = { authorization: `Bearer ${own}` };
  expect((await entry.fetch("http://drover.test/v1/proxy/tokens-up/echo", { headers })).status).toBe(200);
  expect((await entry.fetch("http://drover.test/v1/proxy/tokens-up/echo", { method: "POST", headers })).status).toBe(403);
  expect((await entry.fetch("http://drover.test/v1/proxy/other/echo", { headers })).status).toBe(403);
  expect(await refusalIn(as(token, "POST", "/v1/proxy/tokens-up/echo"))).toContain('rule "methods"');
});

test("an expired token is refused, also where it was let in before", async () => {
  const token = await tokenOf([], { ttlMs: 400 });
  expect((await as(token, "GET", "/v1/goals")).status).toBe(200);
  await new Promise((resolve) => setTimeout(resolve, 450));
  expect(await refusalIn(as(token, "GET", "/v1/goals"))).toMatch(/^401 unauthorized: .*caveat "expires"/);
});

test("a revoked goal's token fails on its next request, and one that is made then works", async () => {
  const id = await newGoal();
  const token = await tokenOf([{ type: "goal", goalId: id }]);
  expect((await postAs(token, `/v1/goals/${id}/pause`)).status).toBe(200);
  expect(await good(post("/v1/tokens/revoke", { goalId: id }))).toEqual({ goalId: id, epoch: 1 });
  expect((await get<{ epoch: number }>(`/v1/goals/${id}`)).epoch).toBe(1);
  for (const [method, path] of [
    ["POST", `/v1/goals/${id}/resume`],
    ["POST", `/v1/goals/${id}/tasks`],
    ["POST", `/v1/tasks/task_${id.slice(5)}000000/cancel`],
    ["POST", `/v1/tasks/task_${id.slice(5)}000000/approve`],
    ["GET", `/v1/goals/${id}`],
    ["GET", `/v1/goals/${id}/tasks`],
    ["GET", `/v1/goals/${id}/results`],
  ] as const) {
    const answer = method === "POST" ? postAs(token, path, path.endsWith("tasks") ? { tasks: [] } : {}) : as(token, method, path);
    expect(await refusalIn(answer), path).toMatch(/^401 unauthorized: the tokens of this goal were revoked/);
  }
  expect((await get<{ status: string }>(`/v1/goals/${id}`)).status).toBe("paused");
  const later = await tokenOf([{ type: "goal", goalId: id }]);
  expect((await postAs(later, `/v1/goals/${id}/resume`)).status).toBe(200);
});

test("a revoked goal's token is not even given the answers again that it had before", async () => {
  const id = await newGoal();
  const token = await tokenOf([{ type: "goal", goalId: id }]);
  const made = await postAs(token, `/v1/goals/${id}/tasks?receipts=all`, { tasks: [{ group: {} }] });
  const { receipts } = await made.json<{ receipts: [{ taskId: string }] }>();
  const { taskId } = receipts[0];
  await good(post(`/v1/tasks/${taskId}/cancel`, {}));
  const retry = (): Promise<Response> => postAs(token, `/v1/tasks/${taskId}/retry`, {}, { "idempotency-key": "again" });
  expect((await retry()).status).toBe(201);
  expect((await retry()).headers.get("idempotent-replayed")).toBe("true");
  await good(post("/v1/tokens/revoke", { goalId: id }));
  expect(await refusalIn(retry())).toMatch(/^401 unauthorized/);
});

test("when the tenant's tokens are revoked, goals, tasks, configuration and new tokens are closed to them from the next request on", async () => {
  const id = await newGoal();
  const token = await tokenOf([]);
  expect((await as(token, "GET", "/v1/goals")).status).toBe(200);
  const { epoch } = await good<{ epoch: number }>(post("/v1/tokens/revoke", {}));
  expect(epoch).toBeGreaterThan(0);
  for (const path of ["/v1/goals", `/v1/goals/${id}/tasks`, "/v1/tokens", "/v1/tokens/revoke"]) {
    expect(await refusalIn(postAs(token, path, path.endsWith("tasks") ? { tasks: [] } : {})), path).toMatch(/^401 unauthorized: .*revoked/);
  }
  expect((await call("PUT", "/v1/upstreams/tokens-x", { token, body: "{}" })).status).toBe(401);
  expect((await as(await tokenOf([]), "GET", "/v1/goals")).status).toBe(200);
});

test("two keys verify, the first signs, and a token ends when its key goes", async () => {
  const [k1, k2, k3] = ["k1", "k2", "k3"].map((id) => `${id}:${id.repeat(20)}`);
  const mint = async (keys: string): Promise<string> => {
    const made = await call("POST", "/v1/tokens", { env: { TOKEN_KEYS: keys } });
    return (await made.json<{ token: string }>()).token;
  };
  const status = async (keys: string, token: string): Promise<number> =>
    (await call("GET", "/v1/goals", { token, env: { TOKEN_KEYS: keys } })).status;
  const old = await mint(k1!);
  expect(await status(k1!, old)).toBe(200);
  expect(await status(`${k2},${k1}`, old)).toBe(200);
  const young = await mint(`${k2},${k1}`);
  expect(await status(`${k2},${k1}`, young)).toBe(200);
  expect(await status(`${k3},${k2}`, young)).toBe(200);
  expect(await status(`${k3},${k2}`, old)).toBe(401);
  expect(await status(`k1:${"other-secret-".repeat(3)}`, old)).toBe(401);
  expect(await status("", old)).toBe(401);
  expect((await call("GET", "/v1/goals", { env: { TOKEN_KEYS: "k1:short" } })).status).toBe(503);
});

test("the same Idempotency-Key of two subjects is two keys", async () => {
  const [ann, bob] = await Promise.all(["ann", "bob"].map((subject) => tokenOf([], { subject })));
  const make = async (token: string): Promise<string> =>
    (await good<{ id: string }>(postAs(token, "/v1/goals", { name: "same" }, { "idempotency-key": "one" }))).id;
  const first = await make(ann!);
  expect(await make(ann!)).toBe(first);
  expect(await make(await narrowedBy(ann!, [{ type: "scopes", allow: ["submit"] }]))).toBe(first);
  expect(await make(bob!)).not.toBe(first);
});

test.each([
  [{ caveats: [{ type: "colour", allow: ["red"] }] }, "/caveats/0"],
  [
    {
      caveats: [
        { type: "depth", max: 3 },
        { type: "methods", allow: ["GET"], more: 1 },
      ],
    },
    "/caveats/1",
  ],
  [{ caveats: [{ type: "goal", goalId: "goal_x" }] }, "/caveats/0"],
  [{ caveats: "none" }, "/caveats"],
  [{ caveat: [] }, "/caveat"],
])("a request for a token that is not one is refused with its place: %j", async (body, pointer) => {
  const answer = await post("/v1/tokens", body);
  expect(answer.status).toBe(400);
  expect((await answer.json<{ errors: { pointer: string }[] }>()).errors[0]!.pointer).toBe(pointer);
});

test("a token for two goals is not made, and only the root token names another subject", async () => {
  const [one, two] = [await newGoal(), await newGoal()];
  const caveats: Caveat[] = [one, two].map((goalId) => ({ type: "goal", goalId }));
  expect(await refusalIn(post("/v1/tokens", { caveats }))).toMatch(/^403/);
  const token = await tokenOf([caveats[0]!]);
  expect(await refusalIn(postAs(token, "/v1/tokens", { caveats: [caveats[1]!] }))).toMatch(/^403/);
  expect(await refusalIn(postAs(token, "/v1/tokens", { subject: "root" }))).toMatch(/^403/);
  expect((await put("/v1/policy", {})).status).toBe(200);
});
