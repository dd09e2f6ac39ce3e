/** What the goal lets its tasks do: policies when a task is taken and when its turn comes, approval, and the epoch of its tokens. */
import { expect, test } from "vitest";
import { policiesBehind } from "../../durable-objects/goal/core/rights.ts";
import type { Policy } from "../../shared/policy/rules.ts";
import type { TaskSpec } from "../../shared/protocol/task.ts";
import { Driver, durable, get, group, post, upstream } from "./goal-harness.ts";

const work = (queue: string): TaskSpec => ({ work: { queue } });
const goalWith = (policy: Policy, tasks: TaskSpec[] = []): Driver => new Driver({ spec: { policies: [policy] }, tasks });
const APPROVE_POSTS: Policy = { requireApproval: [{ upstream: "api", method: "POST" }] };

let version = 1;
const tenantSays = (goal: Driver, policy: Policy | null): void =>
  void goal.do({ kind: "upstreams", version: ++version, upstreams: [upstream()], policy });

function reasonOf(goal: Driver, task: number): string {
  return `${goal.status(task)}/${goal.state.tasks.reason[task]}/${goal.state.tasks.code[task]}`;
}
const FOR_APPROVAL = "waiting/6/0";
const DENIED = "failed/0/11";

/** Everything is on disk as it is in memory. */
const survives = (goal: Driver): void => expect(durable(goal.replayed())).toEqual(durable(goal.state));

test("a task that the policy does not allow is rejected, and what relies on it too; the others are taken", () => {
  const goal = goalWith({ methods: ["GET"], queues: ["in*"] });
  const reply = goal.submit([post({ key: "p" }), get(), get({ after: ["p"] }), work("inbox"), work("other"), group()]);
  expect(reply.ok && [...reply.value.receipts!.rejected].map(([place, { code }]) => [place, code])).toEqual([
    [0, "permission_denied"],
    [4, "permission_denied"],
    [2, "invalid_request"],
  ]);
  survives(goal);
});

test("an atomic request is 403 where all that is wrong is forbidden, and 400 otherwise", () => {
  const goal = goalWith({ methods: ["GET"] });
  expect(goal.submit([post(), get()], true)).toMatchObject({
    ok: false,
    error: { code: "permission_denied", errors: [{ pointer: "/tasks/0/call" }] },
  });
  expect(goal.submit([post(), get({ after: ["nobody"] })], true)).toMatchObject({ ok: false, error: { code: "invalid_request" } });
  expect(goal.state.tasks.n).toBe(0);
});

test("a goal whose own tasks it does not allow is not made", () => {
  expect(goalWith({ upstreams: [] }, [get()]).state.goal).toBeNull();
});

test("levels and children are bounded, counted over all requests", () => {
  const goal = goalWith({ maxDepth: 1, maxChildrenPerTask: 2 });
  goal.submit([group({ key: "a" }), group({ key: "b", parentTaskId: "a" })]);
  const reply = goal.submit([get({ parentTaskId: "b" }), get({ parentTaskId: "a" }), get({ parentTaskId: "a" })]);
  expect(reply.ok && [...reply.value.receipts!.rejected].map(([place, { detail }]) => [place, /rule "(\w+)"/.exec(detail)![1]])).toEqual([
    [0, "maxDepth"],
    [2, "maxChildrenPerTask"],
  ]);
});

test("a token's policies hold for its own requests, and are remembered for what is done on their tasks' behalf", () => {
  const goal = new Driver();
  const submit = (specs: TaskSpec[], policies: Policy[]) =>
    goal.do({ kind: "submit", specs, failures: new Map(), contentKeys: new Map(), atomic: false }, { policies });
  const slim: Policy[] = [{ methods: ["GET"] }];
  expect(submit([get(), post()], slim)).toMatchObject({ value: { receipts: { accepted: 1 } } });
  expect(submit([post(), post()], [])).toMatchObject({ value: { receipts: { accepted: 2 } } });
  submit([get()], slim);
  submit([get()], slim);
  expect([0, 1, 2, 3, 4].map((task) => policiesBehind(goal.state, task))).toEqual([slim, [], [], slim, slim]);
  expect(goal.state.rights.brought).toHaveLength(2);
  goal.runAll();
  expect(goal.do({ kind: "retry-task", task: 1 }, { policies: slim })).toMatchObject({ ok: false, error: { code: "permission_denied" } });
  goal.do({ kind: "retry-task", task: 0 });
  expect(policiesBehind(goal.state, 5)).toEqual(slim);
  survives(goal);
});

test("a token resolves no task that it might not submit: nobody has a call made again that is not theirs", () => {
  const goal = new Driver({ tasks: [post()] });
  goal.dispatch();
  goal.settle([0], { outcome: "broken" });
  for (const as of ["retry", "succeeded", "failed"] as const) {
    const resolve = { kind: "resolve", task: 0, as, line: null } as const;
    expect(goal.do(resolve, { policies: [{ methods: ["GET"] }] })).toMatchObject({ ok: false, error: { code: "permission_denied" } });
  }
  expect(goal.status(0)).toBe("waiting");
  expect(goal.do({ kind: "resolve", task: 0, as: "retry", line: null }, { policies: [{ methods: ["POST"] }] }).ok).toBe(true);
  expect(goal.status(0)).toBe("queued");
});

test("what needs approval waits for it, after what it comes after and before its turn", () => {
  const goal = goalWith(APPROVE_POSTS);
  goal.submit([get({ key: "first" }), post({ after: ["first"] }), post(), get()]);
  expect(goal.statuses()).toEqual(["queued", "waiting", "waiting", "queued"]);
  goal.runAll();
  expect([1, 2].map((task) => reasonOf(goal, task))).toEqual([FOR_APPROVAL, FOR_APPROVAL]);
  expect(goal.do({ kind: "approve-task", task: 1 })).toEqual({ ok: true, value: { task: 1 } });
  expect(goal.do({ kind: "deny-task", task: 2 }).ok).toBe(true);
  goal.runAll();
  expect([goal.status(1), reasonOf(goal, 2)]).toEqual(["succeeded", DENIED]);
  survives(goal);
});

test("an approval may come before the task is ready for it, and is not forgotten", () => {
  const goal = goalWith(APPROVE_POSTS);
  goal.submit([get({ key: "first" }), post({ after: ["first"] }), get({ key: "second" }), post({ after: ["second"] })]);
  goal.do({ kind: "approve-task", task: 1 });
  goal.do({ kind: "deny-task", task: 3 });
  expect([goal.status(1), reasonOf(goal, 3)]).toEqual(["waiting", DENIED]);
  goal.runAll();
  expect(goal.status(1)).toBe("succeeded");
  survives(goal);
});

test("deciding again changes nothing, deciding otherwise is a conflict, and what needs no approval has none to be given", () => {
  const goal = goalWith(APPROVE_POSTS);
  goal.submit([post(), post(), get()]);
  goal.do({ kind: "approve-task", task: 0 });
  goal.do({ kind: "deny-task", task: 1 });
  const { length } = goal.journal;
  expect(goal.do({ kind: "approve-task", task: 0 }).ok).toBe(true);
  expect(goal.do({ kind: "deny-task", task: 1 }).ok).toBe(true);
  for (const [kind, task] of [
    ["deny-task", 0],
    ["approve-task", 1],
    ["approve-task", 2],
    ["deny-task", 2],
  ] as const) {
    expect(goal.do({ kind, task }), `${kind} ${task}`).toMatchObject({ ok: false, error: { code: "conflict" } });
  }
  goal.runAll();
  expect(goal.do({ kind: "approve-task", task: 0 }).ok).toBe(true);
  expect(goal.do({ kind: "approve-task", task: 9 })).toMatchObject({ ok: false, error: { code: "not_found" } });
  expect(goal.journal.slice(length).filter(({ kind }) => kind === "task.approved")).toEqual([]);
});

test("a retry of what was approved needs approval anew", () => {
  const goal = goalWith(APPROVE_POSTS, [post()]);
  goal.do({ kind: "approve-task", task: 0 });
  goal.runAll();
  goal.do({ kind: "retry-task", task: 0 });
  expect(reasonOf(goal, 1)).toBe(FOR_APPROVAL);
});

test("approval waits through pause, expiry and cancel as any waiting does", () => {
  const goal = goalWith(APPROVE_POSTS, [post({ ttlMs: 100 }), post(), post()]);
  goal.do({ kind: "cancel-task", task: 1 });
  goal.passMs(200);
  expect(goal.statuses()).toEqual(["expired", "canceled", "waiting"]);
  goal.do({ kind: "cancel" });
  expect(goal.do({ kind: "approve-task", task: 2 })).toMatchObject({ ok: false, error: { code: "conflict" } });
});

test("tasks from before a change of the tenant's policy are looked at again when their turn comes, and no others", () => {
  const goal = new Driver({ tasks: [post({ key: "p" }), get(), post({ priority: "background" }), get({ after: ["p"] })] });
  tenantSays(goal, { methods: ["GET"] });
  expect(goal.statuses()).toEqual(["queued", "queued", "queued", "waiting"]);
  expect(goal.dispatch().flatMap(({ tasks }) => tasks)).toEqual([1]);
  expect([0, 2].map((task) => reasonOf(goal, task))).toEqual([DENIED, DENIED]);
  expect(goal.status(3)).toBe("canceled");
  expect(goal.submit([post()])).toMatchObject({ value: { receipts: { accepted: 0 } } });
  survives(goal);
});

test("a policy that asks for approval parks what is queued; approved, it goes to the end of its queue and runs", () => {
  const goal = new Driver({ tasks: [get(), post(), post(), get()] });
  tenantSays(goal, APPROVE_POSTS);
  expect(goal.dispatch().flatMap(({ tasks }) => tasks)).toEqual([0, 3]);
  expect([1, 2].map((task) => reasonOf(goal, task))).toEqual([FOR_APPROVAL, FOR_APPROVAL]);
  goal.do({ kind: "approve-task", task: 1 });
  survives(goal);
  expect(goal.dispatch().flatMap(({ tasks }) => tasks)).toEqual([1]);
  survives(goal);
});

test("a policy that is taken back or widened holds nothing up", () => {
  const goal = new Driver({ tasks: [post(), post()] });
  tenantSays(goal, { methods: ["GET"] });
  tenantSays(goal, null);
  expect(goal.state.rights.recheckBelow).toBe(0);
  expect(goal.dispatch().flatMap(({ tasks }) => tasks)).toHaveLength(2);
});

test("work in queues is looked at again when it is claimed", () => {
  const goal = new Driver({ tasks: [work("a"), work("b")] });
  tenantSays(goal, { queues: ["b"] });
  const claim = (queue: string) => goal.do({ kind: "claim", queue, max: 5, leaseMs: 1_000, fits: () => true });
  expect(claim("a")).toMatchObject({ value: { grant: { tasks: [] } } });
  expect(reasonOf(goal, 0)).toBe(DENIED);
  expect(claim("b")).toMatchObject({ value: { grant: { tasks: [1] } } });
  survives(goal);
});

test("a worker settles in its own queues alone, and its children may do what the parent's token may", () => {
  const goal = new Driver();
  goal.do(
    { kind: "submit", specs: [work("a")], failures: new Map(), contentKeys: new Map(), atomic: false },
    { policies: [{ methods: ["GET"] }, { queues: ["a"] }] },
  );
  goal.do({ kind: "claim", queue: "a", max: 1, leaseMs: 1_000, fits: () => true });
  const settle = (policies: Policy[], specs: TaskSpec[]) =>
    goal.do(
      {
        kind: "settle-claims",
        settlements: [{ task: 0, attempt: 1, problem: null, payload: "{}", usage: [null, null, null, null], spawn: [0, specs.length] }],
        spawn: { specs, failures: new Map(), contentKeys: new Map() },
        seed: 1,
      },
      { policies },
    );
  expect(settle([{ queues: ["b"] }], [])).toMatchObject({
    value: { standings: [{ status: "rejected", problem: { code: "permission_denied" } }] },
  });
  expect(settle([], [post()])).toMatchObject({ value: { standings: [{ status: "rejected", problem: { code: "permission_denied" } }] } });
  expect(settle([], [get()])).toMatchObject({ value: { standings: [{ status: "settled" }] } });
  survives(goal);
});

test("a token of an earlier epoch changes nothing from the revocation on, and one of the new epoch does", () => {
  const goal = new Driver({ tasks: [get()] });
  const old = { epoch: 0, policies: [] };
  expect(goal.do({ kind: "pause" }, old).ok).toBe(true);
  goal.do({ kind: "revoke" });
  survives(goal);
  const before = durable(goal.state);
  for (const command of [
    { kind: "resume" },
    { kind: "cancel" },
    { kind: "cancel-task", task: 0 },
    { kind: "approve-task", task: 0 },
    { kind: "revoke" },
    { kind: "submit", specs: [get()], failures: new Map(), contentKeys: new Map(), atomic: false },
    { kind: "claim", queue: "a", max: 1, leaseMs: 1, fits: () => true },
  ] as const) {
    expect(goal.do(command, old), command.kind).toMatchObject({ ok: false, error: { code: "unauthorized" } });
    expect(goal.do(command, { epoch: 2, policies: [] }), command.kind).toMatchObject({ ok: false, error: { code: "unauthorized" } });
  }
  expect(durable(goal.state)).toEqual(before);
  expect(goal.do({ kind: "resume" }, { epoch: 1, policies: [] }).ok).toBe(true);
});

test("a goal without policies compiles nothing and looks at nothing again", () => {
  const goal = new Driver({ tasks: [post(), get()] });
  goal.submit([get()]);
  goal.dispatch();
  expect(goal.state.rights).toEqual({ epoch: 0, tenantPolicy: null, recheckBelow: 0, brought: [], rules: null });
  expect(goal.journal.flatMap((change) => Object.keys(change))).not.toContain("approvals");
});
