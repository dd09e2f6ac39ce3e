/** Policies and approval over HTTP: the tenant's, the goal's, and who decides. The tenant of this file is its own. */
import { expect, test } from "vitest";
import { call, put } from "./edge-kit.ts";
import { get, good, goalOf, post, register, type TaskView, tasksOf, until } from "./goal-kit.ts";
import { postAs, refusalIn, tokenOf } from "./tokens-kit.ts";

const task = (method: string, path = "/echo") => ({ call: { upstream: "policed", method, path } });
const statusOf = async (id: string): Promise<string> => {
  const view = await get<TaskView>(`/v1/tasks/${id}`);
  return view.reason === undefined ? view.status : `${view.status}: ${view.reason}`;
};

async function setTenantPolicy(policy: object): Promise<void> {
  const answer = await put("/v1/policy", policy);
  expect(answer.status).toBe(200);
}

test("a goal with a policy shows it, rejects what it denies, and asks for approval", async () => {
  await register("policed");
  const policy = { upstreams: ["policed"], methods: ["GET", "POST"], requireApproval: [{ upstream: "policed", method: "POST" }] };
  const goal = await good<{ id: string; policies: object[] }>(post("/v1/goals", { policy }));
  expect(goal.policies).toEqual([policy]);
  const answer = await good<{ accepted: number; receipts: { taskId: string; problem?: { code: string } }[] }>(
    post(`/v1/goals/${goal.id}/tasks?receipts=all`, { tasks: [task("POST"), task("POST"), task("DELETE"), task("GET")] }),
  );
  expect(answer.receipts.map(({ problem }) => problem?.code)).toEqual([undefined, undefined, "permission_denied", undefined]);
  const [first, second, , fourth] = answer.receipts.map(({ taskId }) => taskId) as [string, string, string, string];
  await until("the GET is done", async () => (await statusOf(fourth)) === "succeeded");
  expect([await statusOf(first), await statusOf(second)]).toEqual(["waiting: approval", "waiting: approval"]);
  const approver = await tokenOf([{ type: "scopes", allow: ["approve"] }]);
  const submitter = await tokenOf([{ type: "scopes", allow: ["submit"] }]);
  const elsewhere = await tokenOf([
    { type: "scopes", allow: ["approve"] },
    { type: "upstreams", allow: ["other"] },
  ]);
  expect(await refusalIn(postAs(submitter, `/v1/tasks/${first}/approve`))).toContain('caveat "scopes"');
  expect(await refusalIn(postAs(elsewhere, `/v1/tasks/${first}/approve`))).toContain('rule "upstreams"');
  await good(postAs(approver, `/v1/tasks/${first}/approve`));
  await good(postAs(approver, `/v1/tasks/${first}/approve`));
  expect(await good<TaskView>(postAs(approver, `/v1/tasks/${second}/deny`))).toMatchObject({
    status: "failed",
    problem: { code: "denied" },
  });
  await until("the approved one is done", async () => (await statusOf(first)) === "succeeded");
  expect(await refusalIn(post(`/v1/tasks/${first}/deny`))).toMatch(/^409 conflict/);
});

test("a goal whose own tasks are forbidden is 403, and leaves nothing", async () => {
  await register("policed");
  expect(await refusalIn(post("/v1/goals", { policy: { methods: [] }, tasks: [task("GET")] }))).toMatch(/^403 permission_denied/);
});

test("the tenant's policy holds for new tasks, for those that wait for their turn, and for calls that are passed through", async () => {
  await register("policed");
  const { id } = await good<{ id: string }>(post("/v1/goals", { tasks: [task("PUT"), task("GET"), task("POST")] }));
  const paused = await good<{ id: string }>(post("/v1/goals", {}));
  await good(post(`/v1/goals/${paused.id}/pause`));
  await good(post(`/v1/goals/${paused.id}/tasks`, { tasks: [task("PUT"), task("GET"), task("POST")] }));
  await until("the first goal is done", async () => (await goalOf(id)).counts.succeeded === 3);
  const policy = { methods: ["GET", "POST"], requireApproval: [{ upstream: "*", method: "POST" }] };
  await setTenantPolicy(policy);
  try {
    expect(await get("/v1/policy")).toEqual(policy);
    await new Promise((resolve) => setTimeout(resolve, 2_100));
    // What is submitted after a rest hears of the change first.
    const later = await good<{ accepted: number }>(post(`/v1/goals/${paused.id}/tasks`, { tasks: [task("PUT")] }));
    expect(later.accepted).toBe(0);
    await good(post(`/v1/goals/${paused.id}/resume`));
    await until("what may run has run", async () => (await goalOf(paused.id)).counts.succeeded === 1);
    const all = await tasksOf(paused.id);
    expect(all.map(({ status, reason, problem }) => reason ?? problem?.code ?? status)).toEqual(["denied", "succeeded", "approval"]);
    const denied = await get<{ problem: { detail: string }; attempts: unknown[] }>(`/v1/tasks/${all[0]!.id}`);
    expect(denied.problem.detail).toContain('the tenant\'s policy does not allow the method PUT (rule "methods")');
    expect(denied.attempts).toEqual([]);
    expect(await refusalIn(call("PUT", "/v1/proxy/policed/echo"))).toContain('rule "methods"');
    expect(await refusalIn(call("POST", "/v1/proxy/policed/echo"))).toContain('rule "requireApproval"');
  } finally {
    await setTenantPolicy({});
  }
  expect(await get("/v1/policy")).toEqual({});
});

test("a policy that is not one is refused, and changes nothing", async () => {
  expect((await put("/v1/policy", { methods: "GET" })).status).toBe(400);
  expect((await post("/v1/goals", { policy: { colours: [] } })).status).toBe(400);
  expect(await get("/v1/policy")).toEqual({});
});
