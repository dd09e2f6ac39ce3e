/** Stragglers at a goal's end: which calls are run again in a batch of their own, when, what they cost, and who decides. */
import { expect, test } from "vitest";
import { inUseAt } from "../../durable-objects/goal/core/admission.ts";
import { taskJson } from "../../durable-objects/goal/views.ts";
import { wakeAt } from "../../durable-objects/goal/core/wake.ts";
import { BACKUP_LAG_MS, HEDGES_START } from "../../shared/limits-hedging.ts";
import type { TaskSpec } from "../../shared/protocol/task.ts";
import type { Upstream } from "../../shared/protocol/upstream.ts";
import { type Answer, Driver, durable, get, type Permits, post, START_MS, upstream } from "./goal-harness.ts";

const hedge = { quantile: 0.95, budgetPercent: 5 };
const AFTER_MS = 40;
const LATE_MS = AFTER_MS + BACKUP_LAG_MS;
/** As the executor of a backup writes its line. */
const second = (answer: Answer = {}): Answer => ({ ...answer, beaten: { isFirst: true, startedAtMs: START_MS, status: 0 } });

interface Options {
  readonly over?: Partial<Upstream>;
  readonly calls?: number;
  readonly permits?: Permits;
}

/** A goal whose calls were sent, one alone in a batch, which may hedge nothing. */
function sent(tasks: readonly TaskSpec[] = [get()], { over, calls, permits }: Options = {}): Driver {
  const budget = calls === undefined ? {} : { calls };
  const goal = new Driver({ governor: "by hand", upstreams: [upstream({ hedge, ...over })], spec: { budget } });
  for (const task of tasks) {
    goal.submit([task]);
    goal.dispatch();
    goal.grant({ hedgeAfterMs: AFTER_MS, ...permits });
    goal.dispatch();
  }
  return goal;
}

/** The same when they are late, with what is sent then in `sends`. */
function late(...sending: Parameters<typeof sent>): Driver {
  const goal = sent(...sending);
  goal.nowMs += LATE_MS;
  goal.dispatch();
  return goal;
}

const account = ({ state }: Driver): unknown => [[...state.budget.account.reserved], [...state.budget.account.spent]];
const outcomes = ({ state }: Driver): unknown => state.attempts.get(0)?.map(({ outcome, hedge: isSecond }) => [outcome, isSecond]);
const replaysAlike = (goal: Driver): void => expect(durable(goal.replayed())).toEqual(durable(goal.state));

test("a call that is late is run again in a batch of its own, when it is late and not before, and once", () => {
  const goal = sent();
  expect(goal.sends).toMatchObject([{ batch: 1, tasks: [0] }]);
  expect(wakeAt(goal.state)).toBe(START_MS + LATE_MS);
  goal.nowMs += LATE_MS - 1;
  expect(goal.dispatch()).toEqual([]);
  goal.nowMs += 1;
  expect(goal.dispatch()).toEqual([{ batch: 2, upstream: 0, origin: 0, lanes: 1, tasks: [0], isBackup: true }]);
  const { attempts } = JSON.parse(taskJson(goal.state, 0, null)) as { readonly attempts: readonly object[] };
  expect(attempts).toMatchObject([{ outcome: "running" }, { outcome: "running", hedge: true }]);
  replaysAlike(goal);
  goal.nowMs += 60_000 - LATE_MS - 30_000;
  expect(goal.dispatch()).toEqual([]);
  expect(wakeAt(goal.state)).toBeGreaterThan(goal.nowMs);
});

test("both tries are reserved and charged; the first that is good decides, and the other is cut off", () => {
  const reserve = { tokens: 100, costMicros: 7 };
  const won = late([get()], { over: { reserve } });
  expect([account(won), inUseAt(won.state, 0)]).toEqual([
    [
      [0, 2, 200, 14],
      [1, 0, 0, 0],
    ],
    2,
  ]);
  won.settle([0], second({ tokens: 30 }));
  expect([won.status(0), account(won), won.aborts]).toEqual([
    "succeeded",
    [
      [0, 0, 0, 0],
      [1, 2, 130, 14],
    ],
    [[1, 0, 1]],
  ]);
  expect([outcomes(won), won.state.tasks.usedCalls[0]]).toEqual([[["beaten", undefined]], 2]);
  // What is being cut off counts as open until it is closed.
  expect(inUseAt(won.state, 0)).toBe(1);
  won.settle([0]);
  expect([won.state.late, won.state.backups.size]).toEqual([1, 0]);
  replaysAlike(won);
  const lost = late([get()], { over: { reserve } });
  lost.settle([0], { tokens: 30 });
  expect([lost.status(0), account(lost), lost.aborts]).toEqual([
    "succeeded",
    [
      [0, 0, 0, 0],
      [1, 2, 130, 14],
    ],
    [[2, 0, 1]],
  ]);
  expect(outcomes(lost)).toEqual([["beaten", true]]);
  replaysAlike(lost);
});

test.for<[string, () => Driver]>([
  ["what must not be open twice", () => late([post()])],
  ["at an upstream that does not hedge", () => late([get()], { over: { hedge: null } })],
  ["while its governor lets nothing be hedged", () => late([get()], { permits: { hedgeAfterMs: null } })],
  ["without a permit to spare", () => late([get()], { permits: { calls: 1 } })],
  ["without a start to spare", () => late([get()], { over: { ratePerSecond: 10 }, permits: { starts: 1 } })],
  ["beyond the goal's budget", () => late([get()], { calls: 1 })],
])("nothing is run again: %s", ([, goal]) => {
  expect(goal().sends).toEqual([]);
});

test("nothing is run again while something waits, at an upstream whose gate is closed, or in a goal that rests", () => {
  const gated = sent();
  gated.settle([0], { status: 429, retryAfterMs: 60_000 });
  expect(gated.state.backups.size).toBe(0);
  // Fewer permits than a whole batch has lanes are free, so what waits goes on waiting for more.
  const busy = sent([get()], { permits: { calls: 6 } });
  busy.submit([post()]);
  busy.nowMs += LATE_MS;
  expect([busy.dispatch(), busy.state.upstreams[0]!.queued]).toEqual([[], 1]);
  const down = sent();
  down.grant({ isOpen: true, calls: 5, starts: 5, hedgeAfterMs: AFTER_MS });
  down.nowMs += LATE_MS;
  expect(down.dispatch()).toEqual([]);
  const paused = sent();
  paused.do({ kind: "pause" });
  paused.nowMs += LATE_MS;
  expect(paused.dispatch()).toEqual([]);
  paused.do({ kind: "resume" });
  expect(paused.dispatch()).toMatchObject([{ isBackup: true }]);
});

test("what the tenant's policy has come to deny meanwhile is not run again", () => {
  for (const [methods, again] of [
    [["POST"], 0],
    [["GET"], 1],
  ] as const) {
    const goal = sent();
    goal.do({ kind: "upstreams", version: 2, upstreams: [upstream({ hedge })], policy: { methods } });
    goal.nowMs += LATE_MS;
    expect(goal.dispatch()).toHaveLength(again);
  }
});

test("a batch that may hedge its calls by itself, or has some left to begin, is left alone", () => {
  const goal = new Driver({ governor: "by hand", upstreams: [upstream({ hedge })], tasks: Array.from({ length: 6 }, () => get()) });
  goal.dispatch();
  goal.grant({ hedgeAfterMs: AFTER_MS });
  expect(goal.dispatch()).toMatchObject([{ hedges: { left: 1 } }]);
  goal.nowMs += LATE_MS;
  expect(goal.dispatch()).toEqual([]);
  // Whoever does not know whether leave was used takes it to be left.
  const unheard = new Driver({ governor: "by hand", upstreams: [upstream({ hedge })], tasks: Array.from({ length: 6 }, () => get()) });
  unheard.dispatch();
  unheard.grant({ hedgeAfterMs: AFTER_MS });
  unheard.dispatch();
  unheard.do({ kind: "cancel-task", task: 0 });
  unheard.submit(Array.from({ length: 40 }, () => get()));
  unheard.settle(unheard.dispatch().flatMap(({ tasks }) => tasks));
  unheard.nowMs += LATE_MS;
  unheard.grant({ hedgeAfterMs: AFTER_MS });
  expect([unheard.dispatch(), unheard.state.batches.get(1)?.hedges?.left]).toEqual([[], 0]);
  // Its leave is used up by the first of them. The others are late from then on.
  goal.settle([0], second());
  goal.settle([1, 2, 3]);
  goal.submit(Array.from({ length: 40 }, () => get()));
  goal.grant({ hedgeAfterMs: null });
  goal.settle(goal.dispatch().flatMap(({ tasks }) => tasks));
  goal.grant({ hedgeAfterMs: AFTER_MS });
  goal.nowMs += LATE_MS;
  expect(goal.dispatch().map(({ tasks, isBackup }) => [tasks, isBackup])).toEqual([
    [[4], true],
    [[5], true],
  ]);
});

test("a batch that has calls left to begin is left alone until it has begun them", () => {
  const goal = new Driver({ governor: "by hand", upstreams: [upstream({ hedge })], tasks: Array.from({ length: 12 }, () => get()) });
  goal.dispatch();
  goal.grant({ hedgeAfterMs: null });
  for (const { tasks } of goal.dispatch()) goal.settle(tasks, { ms: 10 });
  goal.submit(Array.from({ length: 40 }, () => get()));
  goal.grant({ hedgeAfterMs: null, calls: 6 });
  const [{ lanes, tasks } = { lanes: 0, tasks: [] as readonly number[] }] = goal.dispatch();
  expect([lanes, tasks.length]).toEqual([6, 40]);
  goal.grant({ hedgeAfterMs: AFTER_MS });
  goal.nowMs += LATE_MS;
  goal.settle(tasks.slice(0, 33));
  goal.nowMs += LATE_MS;
  expect(goal.dispatch()).toEqual([]);
  goal.settle(tasks.slice(33, 34));
  goal.nowMs += LATE_MS - 1;
  expect(goal.dispatch()).toEqual([]);
  goal.nowMs += 1;
  goal.grant({ hedgeAfterMs: AFTER_MS });
  expect(goal.dispatch().map(({ tasks: [task], isBackup }) => [task, isBackup])).toEqual(tasks.slice(34, 37).map((task) => [task, true]));
});

test("of a hundred calls five are run again at most, and one more", () => {
  const goal = late(Array.from({ length: 20 }, () => get()));
  expect(goal.sends).toHaveLength(HEDGES_START + 1);
  expect(goal.state.backups.size).toBe(HEDGES_START + 1);
});

test("a goal asks for a permit for what is late, and for none beyond what the upstream may have open", () => {
  const goal = late([get()], { permits: { calls: 1 } });
  expect(wakeAt(goal.state)).toBeGreaterThan(goal.nowMs);
  goal.passMs(5_000);
  goal.dispatch();
  expect(goal.reports.at(-1)!.wants).toEqual([0, 1, 1]);
  goal.grant({ calls: 2, hedgeAfterMs: AFTER_MS });
  expect(goal.dispatch()).toMatchObject([{ isBackup: true }]);
  const full = late([get()], { permits: { calls: 1 }, over: { maxConcurrency: 1 } });
  full.passMs(5_000);
  full.dispatch();
  expect(full.reports.at(-1)!.wants).toEqual([0, 1, 0]);
});

test("a failure of one try decides nothing while the other one is open; two are one failed attempt", () => {
  const first = late();
  first.settle([0], { status: 503, retryAfterMs: 5_000 });
  expect(first.state.upstreams[0]!.gateUntilMs).toBe(first.nowMs + 5_000);
  expect([first.status(0), inUseAt(first.state, 0), first.state.admissions[0]!.lease.spoiled]).toEqual(["running", 2, 1]);
  // Whoever says it again says nothing new, and a batch that has ended takes nothing along.
  first.settle([0], { status: 503 });
  first.do({ kind: "batch-lost", batch: 1 });
  expect([first.status(0), first.state.late]).toEqual(["running", 1]);
  replaysAlike(first);
  first.settle([0], second());
  expect([first.status(0), first.aborts, account(first)]).toEqual([
    "succeeded",
    [],
    [
      [0, 0, 0, 0],
      [1, 2, 0, 0],
    ],
  ]);
  const other = late();
  other.settle([0], second({ outcome: "broken", status: 0 }));
  expect(other.status(0)).toBe("running");
  other.settle([0], { status: 404 });
  expect([other.status(0), other.aborts, outcomes(other)]).toEqual(["failed", [], [["beaten", true]]]);
  const both = late();
  both.settle([0], second({ status: 503 }));
  both.settle([0], { status: 500 });
  expect([both.status(0), both.state.tasks.failures[0], account(both)]).toEqual([
    "waiting",
    1,
    [
      [0, 0, 0, 0],
      [1, 2, 0, 0],
    ],
  ]);
  replaysAlike(both);
});

test("a try that is lost leaves the attempt to the other one, and one that nobody took was not made", () => {
  const lost = late();
  lost.do({ kind: "batch-lost", batch: 2 });
  expect([lost.status(0), lost.dispatch()]).toEqual(["running", []]);
  lost.do({ kind: "batch-lost", batch: 1 });
  expect([lost.status(0), account(lost)]).toEqual([
    "queued",
    [
      [0, 0, 0, 0],
      [1, 2, 0, 0],
    ],
  ]);
  // Nobody took the one, but the other was made.
  const unmade = late();
  unmade.settle([0], { status: 503 });
  unmade.do({ kind: "batch-lost", batch: 2, refusal: "overloaded" });
  expect([unmade.status(0), account(unmade)]).toEqual([
    "queued",
    [
      [0, 0, 0, 0],
      [1, 2, 0, 0],
    ],
  ]);
  const first = late();
  first.do({ kind: "batch-lost", batch: 1 });
  first.settle([0], second());
  expect([first.status(0), first.aborts]).toEqual(["succeeded", []]);
  replaysAlike(first);
  const refused = late();
  refused.do({ kind: "batch-lost", batch: 2, refusal: "overloaded" });
  expect([account(refused), inUseAt(refused.state, 0), refused.dispatch()]).toEqual([
    [
      [0, 1, 0, 0],
      [1, 0, 0, 0],
    ],
    1,
    [],
  ]);
  replaysAlike(refused);
  refused.nowMs += 60_000;
  expect(refused.dispatch()).toMatchObject([{ isBackup: true, batch: 3 }]);
});

test("an attempt that ends by other means takes its backup along, and both are charged", () => {
  const canceled = ([{ kind: "cancel-task", task: 0 }, { kind: "cancel" }] as const).map((command) => {
    const ended = late();
    ended.do(command);
    expect([ended.aborts, account(ended)]).toEqual([
      [
        [1, 0, 1],
        [2, 0, 1],
      ],
      [
        [0, 0, 0, 0],
        [1, 2, 0, 0],
      ],
    ]);
    return ended;
  });
  // Of what an earlier life had sent nobody knows.
  const crashed = late();
  crashed.do({ kind: "recover" });
  expect([crashed.status(0), crashed.aborts, account(crashed)]).toEqual([
    "queued",
    [[2, 0, 1]],
    [
      [0, 0, 0, 0],
      [1, 2, 0, 0],
    ],
  ]);
  for (const goal of [...canceled, crashed]) {
    expect([goal.state.backups.size, goal.state.upstreams[0]!.lanes, goal.state.upstreams[0]!.origins[0]!.open]).toEqual([0, 0, 0]);
    replaysAlike(goal);
  }
});

test("a backup goes to another origin where there is one, what it met is said of that one, and it is a start", () => {
  const origins = ["http://localhost:1", "http://localhost:2"];
  const goal = sent([get()], { over: { origins, ratePerSecond: 10 }, permits: { origins: [0], starts: 1 } });
  goal.grant({ hedgeAfterMs: AFTER_MS, starts: 3 });
  goal.nowMs += LATE_MS;
  expect(goal.dispatch()).toMatchObject([{ origin: 1, isBackup: true }]);
  // What it did not use of its starts is given back with its report.
  expect([goal.reports.at(-1)!.unusedStarts, goal.state.upstreams[0]!.origins.map(({ open }) => open)]).toEqual([2, [1, 1]]);
  goal.settle([0], second({ status: 503 }));
  expect(goal.state.admissions[0]!.sampler.origins[1]).toEqual({ reached: 0, unavailable: 0, refused: 1 });
});
