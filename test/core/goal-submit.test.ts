/** What becomes of the tasks of a request: taken, joined or rejected; and how names tie tasks to one another. */
import { expect, test } from "vitest";
import type { Receipts } from "../../durable-objects/goal/core/submit.ts";
import type { Reply } from "../../durable-objects/goal/core/step.ts";
import { failure } from "../../shared/errors.ts";
import { taskIdOf } from "../../shared/ids.ts";
import { DEPTH_MAX, TASKS_PER_REQUEST_MAX } from "../../shared/limits.ts";
import type { TaskSpec } from "../../shared/protocol/task.ts";
import { Driver, durable, get, GOAL_ID, group, upstream } from "./goal-harness.ts";

function receiptsOf(reply: Reply): Receipts {
  if (!reply.ok) throw new Error(`refused: ${reply.error.code} ${reply.error.detail}`);
  return reply.value.receipts!;
}

function codeOf(reply: Reply): string {
  return reply.ok ? "ok" : reply.error.code;
}

/** The places that were rejected, with the pointer of the first fault. */
function rejectedIn(reply: Reply): [number, string][] {
  return [...receiptsOf(reply).rejected]
    .map(([place, fault]) => [place, fault.errors?.[0]?.pointer ?? ""] as [number, string])
    .toSorted(([a], [b]) => a - b);
}

test("submit: every task gets the next number and is queued", () => {
  const d = new Driver();
  const receipts = receiptsOf(d.submit([get(), get(), get()]));
  expect(receipts).toMatchObject({ accepted: 3, joined: 0, position: 0, offer: 1 });
  expect([...receipts.tasks]).toEqual([0, 1, 2]);
  expect(d.statuses()).toEqual(["queued", "queued", "queued"]);
  expect(receiptsOf(d.submit([get()])).position).toBe(3);
});

test("submit: nothing at all changes nothing", () => {
  const d = new Driver();
  const before = d.journal.length;
  expect(receiptsOf(d.submit([]))).toMatchObject({ accepted: 0, joined: 0, offer: 0 });
  expect(d.journal).toHaveLength(before);
});

test("a second submission of a key joins the first, within a request and across requests", () => {
  const d = new Driver();
  const first = receiptsOf(d.submit([get({ key: "a" }), get({ key: "a" }), get({ key: "b" })]));
  expect([...first.tasks]).toEqual([0, 0, 1]);
  expect([...first.joins]).toEqual([0, 1, 0]);
  const second = receiptsOf(d.submit([get({ key: "b" })]));
  expect(second).toMatchObject({ accepted: 0, joined: 1, offer: 0 });
  expect([...second.tasks]).toEqual([1]);
  expect(d.state.joined).toBe(2);
  expect(d.state.tasks.n).toBe(2);
});

test("a key joins a task that has ended, and its work is not done again", () => {
  const d = new Driver({ tasks: [get({ key: "a" })] });
  d.runAll();
  expect(receiptsOf(d.submit([get({ key: "a" })])).joined).toBe(1);
  expect(d.dispatch()).toEqual([]);
});

test("a key that was derived from content joins like a given one, and survives a replay", () => {
  const d = new Driver();
  const specs = [get({ dedupe: "content" }), get({ dedupe: "content" })];
  const contentKeys = new Map([
    [0, "sha:1"],
    [1, "sha:1"],
  ]);
  const reply = d.do({ kind: "submit", specs, failures: new Map(), contentKeys, atomic: false });
  expect(receiptsOf(reply)).toMatchObject({ accepted: 1, joined: 1 });
  expect(d.replayed().keys.get("sha:1")).toBe(0);
});

test("an unknown or deleted upstream rejects its task and no other", () => {
  const d = new Driver();
  const reply = d.submit([get(), get({ call: { upstream: "nope", path: "/" } })]);
  expect(rejectedIn(reply)).toEqual([[1, "/call/upstream"]]);
  expect(receiptsOf(reply).accepted).toBe(1);
  d.do({ kind: "upstreams", version: 2, upstreams: [] });
  expect(rejectedIn(d.submit([get()]))).toEqual([[0, "/call/upstream"]]);
});

test("a place that is no task at all keeps its failure", () => {
  const d = new Driver();
  const fault = failure("invalid_request", "must be an object");
  const reply = d.do({ kind: "submit", specs: [null, get()], failures: new Map([[0, fault]]), contentKeys: new Map(), atomic: false });
  expect(receiptsOf(reply).rejected.get(0)).toBe(fault);
  expect([...receiptsOf(reply).tasks]).toEqual([-1, 0]);
});

test("atomic: one bad task among many keeps all of them out", () => {
  const d = new Driver();
  const before = durable(d.state);
  const reply = d.submit([get(), get({ call: { upstream: "nope", path: "/" } })], true);
  expect(reply).toMatchObject({ ok: false, error: { code: "invalid_request", errors: [{ pointer: "/tasks/1/call/upstream" }] } });
  expect(durable(d.state)).toEqual(before);
  expect(codeOf(d.submit([get(), get()], true))).toBe("ok");
});

test("a second spec with the key of a rejected one is rejected with it", () => {
  const d = new Driver();
  const reply = d.submit([get({ key: "a", after: ["ghost"] }), get({ key: "a" })]);
  expect(receiptsOf(reply)).toMatchObject({ accepted: 0, joined: 0 });
  expect(receiptsOf(reply).rejected.size).toBe(2);
});

test("a sealed goal refuses tasks, an ended one too, one that never was does not exist", () => {
  const sealed = new Driver({ tasks: [get()], spec: { sealed: true } });
  expect(codeOf(sealed.submit([get()]))).toBe("goal_sealed");
  sealed.runAll();
  expect(codeOf(sealed.submit([get()]))).toBe("goal_ended");
});

test("creating a goal twice changes nothing", () => {
  const d = new Driver({ tasks: [get()] });
  const before = durable(d.state);
  d.do({
    kind: "create",
    id: GOAL_ID,
    spec: d.state.goal!.spec,
    registry: { version: 9, upstreams: [] },
    tasks: { specs: [get()], failures: new Map(), contentKeys: new Map() },
  });
  expect(durable(d.state)).toEqual(before);
});

// Dependencies.

test("after: a task waits for a later one of the same request, and runs once it has succeeded", () => {
  const d = new Driver();
  d.submit([get({ after: ["b"] }), get({ key: "b" })]);
  expect(d.statuses()).toEqual(["waiting", "queued"]);
  d.dispatch();
  d.settle([1]);
  expect(d.statuses()).toEqual(["queued", "succeeded"]);
});

test("after: a dependency that fails cancels the task with dependency_failed, and what comes after that one", () => {
  const d = new Driver();
  d.submit([get({ key: "a" }), get({ key: "b", after: ["a"] }), get({ after: ["b"] })]);
  d.dispatch();
  d.settle([0], { status: 404 });
  expect(d.statuses()).toEqual(["failed", "canceled", "canceled"]);
});

test("afterEnd: any end will do", () => {
  const d = new Driver();
  d.submit([get({ key: "a" }), get({ afterEnd: ["a"] })]);
  d.dispatch();
  d.settle([0], { status: 404 });
  expect(d.statuses()).toEqual(["failed", "queued"]);
});

test("after several: the task runs when the last of them has ended", () => {
  const d = new Driver();
  d.submit([get({ key: "a" }), get({ key: "b" }), get({ after: ["a", "a"], afterEnd: ["b"] })]);
  d.dispatch();
  d.settle([0]);
  expect(d.status(2)).toBe("waiting");
  d.settle([1], { status: 404 });
  expect(d.status(2)).toBe("queued");
});

test("after a task that has ended already: released at once, or canceled at once", () => {
  const d = new Driver({ tasks: [get({ key: "good" }), get({ key: "bad" })] });
  d.dispatch();
  d.settle([0]);
  d.settle([1], { status: 404 });
  d.submit([get({ after: ["good"] }), get({ after: ["bad"] }), get({ afterEnd: ["bad"] }), get({ after: [taskIdOf(GOAL_ID, 0)] })]);
  expect(d.statuses().slice(2)).toEqual(["queued", "canceled", "queued", "queued"]);
});

test("an unknown name rejects the task, and every task of the request that relied on it", () => {
  const d = new Driver();
  const reply = d.submit([
    get({ key: "c", after: ["b"] }),
    get({ key: "b", after: ["a"] }),
    get({ key: "a", after: ["ghost"] }),
    get({ key: "free" }),
    get({ parentTaskId: "c" }),
  ]);
  expect(rejectedIn(reply)).toEqual([
    [0, "/after/0"],
    [1, "/after/0"],
    [2, "/after/0"],
    [4, "/parentTaskId"],
  ]);
  expect(receiptsOf(reply).accepted).toBe(1);
});

test("a long chain that hangs on a bad name is rejected quickly", () => {
  const d = new Driver();
  const n = TASKS_PER_REQUEST_MAX;
  const specs = Array.from({ length: n }, (_, i) => get({ key: `k${i}`, after: [`k${i + 1}`] }));
  const startedMs = performance.now();
  expect(receiptsOf(d.submit(specs)).rejected.size).toBe(n);
  expect(performance.now() - startedMs).toBeLessThan(3_000);
});

// Circles.

const circles: [string, TaskSpec[], number][] = [
  ["a task after itself", [get({ key: "a", after: ["a"] })], 1],
  ["a task that is its own parent", [get({ key: "a", parentTaskId: "a" })], 1],
  ["two tasks after each other", [get({ key: "a", after: ["b"] }), get({ key: "b", afterEnd: ["a"] })], 2],
  ["two tasks that are each other's parent", [group({ key: "a", parentTaskId: "b" }), group({ key: "b", parentTaskId: "a" })], 2],
  ["a child after its parent", [group({ key: "a" }), get({ parentTaskId: "a", after: ["a"] })], 2],
  [
    "a child after a task that comes after the parent",
    [group({ key: "a" }), get({ key: "c", parentTaskId: "a", after: ["x"] }), get({ key: "x", after: ["a"] })],
    3,
  ],
];

test.for(circles)("a circle is rejected: %s", ([, specs, waiting]) => {
  const d = new Driver();
  const receipts = receiptsOf(d.submit([...specs, get()]));
  expect(receipts.rejected.size).toBeGreaterThanOrEqual(waiting - 1);
  d.do({ kind: "seal" });
  d.runAll();
  expect(d.state.goal!.phase).not.toBe("active");
});

test("a child of a circle of parents is rejected with them", () => {
  const d = new Driver();
  const specs = [group({ key: "a", parentTaskId: "b" }), group({ key: "b", parentTaskId: "a" }), get({ parentTaskId: "a" })];
  expect(receiptsOf(d.submit(specs)).rejected.size).toBe(3);
});

test("a circle through tasks that are there already is rejected", () => {
  const d = new Driver({ tasks: [group({ key: "p" }), get({ key: "x", after: ["p"] })] });
  expect(rejectedIn(d.submit([get({ parentTaskId: "p", after: ["x"] })]))).toEqual([[0, ""]]);
  expect(receiptsOf(d.submit([get({ parentTaskId: "p" })])).accepted).toBe(1);
});

test("a circle through two parents that are there already is rejected", () => {
  const d = new Driver({
    tasks: [group({ key: "p" }), group({ key: "q" }), get({ key: "x", after: ["p"] }), get({ key: "y", after: ["q"] })],
  });
  const reply = d.submit([get({ parentTaskId: "p", after: ["y"] }), get({ parentTaskId: "q", after: ["x"] })]);
  expect(receiptsOf(reply).rejected.size).toBe(2);
});

test("an ended task closes no circle", () => {
  const d = new Driver({ tasks: [group({ key: "p" }), get({ key: "x", after: ["p"] })] });
  d.do({ kind: "cancel-task", task: 1 });
  expect(receiptsOf(d.submit([get({ parentTaskId: "p", afterEnd: ["x"] })])).accepted).toBe(1);
  expect(d.status(2)).toBe("queued");
});

// Depth.

const chain = (length: number): TaskSpec[] =>
  Array.from({ length }, (_, i) => group(i === 0 ? { key: "g0" } : { key: `g${i}`, parentTaskId: `g${i - 1}` }));

test("a tree may be as deep as the limit and no deeper, in one request and over several", () => {
  const d = new Driver();
  expect(receiptsOf(d.submit(chain(DEPTH_MAX + 1))).rejected.size).toBe(0);
  expect(d.state.tasks.depth[DEPTH_MAX]).toBe(DEPTH_MAX);
  expect(rejectedIn(d.submit([get({ parentTaskId: `g${DEPTH_MAX}` })]))).toEqual([[0, "/parentTaskId"]]);
  const all = new Driver();
  expect(receiptsOf(all.submit(chain(DEPTH_MAX + 3).toReversed())).rejected.size).toBe(2);
});

test("a request that is one long line of parents is answered quickly", () => {
  const d = new Driver();
  const startedMs = performance.now();
  expect(receiptsOf(d.submit(chain(TASKS_PER_REQUEST_MAX))).accepted).toBe(DEPTH_MAX + 1);
  expect(performance.now() - startedMs).toBeLessThan(3_000);
});

test("a parent that has ended takes no more children", () => {
  const d = new Driver({ tasks: [get({ key: "p" })] });
  d.runAll();
  expect(rejectedIn(d.submit([get({ parentTaskId: "p" })]))).toEqual([[0, "/parentTaskId"]]);
});

test("a goal takes no more tasks than its quota", () => {
  const d = new Driver({ upstreams: [upstream()] });
  d.state.tasks.n = 999_999;
  expect(codeOf(d.submit([get(), get()]))).toBe("quota_exceeded");
});
