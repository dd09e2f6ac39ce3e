/** What a goal reserves, is charged, can afford, and does when it can afford no more. */
import { describe, expect, test } from "vitest";
import { CODES } from "../../durable-objects/goal/core/codes.ts";
import type { Command } from "../../durable-objects/goal/core/step.ts";
import { isBusy, wakeAt } from "../../durable-objects/goal/core/wake.ts";
import { FUNDS_ASK_INTERVAL_MS, LEASE_GRACE_MS } from "../../shared/limits.ts";
import { type Bounds, type FundRequest, UNBOUNDED } from "../../shared/policy/account.ts";
import { formatLine } from "../../shared/protocol/line.ts";
import type { TaskSpec } from "../../shared/protocol/task.ts";
import { type Answer, Driver, durable, get, post, upstream } from "./goal-harness.ts";

const LLM = upstream({ reserve: { tokens: 100, costMicros: 10 }, usage: { tokens: "/tokens", costMicros: "/cost" } });
const some = (count: number, spec: TaskSpec = get()): TaskSpec[] => Array.from({ length: count }, () => spec);

/** The goal's account: reserved and spent. */
const account = (goal: Driver): { reserved: readonly number[]; spent: readonly number[] } => {
  const { reserved, spent } = goal.state.budget.account;
  return { reserved: [...reserved], spent: [...spent] };
};

const sent = (goal: Driver): number[] => goal.sends.flatMap(({ tasks }) => [...tasks]);

/** An answer that says what it used. */
function settleWith(goal: Driver, task: number, tokens: number, costMicros: number, over: Answer = {}): void {
  const { outcome = "answered", status = 200 } = over;
  const attempt = goal.state.tasks.attempt[task]!;
  const head = { task, attempt, outcome, status, retryAfterMs: 0, startedAtMs: goal.nowMs - 5, endedAtMs: goal.nowMs, tokens, costMicros };
  goal.do({ kind: "settle", lines: [formatLine(head, "{}")], seed: 7 });
}

const usage = (goal: Driver, task: number): number[] => {
  const { usedCalls, usedTokens, usedMicros } = goal.state.tasks;
  return [usedCalls[task]!, usedTokens[task]!, usedMicros[task]!];
};

function replaysAlike(goal: Driver): void {
  expect(durable(goal.replayed())).toEqual(durable(goal.state));
}

describe("an attempt", () => {
  test("reserves what its upstream says, or its task, and is charged what its answer says that it used", () => {
    const goal = new Driver({ upstreams: [LLM], tasks: [get(), get({ reserve: { tokens: 500 } })] });
    goal.dispatch();
    expect(account(goal)).toEqual({ reserved: [0, 2, 600, 20], spent: [2, 0, 0, 0] });
    settleWith(goal, 0, 70, 3);
    settleWith(goal, 1, 0, 25);
    expect(account(goal)).toEqual({ reserved: [0, 0, 0, 0], spent: [2, 2, 570, 28] });
    expect([usage(goal, 0), usage(goal, 1)]).toEqual([
      [1, 70, 3],
      [1, 500, 25],
    ]);
    replaysAlike(goal);
  });

  test("that surely did not reach the upstream is released in full", () => {
    const goal = new Driver({ upstreams: [LLM], tasks: [get()] });
    goal.dispatch();
    goal.settle([0], { outcome: "not_sent" });
    expect(account(goal)).toEqual({ reserved: [0, 0, 0, 0], spent: [1, 0, 0, 0] });
    expect(usage(goal, 0)).toEqual([0, 0, 0]);
    replaysAlike(goal);
  });

  test.for([
    ["timed out", (goal: Driver) => goal.settle([0], { outcome: "timeout" })],
    ["broke off", (goal: Driver) => goal.settle([0], { outcome: "broken" })],
    ["failed", (goal: Driver) => goal.settle([0], { status: 500 })],
    ["was lost with its executor", (goal: Driver) => goal.do({ kind: "batch-lost", batch: 1 })],
    ["was lost with the coordinator", (goal: Driver) => goal.do({ kind: "recover" })],
    ["was lost with its lease", (goal: Driver) => goal.passMs(30_000 + LEASE_GRACE_MS)],
    ["was canceled", (goal: Driver) => goal.do({ kind: "cancel-task", task: 0 })],
    ["was cut off by the goal's end", (goal: Driver) => goal.do({ kind: "cancel" })],
  ] as const)("that %s is charged its whole reserve", ([, end]) => {
    const goal = new Driver({ upstreams: [LLM], tasks: [get()] });
    goal.dispatch();
    end(goal);
    expect(account(goal)).toEqual({ reserved: [0, 0, 0, 0], spent: [1, 1, 100, 10] });
    replaysAlike(goal);
  });

  test("that the upstream refused is charged the call alone", () => {
    const goal = new Driver({ upstreams: [LLM], tasks: [get()] });
    goal.dispatch();
    goal.settle([0], { status: 429 });
    expect(account(goal).spent).toEqual([1, 1, 0, 0]);
    replaysAlike(goal);
  });

  test("that no executor took is released, and one that a lost connection may have carried is charged", () => {
    for (const [refusal, calls] of [
      ["overloaded", 0],
      ["unreachable", 1],
    ] as const) {
      const goal = new Driver({ tasks: [get()] });
      goal.dispatch();
      goal.do({ kind: "batch-lost", batch: 1, refusal });
      expect(account(goal), refusal).toEqual({ reserved: [0, 0, 0, 0], spent: [1, calls, 0, 0] });
    }
  });

  test("counts every time that it is made", () => {
    const goal = new Driver({ tasks: [get()] });
    for (let i = 0; i < 3; i++) {
      goal.dispatch();
      goal.do({ kind: "batch-lost", batch: i + 1, refusal: "unreachable" });
      goal.nowMs += 5_000;
    }
    goal.runAll();
    expect([usage(goal, 0)[0], account(goal).spent[1]]).toEqual([4, 4]);
  });

  test("of an upstream without tokens writes nothing more into the journal than before", () => {
    const goal = new Driver({ tasks: some(20) });
    goal.runAll();
    expect(new Set(goal.journal.map(({ kind }) => kind))).toEqual(
      new Set(["upstreams.set", "goal.created", "tasks.added", "tasks.started", "tasks.ended"]),
    );
    expect(goal.journal.every((change) => !("reserve" in change))).toBe(true);
  });
});

describe("a goal with a budget", () => {
  test("makes as many calls as it allows and never one more, and then pauses", () => {
    const goal = new Driver({ spec: { budget: { calls: 7 } }, tasks: some(20) });
    goal.runAll();
    expect(goal.state.counts[3]).toBe(7);
    expect(goal.state.budget.isExhausted).toBe(true);
    expect(isBusy(goal.state)).toBe(false);
    replaysAlike(goal);
  });

  test("rests only when what is under way could not free enough", () => {
    const goal = new Driver({ spec: { budget: { calls: 2 } }, tasks: some(3) });
    goal.dispatch();
    expect([sent(goal), goal.state.budget.isExhausted]).toEqual([[0, 1], false]);
    goal.settle([0], { outcome: "not_sent" });
    goal.settle([1]);
    goal.dispatch();
    expect([sent(goal), goal.state.budget.isExhausted]).toEqual([[2], false]);
    goal.settle([2]);
    goal.passMs(10_000);
    goal.dispatch();
    expect(goal.state.budget.isExhausted).toBe(true);
  });

  test("goes on after a top-up, which is added once for a change of the limit", () => {
    const goal = new Driver({ spec: { budget: { calls: 5 } }, tasks: some(12) });
    goal.runAll();
    expect(goal.do({ kind: "top-up", amounts: [0, 7, 0, 0], ceilings: UNBOUNDED }).ok).toBe(true);
    goal.runAll();
    expect([goal.state.counts[3], goal.state.budget.isExhausted]).toEqual([12, false]);
    replaysAlike(goal);
  });

  test("holds up what is behind a task that it cannot afford, and takes the reserve for all dimensions or none", () => {
    const spec = { budget: { calls: 10, tokens: 150 } };
    const goal = new Driver({ spec, upstreams: [LLM], tasks: [get(), get({ reserve: { tokens: 100 } }), get({ reserve: { tokens: 1 } })] });
    goal.dispatch();
    expect([sent(goal), account(goal).reserved]).toEqual([[0], [0, 1, 100, 10]]);
    settleWith(goal, 0, 40, 1);
    goal.dispatch();
    expect(sent(goal)).toEqual([1, 2]);
  });

  test("goes on at one upstream while another's task is too dear", () => {
    const upstreams = [LLM, upstream({ name: "cheap", maxConcurrency: 1 })];
    const cheap: TaskSpec = { call: { upstream: "cheap", path: "/" } };
    const goal = new Driver({ spec: { budget: { tokens: 50 } }, upstreams, tasks: [get(), cheap, cheap] });
    goal.dispatch();
    expect([sent(goal), goal.state.budget.isExhausted]).toEqual([[1], false]);
    goal.settle([1]);
    goal.dispatch();
    expect([sent(goal), goal.state.budget.isExhausted]).toEqual([[2], true]);
  });

  test("starts nothing more once usage has overrun it", () => {
    const goal = new Driver({
      spec: { budget: { tokens: 150 } },
      upstreams: [upstream()],
      tasks: some(3, get({ reserve: { tokens: 0 } })),
    });
    goal.grant({ calls: 1 });
    goal.do({ kind: "dispatch", seed: 1 });
    settleWith(goal, 0, 400, 0);
    goal.dispatch();
    expect([sent(goal), goal.state.budget.isExhausted]).toEqual([[], true]);
  });

  test("fails where it is told to, once what was under way has ended, and cancels the rest with that code", () => {
    const goal = new Driver({ spec: { budget: { calls: 2 }, onBudgetExhausted: "fail" }, tasks: some(4) });
    goal.runAll();
    expect(goal.statuses()).toEqual(["succeeded", "succeeded", "canceled", "canceled"]);
    expect([goal.state.goal!.phase, CODES[goal.state.tasks.code[3]!]]).toEqual(["failed", "budget_exhausted"]);
    replaysAlike(goal);
  });

  test("takes as many tasks as it allows, and rejects the others", () => {
    const goal = new Driver({ spec: { budget: { tasks: 3 } }, tasks: some(2) });
    const reply = goal.submit([get({ key: "a" }), get({ key: "b" }), get({ key: "a" }), get({ after: ["b"] })]);
    if (!reply.ok) throw new Error(reply.error.detail);
    const { accepted, joined, rejected } = reply.value.receipts!;
    expect([accepted, joined, [...rejected].map(([place, { code }]) => [place, code])]).toEqual([
      1,
      1,
      [
        [1, "budget_exhausted"],
        [3, "budget_exhausted"],
      ],
    ]);
    expect(goal.submit([get()], true)).toMatchObject({ ok: false, error: { code: "budget_exhausted" } });
    goal.runAll();
    expect(goal.do({ kind: "retry-task", task: 0 })).toMatchObject({ ok: false, error: { code: "budget_exhausted" } });
    replaysAlike(goal);
  });

  test("shrinks to what is spent and reserved, and no further", () => {
    const goal = new Driver({ spec: { budget: { calls: 10 } }, tasks: some(4) });
    goal.dispatch();
    goal.settle([0]);
    expect(goal.do({ kind: "top-up", amounts: [0, -7, 0, 0], ceilings: UNBOUNDED })).toMatchObject({
      ok: false,
      error: { code: "conflict" },
    });
    expect(goal.do({ kind: "top-up", amounts: [0, -6, 0, 0], ceilings: UNBOUNDED }).ok).toBe(true);
    const refused = goal.do({ kind: "top-up", amounts: [0, 0, 5, 0], ceilings: UNBOUNDED });
    expect(refused).toMatchObject({ ok: false, error: { code: "invalid_request", errors: [{ pointer: "/tokens" }] } });
  });
});

describe("a reservation", () => {
  const reserve = (goal: Driver, calls: number, ttlMs = 1_000) =>
    goal.do({ kind: "reserve", by: "caller", amounts: [0, calls, 0, 0], ttlMs });
  const settle = (goal: Driver, reservation: number, used: Bounds | null) =>
    goal.do({ kind: "settle-reservation", by: "caller", reservation, used });

  test("is settled with what was used, or released, once", () => {
    const goal = new Driver({ spec: { budget: { calls: 10 } } });
    expect(reserve(goal, 6)).toMatchObject({ ok: true, value: { reservation: 1 } });
    expect(reserve(goal, 5)).toMatchObject({ ok: false, error: { code: "budget_exhausted" } });
    expect(reserve(goal, 4)).toMatchObject({ ok: true, value: { reservation: 2 } });
    expect(settle(goal, 1, [null, 2, null, null]).ok).toBe(true);
    expect(settle(goal, 2, null).ok).toBe(true);
    expect(account(goal)).toEqual({ reserved: [0, 0, 0, 0], spent: [0, 2, 0, 0] });
    expect(settle(goal, 1, [null, 2, null, null])).toMatchObject({ ok: false, error: { code: "conflict" } });
    expect(settle(goal, 3, null)).toMatchObject({ ok: false, error: { code: "not_found" } });
    replaysAlike(goal);
  });

  test("of a call that is passed through is settled by its gate alone", () => {
    const goal = new Driver({ spec: { budget: { calls: 1 } } });
    goal.do({ kind: "reserve", by: "gate", amounts: [0, 1, 0, 0], ttlMs: 1_000 });
    for (const used of [null, [null, 0, null, null]]) {
      expect(settle(goal, 1, used)).toMatchObject({ ok: false, error: { code: "conflict" } });
    }
    expect(reserve(goal, 1)).toMatchObject({ ok: false, error: { code: "budget_exhausted" } });
    expect(goal.do({ kind: "settle-reservation", by: "gate", reservation: 1, used: [null, 1, null, null] }).ok).toBe(true);
    expect(account(goal)).toEqual({ reserved: [0, 0, 0, 0], spent: [0, 1, 0, 0] });
    replaysAlike(goal);
  });

  test("that nobody settles in time, or before the goal ends, is charged in full", () => {
    const goal = new Driver({ spec: { budget: { calls: 10 } } });
    reserve(goal, 3);
    expect(wakeAt(goal.state)).toBe(goal.nowMs + 1_000);
    goal.passMs(1_000);
    expect(account(goal)).toEqual({ reserved: [0, 0, 0, 0], spent: [0, 3, 0, 0] });
    reserve(goal, 4);
    goal.do({ kind: "cancel" });
    expect(account(goal)).toEqual({ reserved: [0, 0, 0, 0], spent: [0, 7, 0, 0] });
    replaysAlike(goal);
  });
});

describe("a goal below a bounded account", () => {
  interface Below {
    readonly goal: Driver;
    /** What it asks of the account above in a turn. */
    turn(command?: Command): FundRequest | undefined;
  }

  function below(tasks: number): Below {
    const goal = new Driver({ tasks: some(tasks) });
    goal.do({ kind: "upstreams", version: 2, upstreams: [upstream()], bounded: [false, true, false, false] });
    return {
      goal,
      turn(command) {
        goal.asked = undefined;
        if (command !== undefined) goal.do(command);
        goal.dispatch();
        return goal.asked;
      },
    };
  }

  test("asks for what is queued before it starts anything, once, and starts what was granted", () => {
    const { goal, turn } = below(5);
    expect(turn()).toEqual({ need: [5, 1, 0, 0], want: [5, 5, 0, 0] });
    expect([sent(goal), turn()]).toEqual([[], undefined]);
    turn({ kind: "funded", need: [5, 1, 0, 0], funds: [null, 3, null, null] });
    expect(sent(goal)).toHaveLength(3);
    replaysAlike(goal);
  });

  test("rests when the account above has no more, and asks again later", () => {
    const { goal, turn } = below(5);
    turn();
    expect(turn({ kind: "funded", need: [5, 1, 0, 0], funds: [null, 2, null, null] })).toEqual({ need: [5, 3, 0, 0], want: [5, 5, 0, 0] });
    for (const task of sent(goal)) goal.settle([task]);
    expect(turn({ kind: "funded", need: [5, 3, 0, 0], funds: [null, 2, null, null] })).toBeUndefined();
    expect(goal.state.budget.isExhausted).toBe(true);
    expect(wakeAt(goal.state)).toBe(goal.nowMs + FUNDS_ASK_INTERVAL_MS);
    goal.nowMs += FUNDS_ASK_INTERVAL_MS;
    expect(turn()).toBeDefined();
    turn({ kind: "funded", need: [5, 3, 0, 0], funds: [null, 5, null, null] });
    expect([sent(goal).length, goal.state.budget.isExhausted]).toEqual([3, false]);
    replaysAlike(goal);
  });

  test("asks at once again where the account above says that it has more before its answer, that it has none, arrives", () => {
    const { goal, turn } = below(2);
    expect(turn()).toEqual({ need: [2, 1, 0, 0], want: [2, 2, 0, 0] });
    expect(turn({ kind: "ask-again" })).toBeUndefined();
    expect(turn({ kind: "funded", need: [2, 1, 0, 0], funds: [null, 0, null, null] })).toEqual({ need: [2, 1, 0, 0], want: [2, 2, 0, 0] });
    expect(turn({ kind: "funded", need: [2, 1, 0, 0], funds: [null, 0, null, null] })).toBeUndefined();
    replaysAlike(goal);
  });

  test("asks soon again where nobody answered, and is not exhausted for that", () => {
    const { goal, turn } = below(1);
    turn();
    expect(turn({ kind: "funded", need: [1, 1, 0, 0], funds: null })).toBeUndefined();
    expect(goal.state.budget.isExhausted).toBe(false);
    goal.nowMs += 1_000;
    expect(turn()).toBeDefined();
  });

  test("needs no grants any more where the account above says so", () => {
    const { goal, turn } = below(2);
    turn();
    turn({ kind: "upstreams", version: 3, upstreams: [upstream()] });
    expect(sent(goal)).toEqual([0, 1]);
    turn({ kind: "funded", need: [2, 1, 0, 0], funds: [null, 1, null, null] });
    replaysAlike(goal);
  });
});

test("work that is claimed reserves what it declares, and no more than can be afforded is granted", () => {
  const work = (calls: number): TaskSpec => ({ work: { queue: "q" }, reserve: { calls } });
  const goal = new Driver({ spec: { budget: { calls: 5 } }, tasks: [work(2), work(2), work(2)] });
  const claim = () => goal.do({ kind: "claim", queue: "q", max: 3, leaseMs: 1_000, fits: () => true });
  expect(claim()).toMatchObject({ ok: true, value: { grant: { tasks: [0, 1] } } });
  const settlement = { problem: null, payload: "{}", spawn: [0, 0] as const };
  const spawn = { specs: [], failures: new Map(), contentKeys: new Map() };
  const settlements = [
    { task: 0, attempt: 1, usage: [null, 1, 70, null], ...settlement },
    { task: 1, attempt: 1, usage: [null, null, null, null], ...settlement },
  ];
  goal.do({ kind: "settle-claims", settlements, spawn, seed: 1 });
  expect(account(goal)).toEqual({ reserved: [0, 0, 0, 0], spent: [3, 3, 70, 0] });
  expect(claim()).toMatchObject({ ok: true, value: { grant: { tasks: [2] } } });
  goal.passMs(1_000);
  expect(account(goal).spent[1]).toBe(5);
  replaysAlike(goal);
});

test("a doubtful call is charged in full, and reserves anew when it is made again", () => {
  const goal = new Driver({ spec: { budget: { calls: 2 } }, tasks: [post()] });
  goal.dispatch();
  goal.settle([0], { outcome: "broken" });
  expect(account(goal).spent[1]).toBe(1);
  goal.do({ kind: "resolve", task: 0, as: "retry", line: null });
  goal.runAll();
  expect(account(goal)).toEqual({ reserved: [0, 0, 0, 0], spent: [1, 2, 0, 0] });
});
