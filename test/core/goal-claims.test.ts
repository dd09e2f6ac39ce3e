/** Workers that pull: what a claim is, how long it is held, and what becomes of what its holder says. */
import { expect, test } from "vitest";
import type { ClaimChange, Grant, Settlement, Standing } from "../../durable-objects/goal/core/claims.ts";
import { fromSnapshot, toSnapshot } from "../../durable-objects/goal/core/snapshot.ts";
import { isStalled, wakeAt } from "../../durable-objects/goal/core/wake.ts";
import type { Reply } from "../../durable-objects/goal/core/step.ts";
import { taskIdOf } from "../../shared/ids.ts";
import { WORK_QUEUES_PER_GOAL_MAX } from "../../shared/limits.ts";
import { UNBOUNDED } from "../../shared/policy/account.ts";
import type { TaskSpec } from "../../shared/protocol/task.ts";
import { Driver, durable, get, GOAL_ID, group } from "./goal-harness.ts";

const LEASE_MS = 10_000;
const work = (over: Partial<TaskSpec> = {}): TaskSpec => ({ work: { queue: "review" }, ...over });
const works = (count: number): TaskSpec[] => Array.from({ length: count }, () => work());

function valueOf(reply: Reply): Extract<Reply, { ok: true }>["value"] {
  if (!reply.ok) throw new Error(reply.error.detail);
  return reply.value;
}

function claim(driver: Driver, max = 1, { queue = "review", fits = (): boolean => true } = {}): Grant {
  return valueOf(driver.do({ kind: "claim", queue, max, leaseMs: LEASE_MS, fits })).grant!;
}

interface Said extends Partial<Omit<Settlement, "spawn">> {
  readonly task: number;
  readonly children?: readonly TaskSpec[];
}

/** Settles tasks with what is said of each; left out: a result of the current attempt. */
function settle(driver: Driver, ...said: readonly Said[]): readonly Standing[] {
  const specs: TaskSpec[] = [];
  const settlements = said.map(({ children = [], task, ...over }): Settlement => {
    const from = specs.length;
    specs.push(...children.map((spec) => ({ parentTaskId: taskIdOf(GOAL_ID, task), ...spec })));
    const attempt = driver.state.tasks.attempt[task]!;
    return { task, attempt, problem: null, payload: '{"status":200,"body":1}', usage: UNBOUNDED, ...over, spawn: [from, specs.length] };
  });
  const spawn = { specs, failures: new Map(), contentKeys: new Map() };
  return valueOf(driver.do({ kind: "settle-claims", settlements, spawn, seed: 7 })).standings!;
}

const settled = (driver: Driver, ...said: readonly Said[]): string[] => settle(driver, ...said).map(({ status }) => status);

function extend(driver: Driver, ...claims: readonly (readonly [number, number])[]): string[] {
  return valueOf(driver.do({ kind: "extend-claims", claims, leaseMs: LEASE_MS })).standings!.map(({ status }) => status);
}

const retryable = { problem: { retryable: true }, payload: '{"detail":"no paper"}' } as const;
const final = { problem: { retryable: false }, payload: '{"detail":"no such page"}' } as const;

/** Memory is what disk gives back, by the journal and by a snapshot. */
function check(driver: Driver): void {
  expect(durable(driver.replayed())).toEqual(durable(driver.state));
  const { meta, columns } = toSnapshot(driver.state);
  const loaded = fromSnapshot(JSON.parse(JSON.stringify(meta)), (name) => new Uint8Array(columns[name].slice().buffer).buffer);
  expect(durable(loaded)).toEqual(durable(driver.state));
  const { tasks } = driver.state;
  const due = Array.from({ length: tasks.n }, (_, task) => tasks.dueAtMs[task]!).filter((dueAtMs) => dueAtMs > 0);
  expect(wakeAt(loaded)).toBeLessThanOrEqual(Math.min(...due));
}

test("work waits in its queue until it is claimed, the urgent first, and nothing sends it", () => {
  const driver = new Driver({
    tasks: [work({ priority: "background" }), work(), work({ work: { queue: "other" } }), work({ priority: "interactive" })],
  });
  expect(driver.dispatch()).toEqual([]);
  expect(driver.reports.filter(({ upstream }) => upstream.name !== "api")).toEqual([]);
  expect(isStalled(driver.state)).toBe(false);
  expect(claim(driver, 2).tasks).toEqual([3, 1]);
  expect(claim(driver, 9).tasks).toEqual([0]);
  expect(claim(driver, 9).tasks).toEqual([]);
  expect(driver.statuses()).toEqual(["running", "running", "queued", "running"]);
  check(driver);
});

test("a grant has a higher fence than every one before it, and its claims are of the next attempt", () => {
  const driver = new Driver({ tasks: works(2) });
  const first = claim(driver);
  const second = claim(driver);
  expect(second.fence).toBeGreaterThan(first.fence);
  driver.passMs(LEASE_MS);
  expect(claim(driver, 2).fence).toBeGreaterThan(second.fence);
  expect([...driver.state.tasks.attempt.slice(0, 2)]).toEqual([2, 2]);
  check(driver);
});

test("a request takes no more than fits its answer, and leaves the rest where it is", () => {
  const driver = new Driver({ tasks: works(3) });
  let room = 2;
  expect(claim(driver, 3, { fits: () => room-- > 0 }).tasks).toEqual([0, 1]);
  expect(claim(driver, 3).tasks).toEqual([2]);
});

test("a result ends the task, and a second settlement of the same attempt is told so and changes nothing", () => {
  const driver = new Driver({ tasks: works(1) });
  claim(driver);
  driver.passMs(50);
  expect(settled(driver, { task: 0 })).toEqual(["settled"]);
  expect(driver.status(0)).toBe("succeeded");
  const before = durable(driver.state);
  expect(settled(driver, { task: 0, ...final })).toEqual(["settled"]);
  expect(durable(driver.state)).toEqual(before);
  expect(driver.state.tasks.endedAtMs[0]! - driver.state.tasks.startedAtMs[0]!).toBe(50);
  check(driver);
});

test("a settlement of an attempt that is no longer current is stale, and changes nothing", () => {
  const driver = new Driver({ tasks: works(1) });
  claim(driver);
  driver.passMs(LEASE_MS);
  expect(driver.status(0)).toBe("queued");
  const lost = durable(driver.state);
  expect(settle(driver, { task: 0, attempt: 1 })).toMatchObject([{ status: "stale", problem: { code: "stale_attempt" } }]);
  expect(durable(driver.state)).toEqual(lost);
  claim(driver);
  const claimed = durable(driver.state);
  expect(settled(driver, { task: 0, attempt: 1 })).toEqual(["stale"]);
  expect(durable(driver.state)).toEqual(claimed);
  expect(settled(driver, { task: 0, attempt: 2 })).toEqual(["settled"]);
});

test("what is no work of this goal cannot be settled", () => {
  const driver = new Driver({ tasks: [get(), work()] });
  expect(settle(driver, { task: 0 }, { task: 7 }, { task: -1 })).toMatchObject(
    [0, 7, -1].map(() => ({ status: "rejected", problem: { code: "not_found" } })),
  );
});

test("a problem that may pass makes another attempt after a backoff, within maxAttempts", () => {
  const driver = new Driver({ tasks: [work({ retry: { maxAttempts: 2 } })] });
  claim(driver);
  expect(settled(driver, { task: 0, ...retryable })).toEqual(["retrying"]);
  expect(settled(driver, { task: 0, ...retryable })).toEqual(["retrying"]);
  expect([driver.status(0), driver.state.tasks.failures[0]]).toEqual(["waiting", 1]);
  check(driver);
  driver.passMs(60_000);
  expect(claim(driver).tasks).toEqual([0]);
  expect(settled(driver, { task: 0, ...retryable })).toEqual(["settled"]);
  expect(driver.status(0)).toBe("failed");
  check(driver);
});

test("a problem that stays ends the task at once", () => {
  const driver = new Driver({ tasks: works(1) });
  claim(driver);
  expect(settled(driver, { task: 0, ...final })).toEqual(["settled"]);
  expect(driver.status(0)).toBe("failed");
  expect(driver.state.tasks.resultRow[0]).toBeGreaterThan(0);
});

test("a heartbeat extends the lease of what is held, and never shortens it", () => {
  const driver = new Driver({ tasks: works(1) });
  claim(driver);
  for (let i = 0; i < 3; i++) {
    driver.passMs(LEASE_MS - 1);
    expect(extend(driver, [0, 1])).toEqual(["held"]);
  }
  valueOf(driver.do({ kind: "extend-claims", claims: [[0, 1]], leaseMs: 1 }));
  check(driver);
  driver.passMs(LEASE_MS - 1);
  expect(driver.status(0)).toBe("running");
  driver.passMs(1);
  expect(driver.status(0)).toBe("queued");
  expect(extend(driver, [0, 1], [5, 1])).toEqual(["stale", "stale"]);
  driver.passMs(1);
  expect(driver.status(0)).toBe("queued");
});

test("the goal wakes for the end of a lease, also after it was loaded from a snapshot", () => {
  const driver = new Driver({ tasks: works(1) });
  claim(driver);
  expect(wakeAt(driver.state)).toBe(driver.nowMs + LEASE_MS);
  check(driver);
});

test("claims outlive the coordinator: a new incarnation loses none of them", () => {
  const driver = new Driver({ tasks: works(2) });
  claim(driver, 2);
  driver.do({ kind: "recover" });
  expect(driver.statuses()).toEqual(["running", "running"]);
  expect(settled(driver, { task: 0 })).toEqual(["settled"]);
});

test("three leases lost in a row end a task as poison, with the last problem kept", () => {
  const driver = new Driver({ tasks: works(1) });
  claim(driver);
  settle(driver, { task: 0, ...retryable });
  const row = driver.state.tasks.resultRow[0]!;
  expect(row).toBeGreaterThan(0);
  driver.passMs(60_000);
  for (let i = 0; i < 3; i++) {
    expect(claim(driver).tasks).toEqual([0]);
    driver.passMs(LEASE_MS);
  }
  expect([driver.status(0), driver.state.tasks.resultRow[0]]).toEqual(["failed", row]);
  expect(settled(driver, { task: 0 })).toEqual(["stale"]);
  check(driver);
});

test("a lease that ends between two problems is not in a row with the next ones", () => {
  const driver = new Driver({ tasks: works(1) });
  for (let i = 0; i < 4; i++) {
    claim(driver);
    driver.passMs(LEASE_MS);
    claim(driver);
    expect(settled(driver, { task: 0, ...retryable })).toEqual(["retrying"]);
    driver.passMs(60_000);
  }
  expect(driver.status(0)).toBe("queued");
});

test("a paused goal grants nothing, and holders go on", () => {
  const driver = new Driver({ tasks: works(2) });
  claim(driver);
  driver.do({ kind: "pause" });
  expect(claim(driver).tasks).toEqual([]);
  expect(extend(driver, [0, 1])).toEqual(["held"]);
  expect(settled(driver, { task: 0 })).toEqual(["settled"]);
  driver.do({ kind: "resume" });
  expect(claim(driver).tasks).toEqual([1]);
});

test("the holder of a canceled claim is told at its next word, and so is everybody when the goal ends", () => {
  const driver = new Driver({ tasks: works(2) });
  claim(driver, 2);
  driver.do({ kind: "cancel-task", task: 0 });
  expect(driver.aborts).toEqual([]);
  expect(extend(driver, [0, 1], [1, 1])).toEqual(["canceled", "held"]);
  expect(settle(driver, { task: 0 })).toMatchObject([{ status: "canceled", problem: { code: "canceled" } }]);
  driver.do({ kind: "cancel" });
  expect(extend(driver, [1, 1])).toEqual(["canceled"]);
  expect(driver.do({ kind: "claim", queue: "review", max: 1, leaseMs: 1_000, fits: () => true })).toMatchObject({
    ok: false,
    error: { code: "goal_ended" },
  });
  check(driver);
});

test("work that waits to be claimed keeps the goal from expiring", () => {
  const driver = new Driver({ tasks: works(1) });
  driver.passMs(48 * 3_600_000);
  expect(driver.state.goal!.phase).toBe("active");
});

test("a settlement may bring children, in a sealed goal too; the task ends when they have ended", () => {
  const driver = new Driver({ tasks: works(1), spec: { sealed: true } });
  claim(driver);
  const children = [work({ key: "a" }), get({ after: ["a"] }), group({ key: "g" }), work({ parentTaskId: "g" }), group()];
  expect(settled(driver, { task: 0, children })).toEqual(["settled"]);
  expect(driver.statuses()).toEqual(["waiting", "queued", "waiting", "waiting", "queued", "succeeded"]);
  expect([...driver.state.tasks.parent.slice(0, 6)]).toEqual([-1, 0, 0, 0, 3, 0]);
  check(driver);
  claim(driver, 2);
  settle(driver, { task: 1 }, { task: 4 });
  driver.runAll();
  expect(driver.statuses()).toEqual(Array(6).fill("succeeded"));
  expect(driver.state.goal!.phase).toBe("succeeded");
  check(driver);
});

test("several settlements of one request may bring children, and share an offer", () => {
  const driver = new Driver({ tasks: works(3) });
  claim(driver, 3);
  const spec = (n: number): TaskSpec => work({ work: { queue: "review", input: n } });
  expect(
    settled(
      driver,
      { task: 0, children: [spec(1), spec(2)] },
      { task: 1, attempt: 9, children: [spec(3)] },
      { task: 2, children: [spec(4)] },
    ),
  ).toEqual(["settled", "stale", "settled"]);
  expect(driver.state.tasks.n).toBe(6);
  const inputs = [3, 4, 5].map(
    (task) => (driver.offers.get(driver.state.tasks.offer[task]!)![driver.state.tasks.position[task]!] as TaskSpec).work!.input,
  );
  expect(inputs).toEqual([1, 2, 4]);
  check(driver);
});

test("a settlement whose children cannot all be taken is rejected as a whole, and its claim is still held", () => {
  const driver = new Driver({ tasks: works(2) });
  claim(driver, 2);
  const children = [work(), work({ after: ["nobody"] })];
  expect(settle(driver, { task: 0, children }, { task: 1 })).toMatchObject([
    { status: "rejected", problem: { code: "invalid_request", errors: [{ pointer: "/spawn/1/after/0" }] } },
    { status: "settled" },
  ]);
  expect(driver.statuses()).toEqual(["running", "succeeded"]);
  expect(settled(driver, { task: 0 })).toEqual(["settled"]);
  check(driver);
});

test("a goal takes so many queues, and no more", () => {
  const driver = new Driver();
  const specs = Array.from({ length: WORK_QUEUES_PER_GOAL_MAX + 1 }, (_, n) => work({ work: { queue: `q${n}` } }));
  const { receipts } = valueOf(driver.submit(specs));
  expect(receipts!.accepted).toBe(WORK_QUEUES_PER_GOAL_MAX);
  expect(receipts!.rejected.get(WORK_QUEUES_PER_GOAL_MAX)).toMatchObject({ code: "quota_exceeded" });
  expect(valueOf(driver.submit([specs.at(-1)!, specs[0]!])).receipts).toMatchObject({ accepted: 1 });
});

test("work of a queue that the tenant no longer allows is denied when its turn comes, and the rest is handed out", () => {
  const driver = new Driver({
    tasks: [work(), work({ key: "c", parentTaskId: "p" }), work({ key: "p" }), work({ work: { queue: "other" } })],
  });
  driver.do({ kind: "upstreams", version: 2, upstreams: [], policy: { queues: ["other"] } });
  expect(claim(driver).tasks).toEqual([]);
  expect(claim(driver, 9, { queue: "other" }).tasks).toEqual([3]);
  expect(driver.statuses()).toEqual(["failed", "failed", "failed", "running"]);
  check(driver);
});

test("a grant is in the journal before anybody is told of it", () => {
  const driver = new Driver({ tasks: works(1) });
  claim(driver);
  const granted = driver.journal.filter((change): change is ClaimChange => change.kind === "claims.granted");
  expect(granted).toMatchObject([{ tasks: [0], untilMs: driver.nowMs + LEASE_MS }]);
});
