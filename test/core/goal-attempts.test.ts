/** What becomes of an attempt: success, retry, doubt, loss; and which reports count. */
import { expect, test } from "vitest";
import { admissionOf } from "../../durable-objects/goal/core/admission.ts";
import { REASON_WORDS, CODES } from "../../durable-objects/goal/core/codes.ts";
import { wakeAt } from "../../durable-objects/goal/core/wake.ts";
import {
  ATTEMPTS_DEFAULT,
  ATTEMPTS_MAX,
  EXECUTOR_OVERLOADED_REST_MS,
  LEASE_GRACE_MS,
  RETRY_BASE_MS,
  RETRY_BUDGET_MAX,
  RETRY_CAP_MS,
  TIMEOUT_MS_DEFAULT,
} from "../../shared/limits.ts";
import type { TaskSpec } from "../../shared/protocol/task.ts";
import { type Answer, Driver, durable, get, group, post, START_MS, upstream } from "./goal-harness.ts";

const running = (tasks: readonly TaskSpec[]): Driver => {
  const d = new Driver({ tasks });
  d.dispatch();
  return d;
};
const reason = (d: Driver, task: number): string => REASON_WORDS[d.state.tasks.reason[task]!]!;
const code = (d: Driver, task: number): string => CODES[d.state.tasks.code[task]!]!;
const dueInMs = (d: Driver, task: number): number => d.state.tasks.dueAtMs[task]! - d.nowMs;

// Outcomes, for a call that may be repeated and for one that may not.

const outcomes: [string, Answer, string, string][] = [
  ["200", {}, "succeeded", "succeeded"],
  ["204", { status: 204 }, "succeeded", "succeeded"],
  ["304", { status: 304 }, "succeeded", "succeeded"],
  ["400", { status: 400 }, "failed upstream_error", "failed upstream_error"],
  ["404", { status: 404 }, "failed upstream_error", "failed upstream_error"],
  ["408", { status: 408 }, "waiting backoff", "waiting backoff"],
  ["425", { status: 425 }, "waiting backoff", "waiting backoff"],
  ["429", { status: 429 }, "waiting backoff", "waiting backoff"],
  ["500", { status: 500 }, "waiting backoff", "failed upstream_error"],
  ["503", { status: 503 }, "waiting backoff", "failed upstream_error"],
  ["timeout", { outcome: "timeout", status: 0 }, "waiting backoff", "waiting outcome_unknown"],
  ["broken", { outcome: "broken", status: 0 }, "waiting backoff", "waiting outcome_unknown"],
  ["not_sent", { outcome: "not_sent", status: 0 }, "waiting backoff", "waiting backoff"],
  ["too_large", { outcome: "too_large", status: 200 }, "failed result_too_large", "failed result_too_large"],
];

const standing = (d: Driver): string => `${d.status(0)} ${reason(d, 0)}${code(d, 0)}`.trim();

test.for(outcomes)("running + %s -> %s", ([, answer, idempotent, other]) => {
  const a = running([get()]);
  a.settle([0], answer);
  expect(standing(a)).toBe(idempotent);
  const b = running([post()]);
  b.settle([0], answer);
  expect(standing(b)).toBe(other);
  for (const d of [a, b]) expect(d.state.upstreams[0]).toMatchObject({ running: 0, lanes: 0 });
});

test("a POST may be repeated where it says so, or where its upstream honours keys; a GET that says no may not", () => {
  const idempotent = (spec: TaskSpec, over = {}): boolean => {
    const d = new Driver({ tasks: [spec], upstreams: [upstream(over)] });
    d.dispatch();
    d.settle([0], { status: 500 });
    return d.status(0) === "waiting";
  };
  const call = { upstream: "api", method: "POST", path: "/" } as const;
  expect(idempotent({ call })).toBe(false);
  expect(idempotent({ call: { ...call, idempotent: true } })).toBe(true);
  expect(idempotent({ call }, { idempotency: "key" })).toBe(true);
  expect(idempotent({ call: { ...call, method: "PUT" } })).toBe(true);
  expect(idempotent({ call: { ...call, method: "PATCH" } })).toBe(false);
  expect(idempotent({ call: { upstream: "api", path: "/", idempotent: false } })).toBe(false);
});

// Retries.

test("backoff is full jitter: each wait lies below base * 2^n and the cap, and they spread", () => {
  const d = new Driver({ tasks: Array.from({ length: 60 }, () => get({ retry: { maxAttempts: 20 } })) });
  for (let failures = 1; failures < 14; failures++) {
    // As if the goal had succeeded a thousand times.
    admissionOf(d.state, 0).retries = RETRY_BUDGET_MAX;
    const waits: number[] = [];
    for (let sends = d.dispatch(); sends.length > 0; sends = d.dispatch()) {
      for (const { tasks } of sends) {
        d.settle(tasks, { status: 503 });
        waits.push(...tasks.map((task) => dueInMs(d, task)));
      }
    }
    const ceiling = Math.min(RETRY_CAP_MS, RETRY_BASE_MS * 2 ** (failures - 1));
    expect(waits).toHaveLength(60);
    expect(Math.min(...waits)).toBeGreaterThanOrEqual(1);
    expect(Math.max(...waits)).toBeLessThanOrEqual(ceiling);
    expect(Math.max(...waits) - Math.min(...waits)).toBeGreaterThan(ceiling / 2);
    d.passMs(RETRY_CAP_MS);
  }
});

test("waiting: backoff + its end -> queued, the attempt's number rises with the next start", () => {
  const d = running([get()]);
  d.settle([0], { status: 503 });
  const dueAtMs = d.state.tasks.dueAtMs[0]!;
  expect(wakeAt(d.state)).toBe(dueAtMs);
  d.passMs(dueAtMs - d.nowMs - 1);
  expect(d.status(0)).toBe("waiting");
  d.passMs(1);
  expect(d.status(0)).toBe("queued");
  d.dispatch();
  expect(d.state.tasks.attempt[0]).toBe(2);
});

test.for([
  [undefined, ATTEMPTS_DEFAULT],
  [1, 1],
  [3, 3],
] as const)("with maxAttempts %s, the failure number %s ends the task", ([maxAttempts, attempts]) => {
  const d = new Driver({ tasks: [get(maxAttempts === undefined ? {} : { retry: { maxAttempts } })] });
  let calls = 0;
  for (; calls < 20 && d.status(0) !== "failed"; calls++) {
    d.passMs(RETRY_CAP_MS);
    d.dispatch();
    d.settle([0], { status: 503 });
  }
  expect(calls).toBe(attempts);
  expect(d.state.attempts.get(0)?.length ?? 0).toBe(attempts - 1);
});

test("the last failure's code says what it was", () => {
  const once = { retry: { maxAttempts: 1 } };
  const d = running([get(once), get(once), get(once)]);
  d.settle([0], { outcome: "timeout" });
  d.settle([1], { outcome: "broken" });
  d.settle([2], { status: 500 });
  expect([0, 1, 2].map((task) => code(d, task))).toEqual(["upstream_timeout", "upstream_error", "upstream_error"]);
});

test("Retry-After closes the gate for every task of that upstream, and for no other", () => {
  const other: TaskSpec = { call: { upstream: "other", path: "/" } };
  const d = new Driver({ tasks: [get(), other], upstreams: [upstream(), upstream({ name: "other" })] });
  d.dispatch();
  d.settle([0], { status: 429, retryAfterMs: 5_000 });
  d.settle([1]);
  d.submit([get(), other]);
  expect(d.dispatch().map(({ upstream }) => upstream)).toEqual([1]);
  expect(dueInMs(d, 0)).toBeGreaterThanOrEqual(5_000);
  expect(wakeAt(d.state)).toBeLessThanOrEqual(START_MS + 5_000);
  d.passMs(4_999);
  expect(d.dispatch()).toEqual([]);
  d.passMs(1);
  expect(d.dispatch().flatMap(({ tasks }) => tasks)).toContain(2);
});

test("an earlier Retry-After does not open a gate that a later one closed", () => {
  const d = running([get(), get()]);
  d.settle([0], { status: 429, retryAfterMs: 9_000 });
  d.settle([1], { status: 429, retryAfterMs: 10 });
  expect(d.state.upstreams[0]!.gateUntilMs).toBe(START_MS + 9_000);
});

test("Retry-After on a final failure closes the gate too", () => {
  const d = running([post()]);
  d.settle([0], { status: 503, retryAfterMs: 700 });
  expect(d.status(0)).toBe("failed");
  expect(d.state.upstreams[0]!.gateUntilMs).toBe(START_MS + 700);
});

// Doubt.

const doubtful = (tasks: readonly TaskSpec[] = [post()]): Driver => {
  const d = running(tasks);
  d.settle([0], { outcome: "timeout" });
  return d;
};

test("outcome_unknown + resolve as succeeded -> succeeded with the given result, or none", () => {
  const d = doubtful();
  d.do({ kind: "resolve", task: 0, as: "succeeded", line: null });
  expect(d.status(0)).toBe("succeeded");
  expect(d.state.tasks.resultRow[0]).toBe(0);
  const given = doubtful();
  given.do({ kind: "resolve", task: 0, as: "succeeded", line: given.line(0) });
  expect(given.state.tasks.resultRow[0]).toBeGreaterThan(0);
});

test("outcome_unknown + resolve as failed -> failed with outcome_unknown, and its dependents go", () => {
  const d = doubtful([post({ key: "a" }), get({ after: ["a"] })]);
  d.do({ kind: "resolve", task: 0, as: "failed", line: null });
  expect(standing(d)).toBe("failed outcome_unknown");
  expect(d.status(1)).toBe("canceled");
});

test("outcome_unknown + resolve as retry -> queued, and sent as a new attempt", () => {
  const d = doubtful();
  d.do({ kind: "resolve", task: 0, as: "retry", line: null });
  expect(d.status(0)).toBe("queued");
  d.dispatch();
  d.settle([0]);
  expect(d.status(0)).toBe("succeeded");
  expect(d.state.tasks.attempt[0]).toBe(2);
});

test("outcome_unknown + resolve as succeeded with children open -> waiting for them", () => {
  const d = doubtful([post({ key: "p" }), get({ parentTaskId: "p" })]);
  d.do({ kind: "resolve", task: 0, as: "succeeded", line: null });
  expect([d.status(0), reason(d, 0)]).toEqual(["waiting", "children"]);
  d.settle([1]);
  expect(d.status(0)).toBe("succeeded");
});

test("only a task in doubt can be resolved; one in doubt can be canceled", () => {
  const d = running([get()]);
  expect(d.do({ kind: "resolve", task: 0, as: "retry", line: null })).toMatchObject({ ok: false, error: { code: "conflict" } });
  expect(d.do({ kind: "resolve", task: 7, as: "retry", line: null })).toMatchObject({ ok: false, error: { code: "not_found" } });
  const e = doubtful();
  e.do({ kind: "cancel-task", task: 0 });
  expect(e.status(0)).toBe("canceled");
});

// Losses.

const LEASE_MS = TIMEOUT_MS_DEFAULT + LEASE_GRACE_MS;

test("lease expiry: what may be repeated is queued again, the rest is in doubt, and both are aborted", () => {
  const d = running([get(), post()]);
  expect(wakeAt(d.state)).toBe(START_MS + LEASE_MS);
  d.passMs(LEASE_MS - 1);
  expect(d.statuses()).toEqual(["running", "running"]);
  d.passMs(1);
  expect(d.statuses()).toEqual(["queued", "waiting"]);
  expect(reason(d, 1)).toBe("outcome_unknown");
  expect(d.aborts.map(([, task]) => task)).toEqual([0, 1]);
  expect(d.state.batches.size).toBe(0);
});

test("a report from a batch extends the lease of the rest of it", () => {
  const d = running([get(), get()]);
  d.nowMs += LEASE_MS - 1;
  d.settle([0]);
  d.passMs(LEASE_MS - 1);
  expect(d.status(1)).toBe("running");
  d.passMs(1);
  expect(d.status(1)).toBe("queued");
});

test("the lease follows the longest timeout in the batch", () => {
  const d = running([get({ timeoutMs: 1_000 }), get({ timeoutMs: 60_000 })]);
  expect(wakeAt(d.state)).toBe(START_MS + 60_000 + LEASE_GRACE_MS);
});

test("batch-lost: repeatable tasks go back at once and it does not count as a failure; others wait for a late report", () => {
  const d = running([get(), post()]);
  d.do({ kind: "batch-lost", batch: 1 });
  expect(d.statuses()).toEqual(["queued", "running"]);
  expect(d.state.tasks.failures[0]).toBe(0);
  d.settle([1]);
  expect(d.status(1)).toBe("succeeded");
  d.do({ kind: "batch-lost", batch: 1 });
  expect(d.statuses()).toEqual(["queued", "succeeded"]);
});

test("recover: every batch is lost at once, and only what may be repeated runs again", () => {
  const d = running([get(), post()]);
  d.do({ kind: "recover" });
  expect(d.statuses()).toEqual(["queued", "running"]);
  expect(d.dispatch().flatMap(({ tasks }) => tasks)).toEqual([0]);
  d.passMs(LEASE_MS);
  expect(reason(d, 1)).toBe("outcome_unknown");
});

test("three executors lost in a row are poison, with a code that says so", () => {
  const d = new Driver({ tasks: [get()] });
  for (let lost = 1; lost <= 3; lost++) {
    expect(d.status(0)).toBe("queued");
    const [send] = d.dispatch();
    d.do({ kind: "batch-lost", batch: send!.batch });
  }
  expect(standing(d)).toBe("failed poison");
});

test("an answer in between clears the suspicion", () => {
  const d = new Driver({ tasks: [get()] });
  for (const lost of [true, true, false, true, true]) {
    const [send] = d.dispatch();
    if (lost) d.do({ kind: "batch-lost", batch: send!.batch });
    else d.settle([0], { status: 503 });
    d.passMs(RETRY_CAP_MS);
  }
  expect(d.status(0)).toBe("queued");
});

test("restarts weigh less: eleven in a row do not poison a task, the twelfth does", () => {
  const d = new Driver({ tasks: [get()] });
  for (let restart = 1; restart <= 12; restart++) {
    expect(d.status(0)).toBe("queued");
    d.dispatch();
    d.do({ kind: "recover" });
  }
  expect(standing(d)).toBe("failed poison");
});

test("an overloaded executor closes the gate for a while, blames nothing, and is not remembered for ever", () => {
  const d = new Driver({ tasks: [get()] });
  for (let refused = 1; refused <= 100; refused++) {
    const [send] = d.dispatch();
    d.do({ kind: "batch-lost", batch: send!.batch, refusal: "overloaded" });
    expect(d.dispatch()).toEqual([]);
    expect(wakeAt(d.state)).toBe(d.nowMs + EXECUTOR_OVERLOADED_REST_MS);
    d.passMs(EXECUTOR_OVERLOADED_REST_MS);
  }
  expect(d.status(0)).toBe("queued");
  expect(d.state.attempts.get(0)!.length).toBe(ATTEMPTS_MAX);
  expect(durable(d.replayed())).toEqual(durable(d.state));
});

test("a connection that is lost counts as little as a restart", () => {
  const d = new Driver({ tasks: [get()] });
  for (let lost = 1; lost <= 12; lost++) {
    expect(d.status(0)).toBe("queued");
    const [send] = d.dispatch();
    d.do({ kind: "batch-lost", batch: send!.batch, refusal: "unreachable" });
    d.passMs(EXECUTOR_OVERLOADED_REST_MS);
  }
  expect(standing(d)).toBe("failed poison");
});

test("expired leases are lost executors too", () => {
  const d = new Driver({ tasks: [get()] });
  for (let lost = 1; lost <= 3; lost++) {
    d.dispatch();
    d.passMs(LEASE_MS);
  }
  expect(standing(d)).toBe("failed poison");
});

test("poison of a parent takes its running children along in the same loss", () => {
  const d = new Driver({ tasks: [get({ key: "p" }), get({ parentTaskId: "p" })] });
  for (let lost = 1; lost <= 3; lost++) for (const { batch } of d.dispatch()) d.do({ kind: "batch-lost", batch });
  expect(d.statuses()).toEqual(["failed", "canceled"]);
});

// Stale reports.

test("a report counts once: the second is counted as late and dropped", () => {
  const d = running([get()]);
  d.settle([0]);
  const before = d.state.calls;
  d.settle([0], { status: 500 });
  expect(d.status(0)).toBe("succeeded");
  expect(d.state).toMatchObject({ late: 1, calls: before });
});

test("a report of an older attempt is dropped while the newer one runs", () => {
  const d = running([get()]);
  d.do({ kind: "batch-lost", batch: 1 });
  d.dispatch();
  d.settle([0], { attempt: 1 });
  expect(d.status(0)).toBe("running");
  expect(d.state.late).toBe(1);
  d.settle([0], { attempt: 2 });
  expect(d.status(0)).toBe("succeeded");
});

test("a report for a task that is queued again, or that never was, is dropped", () => {
  const d = running([get()]);
  d.do({ kind: "batch-lost", batch: 1 });
  d.settle([0]);
  expect(d.status(0)).toBe("queued");
  d.do({ kind: "settle", lines: [d.line(0).replace("[0,", "[99,")], seed: 1 });
  expect(d.state.late).toBe(2);
});

test("many reports in one step count like one by one", () => {
  const specs = [get(), get(), post(), get({ key: "k" }), get({ after: ["k"] }), group({ key: "g" })];
  const [a, b] = [running(specs), running(specs)];
  const lines = [a.line(0), a.line(1, { status: 503 }), a.line(2, { outcome: "broken" }), a.line(3, { status: 404 }), a.line(0)];
  a.do({ kind: "settle", lines, seed: 3 });
  for (const line of lines) b.do({ kind: "settle", lines: [line], seed: 3 });
  expect(a.statuses()).toEqual(b.statuses());
  expect(a.state.calls).toBe(4);
  expect(durable(a.replayed())).toEqual(durable(a.state));
});
