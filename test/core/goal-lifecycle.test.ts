/** How tasks, parents and the goal end: completion rules, cancel, pause, seal, deadline, time to live, idleness, retention. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { verdictOf } from "../../durable-objects/goal/core/completion.ts";
import { isBusy, wakeAt } from "../../durable-objects/goal/core/wake.ts";
import { IDLE_MS_DEFAULT } from "../../shared/limits.ts";
import type { CompletionRule, TaskSpec } from "../../shared/protocol/task.ts";
import { Driver, get, group, post, START_MS, upstream } from "./goal-harness.ts";

const sealed = (tasks: readonly TaskSpec[], rule: CompletionRule = {}): Driver => new Driver({ tasks, rule, spec: { sealed: true } });
const code = (d: Driver, task: number): number => d.state.tasks.code[task]!;

// Groups and parents.

test("a group waits for children, and succeeds when they have", () => {
  const d = new Driver({ tasks: [group({ key: "g" }), get({ parentTaskId: "g" }), get({ parentTaskId: "g" })] });
  expect(d.status(0)).toBe("waiting");
  d.dispatch();
  d.settle([1]);
  expect(d.status(0)).toBe("waiting");
  d.settle([2]);
  expect(d.status(0)).toBe("succeeded");
});

test("an empty group stays open until the goal is sealed, nested ones end from the inside", () => {
  const d = new Driver({ tasks: [group({ key: "g" }), group({ parentTaskId: "g" })] });
  d.passMs(1_000);
  expect(d.statuses()).toEqual(["waiting", "waiting"]);
  d.do({ kind: "seal" });
  expect(d.statuses()).toEqual(["succeeded", "succeeded"]);
  expect(d.state.goal!.phase).toBe("succeeded");
});

test("an empty group of a goal that is created sealed ends at once, one that comes after work when it is released", () => {
  const d = sealed([group(), get({ key: "a" }), group({ after: ["a"] })]);
  expect(d.statuses()).toEqual(["succeeded", "queued", "waiting"]);
  d.runAll();
  expect(d.state.goal!.phase).toBe("succeeded");
});

test("a parent with work of its own: work done + children open -> waiting, its result kept and its permit given back", () => {
  const d = new Driver({ tasks: [get({ key: "p" }), get({ parentTaskId: "p" })] });
  d.dispatch();
  d.settle([0]);
  expect(d.status(0)).toBe("waiting");
  expect(d.state.tasks.resultRow[0]).toBeGreaterThan(0);
  expect(d.state.upstreams[0]!.running).toBe(1);
  d.settle([1]);
  expect(d.status(0)).toBe("succeeded");
});

test("a parent whose children end first ends with its own work", () => {
  const d = new Driver({ tasks: [get({ key: "p" }), get({ parentTaskId: "p" })] });
  d.dispatch();
  d.settle([1]);
  expect(d.status(0)).toBe("running");
  d.settle([0]);
  expect(d.status(0)).toBe("succeeded");
});

test("a parent fails with children_failed where a child failed, though its own work succeeded", () => {
  const d = new Driver({ tasks: [get({ key: "p" }), get({ parentTaskId: "p" })] });
  d.dispatch();
  d.settle([1], { status: 404 });
  d.settle([0]);
  expect(d.status(0)).toBe("failed");
});

test("a parent whose own work fails takes its queued and running children along", () => {
  const d = new Driver({ tasks: [get({ key: "p" }), get({ key: "c", parentTaskId: "p" })] });
  d.dispatch();
  d.submit([get({ parentTaskId: "p" }), get({ parentTaskId: "c" })]);
  d.settle([0], { status: 404 });
  expect(d.statuses()).toEqual(["failed", "canceled", "canceled", "canceled"]);
  expect(d.aborts.map(([, task]) => task)).toEqual([1]);
});

test("a deep tree ends without deep recursion, from the leaf up", () => {
  const depth = 30;
  const tasks = Array.from({ length: depth }, (_, i) => group(i === 0 ? { key: "g0" } : { key: `g${i}`, parentTaskId: `g${i - 1}` }));
  const d = sealed([...tasks, get({ parentTaskId: `g${depth - 1}` })]);
  d.runAll();
  expect(d.state.goal!.phase).toBe("succeeded");
});

// Completion rules.

const counts = (succeeded: number, failed: number, live = 0, canceled = 0): number[] => [live, 0, 0, succeeded, failed, canceled, 0];

test.for([
  ["default, all succeeded", {}, counts(3, 0), "succeeded"],
  ["default, one failed, others live", {}, counts(1, 1, 1), "open"],
  ["default, one failed, all ended", {}, counts(1, 1), "failed"],
  ["default, nothing at all", {}, counts(0, 0), "succeeded"],
  ["canceled members do not fail it", {}, counts(1, 0, 0, 2), "succeeded"],
  ["failFast, one failed", { failFast: true }, counts(0, 1, 9), "failed"],
  ["failFast, none failed", { failFast: true }, counts(1, 0, 9), "open"],
  ["minSuccessful reached early", { minSuccessful: 2 }, counts(2, 5, 9), "succeeded"],
  ["minSuccessful still possible", { minSuccessful: 3 }, counts(2, 5, 1), "open"],
  ["minSuccessful out of reach", { minSuccessful: 4 }, counts(2, 5, 1), "failed"],
  ["tolerated count kept", { toleratedFailureCount: 1 }, counts(2, 1), "succeeded"],
  ["tolerated count exceeded early", { toleratedFailureCount: 1 }, counts(0, 2, 9), "failed"],
  ["tolerated share kept", { toleratedFailurePercentage: 50 }, counts(1, 1), "succeeded"],
  ["tolerated share exceeded early", { toleratedFailurePercentage: 10 }, counts(0, 2, 9), "failed"],
  ["tolerated share may still be kept", { toleratedFailurePercentage: 20 }, counts(0, 2, 9), "open"],
  ["both, enough succeeded and few failed", { minSuccessful: 1, toleratedFailureCount: 1 }, counts(1, 1, 1), "succeeded"],
  ["both, too many failed", { minSuccessful: 1, toleratedFailureCount: 0 }, counts(1, 1, 1), "failed"],
] as const)("rule: %s", ([, rule, of, verdict]) => {
  expect(verdictOf(rule, of, true)).toBe(verdict);
});

test("while members may still come, a share or a shortfall is not told early", () => {
  expect(verdictOf({ toleratedFailurePercentage: 10 }, counts(0, 2, 9), false)).toBe("open");
  expect(verdictOf({ minSuccessful: 4 }, counts(2, 0, 1), false)).toBe("open");
});

const anyRule: fc.Arbitrary<CompletionRule> = fc.record(
  {
    failFast: fc.boolean(),
    minSuccessful: fc.integer({ min: 1, max: 8 }),
    toleratedFailureCount: fc.integer({ min: 0, max: 8 }),
    toleratedFailurePercentage: fc.integer({ min: 0, max: 100 }),
  },
  { requiredKeys: [] },
);

test("a success that cancels the rest holds for what is there then, its share of failures too", () => {
  const both = { minSuccessful: 1, toleratedFailurePercentage: 6 };
  expect(verdictOf(both, counts(1, 1, 1), false)).toBe("open");
  expect(verdictOf(both, counts(2, 1), false)).toBe("failed");
  fc.assert(
    fc.property(anyRule, fc.nat(8), fc.nat(8), fc.nat(8), fc.boolean(), (rule, succeeded, failed, live, isClosed) => {
      fc.pre(verdictOf(rule, counts(succeeded, failed, live), isClosed) === "succeeded");
      expect(verdictOf(rule, counts(succeeded, failed, 0, live), true)).toBe("succeeded");
    }),
  );
});

test("a verdict is the one that the end will bear out, unless what could disagree is canceled", () => {
  fc.assert(
    fc.property(anyRule, fc.array(fc.boolean(), { maxLength: 8 }), (rule, ends) => {
      let decided: string | null = null;
      for (let n = 0; n <= ends.length; n++) {
        const failed = ends.slice(0, n).filter((good) => !good).length;
        const verdict = verdictOf(rule, counts(n - failed, failed, ends.length - n), true);
        // minSuccessful succeeds at once, and the rest is canceled: later failures do not count any more.
        if (decided === "succeeded") break;
        if (decided === "failed") expect(verdict).toBe("failed");
        if (verdict !== "open") decided = verdict;
      }
      expect(decided).not.toBeNull();
    }),
  );
});

test.for([
  ["failFast", { failFast: true }, { status: 404 }, "failed"],
  ["minSuccessful", { minSuccessful: 1 }, {}, "succeeded"],
  ["toleratedFailureCount", { toleratedFailureCount: 0 }, { status: 404 }, "failed"],
] as const)("a goal with %s ends as soon as it is decided and cancels the rest", ([, rule, answer, phase]) => {
  const d = sealed([get(), get(), get({ key: "x" }), get({ after: ["x"] })], rule);
  d.dispatch();
  d.settle([0], answer);
  expect(d.state.goal!.phase).toBe(phase);
  expect(d.statuses().slice(1)).toEqual(["canceled", "canceled", "canceled"]);
  expect(d.aborts.map(([, task]) => task)).toEqual([1, 2]);
});

test("what a turn has begun is not sent where the same turn ends the goal", () => {
  const d = sealed([get(), get({ call: { upstream: "api", path: "/secret" } })], { failFast: true });
  d.do({ kind: "upstreams", version: 2, upstreams: [upstream()], policy: { paths: ["/"] } });
  expect(d.dispatch()).toEqual([]);
  expect(d.state.goal!.phase).toBe("failed");
  expect(d.statuses()).toEqual(["canceled", "failed"]);
});

test("a parent with a rule of its own ends by it", () => {
  const d = new Driver({
    tasks: [group({ key: "g", completion: { minSuccessful: 1 } }), get({ parentTaskId: "g" }), get({ parentTaskId: "g" })],
  });
  d.dispatch();
  d.settle([1]);
  expect(d.statuses()).toEqual(["succeeded", "succeeded", "canceled"]);
});

test("the end of a goal never changes", () => {
  const d = sealed([get(), get()], { minSuccessful: 1 });
  d.dispatch();
  d.settle([0]);
  const endedAtMs = d.state.goal!.endedAtMs;
  d.nowMs += 5;
  d.settle([1], { attempt: 1, status: 404 });
  for (const kind of ["seal", "tick", "recover", "cancel"] as const) d.do({ kind });
  d.dispatch();
  expect(d.state.goal).toMatchObject({ phase: "succeeded", endedAtMs });
  expect(d.state.late).toBe(1);
});

// Cancel.

test("cancel: a queued task ends, a running one is aborted, an ended one stays", () => {
  const d = new Driver({ tasks: [get(), get(), get()] });
  d.do({ kind: "cancel-task", task: 2 });
  d.dispatch();
  d.settle([0]);
  for (const task of [0, 1, 2]) expect(d.do({ kind: "cancel-task", task })).toMatchObject({ ok: true });
  expect(d.statuses()).toEqual(["succeeded", "canceled", "canceled"]);
  expect(d.aborts).toEqual([[1, 1, 1]]);
  d.settle([1]);
  expect(d.state.late).toBe(1);
  expect(d.status(1)).toBe("canceled");
});

test("cancel takes the subtree, cancels what comes after it, and a task in backoff does not come back", () => {
  const d = new Driver({
    tasks: [
      group({ key: "g" }),
      group({ key: "h", parentTaskId: "g" }),
      get({ key: "x", parentTaskId: "h" }),
      get({ after: ["x"] }),
      get(),
    ],
  });
  d.dispatch();
  d.settle([2], { status: 503 });
  d.do({ kind: "cancel-task", task: 0 });
  expect(d.statuses()).toEqual(["canceled", "canceled", "canceled", "canceled", "running"]);
  d.passMs(60_000);
  expect(d.status(2)).toBe("canceled");
});

test("cancel of a goal is one change whatever its size, and asking again changes nothing", () => {
  const d = new Driver({ tasks: Array.from({ length: 100 }, () => get()) });
  d.dispatch();
  const before = d.journal.length;
  d.do({ kind: "cancel" });
  expect(d.journal.slice(before).map(({ kind }) => kind)).toEqual(["goal.ended"]);
  expect(new Set(d.statuses())).toEqual(new Set(["canceled"]));
  expect(d.do({ kind: "cancel" })).toMatchObject({ ok: true });
  expect(d.do({ kind: "pause" })).toMatchObject({ ok: false, error: { code: "goal_ended" } });
  expect(d.state.batches.size).toBe(0);
  expect(d.state.upstreams[0]).toMatchObject({ running: 0, lanes: 0, queued: 0 });
});

test("a task that does not exist cannot be canceled", () => {
  expect(new Driver().do({ kind: "cancel-task", task: 0 })).toMatchObject({ ok: false, error: { code: "not_found" } });
});

// Pause and seal.

test("pause stops dispatch, not what runs; resume goes on; both may be repeated", () => {
  const d = new Driver({ tasks: [get()] });
  d.dispatch();
  d.do({ kind: "pause" });
  d.do({ kind: "pause" });
  d.submit([get()]);
  expect(d.dispatch()).toEqual([]);
  d.settle([0]);
  expect(d.status(0)).toBe("succeeded");
  expect(isBusy(d.state)).toBe(false);
  d.do({ kind: "resume" });
  d.do({ kind: "resume" });
  expect(d.dispatch()).toHaveLength(1);
});

test("a paused goal still ends by its deadline", () => {
  const d = new Driver({ tasks: [get()], spec: { deadlineMs: 1_000 } });
  d.do({ kind: "pause" });
  d.passMs(1_000);
  expect(d.state.goal!).toMatchObject({ phase: "expired", paused: false });
});

test("sealing ends a goal that has nothing left, and may be repeated", () => {
  const d = new Driver({ tasks: [get()] });
  d.runAll();
  expect(d.state.goal!.phase).toBe("active");
  d.do({ kind: "seal" });
  expect(d.state.goal!.phase).toBe("succeeded");
  expect(d.do({ kind: "seal" })).toMatchObject({ ok: true });
});

test("an empty goal that is created sealed has succeeded, or failed where it needed successes", () => {
  expect(sealed([]).state.goal!.phase).toBe("succeeded");
  expect(sealed([], { minSuccessful: 1 }).state.goal!.phase).toBe("failed");
});

// Time.

test("deadline: what has not ended expires and calls are aborted", () => {
  const d = new Driver({ tasks: [get(), get(), get({ key: "x" }), get({ after: ["x"] })], spec: { deadlineMs: 5_000 } });
  expect(wakeAt(d.state)).toBe(START_MS + 5_000);
  d.dispatch();
  d.settle([0]);
  d.passMs(4_999);
  expect(d.state.goal!.phase).toBe("active");
  d.passMs(1);
  expect(d.statuses()).toEqual(["succeeded", "expired", "expired", "expired"]);
  expect(d.state.goal!.phase).toBe("expired");
  expect(d.aborts).toHaveLength(2);
});

test.for([
  ["minSuccessful holds", { minSuccessful: 1 }, "succeeded"],
  ["minSuccessful does not hold", { minSuccessful: 2 }, "expired"],
  ["the default cannot hold while something lives", {}, "expired"],
  ["tolerated failures cannot hold while something lives", { toleratedFailureCount: 5 }, "expired"],
] as const)("deadline of an open goal: %s", ([, rule, phase]) => {
  const d = new Driver({ tasks: [get(), get()], rule, spec: { deadlineMs: 1_000 } });
  d.dispatch();
  d.settle([0]);
  d.passMs(1_000);
  expect(d.state.goal!.phase).toBe(phase);
});

test("deadline of an open goal whose tasks have all succeeded: it has succeeded", () => {
  const d = new Driver({ tasks: [get()], spec: { deadlineMs: 1_000 } });
  d.runAll();
  d.passMs(1_000);
  expect(d.state.goal!.phase).toBe("succeeded");
});

test("ttl: a task that has not started expires, waiting included; one that has started does not", () => {
  const d = new Driver({ tasks: [get({ key: "a", ttlMs: 100 }), get({ after: ["a"], ttlMs: 50 }), post({ ttlMs: 100 })] });
  d.dispatch();
  expect(wakeAt(d.state)).toBe(START_MS + 50);
  d.passMs(50);
  expect(d.statuses()).toEqual(["running", "expired", "running"]);
  d.passMs(60);
  d.settle([0], { status: 503 });
  d.passMs(10_000);
  expect(d.status(0)).toBe("queued");
});

test("ttl: a queued task that expires is never sent, and its queue goes on", () => {
  const d = new Driver({ tasks: [get({ ttlMs: 10 }), get()] });
  d.passMs(10);
  expect(d.dispatch()[0]!.tasks).toEqual([1]);
  expect(code(d, 0)).toBeGreaterThan(0);
});

test("idleness: an open goal without anything alive expires a day after its last task ended", () => {
  const d = new Driver({ tasks: [get()] });
  d.runAll();
  const touchedAtMs = d.state.goal!.touchedAtMs;
  expect(wakeAt(d.state)).toBe(touchedAtMs + IDLE_MS_DEFAULT);
  d.nowMs = touchedAtMs + IDLE_MS_DEFAULT - 1;
  d.passMs(0);
  expect(d.state.goal!.phase).toBe("active");
  d.passMs(1);
  expect(d.state.goal!.phase).toBe("expired");
});

test("retention: an ended goal asks to be deleted when it is over, and not before", () => {
  const d = sealed([get()]);
  d.runAll();
  expect(wakeAt(d.state)).toBe(d.nowMs + 1_000);
  d.passMs(999);
  expect(d.destroyed).toBe(false);
  d.passMs(1);
  expect(d.destroyed).toBe(true);
});

test("the end is reported once", () => {
  const d = sealed([]);
  d.do({ kind: "end-reported" });
  const before = d.journal.length;
  d.do({ kind: "end-reported" });
  expect(d.state.goal!.endReported).toBe(true);
  expect(d.journal).toHaveLength(before);
});

// Retry of an ended task.

test("retry makes a new task of an ended one, in the same family; a live one is a conflict", () => {
  const d = new Driver({ tasks: [group({ key: "g" }), get({ key: "c", parentTaskId: "g" }), get({ parentTaskId: "g" })] });
  expect(d.do({ kind: "retry-task", task: 1 })).toMatchObject({ ok: false, error: { code: "conflict" } });
  d.dispatch();
  d.settle([1], { status: 404 });
  expect(d.do({ kind: "retry-task", task: 1 })).toMatchObject({ ok: true, value: { task: 3 } });
  expect(d.state.tasks.retryOf[3]).toBe(1);
  expect(d.state.tasks.parent[3]).toBe(0);
  expect(d.status(3)).toBe("queued");
  expect(d.state.keys.get("c")).toBe(1);
});

test("a task whose parent has ended, or whose goal has, cannot be retried", () => {
  const d = new Driver({ tasks: [group({ key: "g" }), get({ parentTaskId: "g" })] });
  d.runAll();
  expect(d.do({ kind: "retry-task", task: 1 })).toMatchObject({ ok: false, error: { code: "conflict" } });
  d.do({ kind: "seal" });
  expect(d.do({ kind: "retry-task", task: 1 })).toMatchObject({ ok: false, error: { code: "goal_ended" } });
});

test("a group that is repeated in a sealed goal does not keep the goal open", () => {
  const d = sealed([group(), get()]);
  d.do({ kind: "retry-task", task: 0 });
  expect(d.status(2)).toBe("succeeded");
  d.runAll();
  expect(d.state.goal!.phase).toBe("succeeded");
});
