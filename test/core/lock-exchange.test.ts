/** What a goal and a shard of the tenant's locks say to each other: nothing that gets lost or comes twice does harm. */
import { expect, test } from "vitest";
import { type Out, step, tick } from "../../durable-objects/locks/core/step.ts";
import { TENANT_LOCK_TTL_MS } from "../../shared/limits.ts";
import type { LockMessage, LockNews } from "../../shared/policy/lock-steps.ts";
import { newLockTable } from "../../shared/policy/lock-table.ts";
import { Driver, get, GOAL_ID, LIFE } from "./goal-harness.ts";
import { exclusive, shared, T } from "./lock-harness.ts";

const OTHER = GOAL_ID.replace(/.$/, "z");
const wanted = (task: number, goalId: string, name = "l") => ({ ...exclusive(name), task, holder: `${goalId}/${task}` });

class Tenant {
  readonly table = newLockTable();
  nowMs = T;
  /** Goals that were told to ask. */
  nudged: string[] = [];

  say(goalId: string, over: Partial<LockMessage>): LockNews {
    const out: Out = { changes: [], settled: [] };
    const message: LockMessage = { goalId, shard: 0, sentAtMs: this.nowMs, asks: [], renews: [], releases: [], ...over };
    tick(this.table, this.nowMs, out);
    const reply = step(this.table, this.nowMs, { kind: "exchange", message }, out);
    this.nudged.push(...out.settled.flatMap(({ request: { owner } }) => (typeof owner === "string" ? [owner] : [])));
    return (reply as { value: { news: LockNews } }).value.news;
  }
}

test("a goal that asks again, because the answer was lost, gets the same fence", () => {
  const tenant = new Tenant();
  const asks = [wanted(0, GOAL_ID)];
  const first = tenant.say(GOAL_ID, { asks });
  expect(first.granted).toEqual([{ task: 0, name: "l", fence: 1 }]);
  expect(tenant.say(GOAL_ID, { asks })).toEqual(first);
});

test("a goal that waits is told to ask, and what it asks for then is its own", () => {
  const tenant = new Tenant();
  tenant.say(GOAL_ID, { asks: [wanted(0, GOAL_ID)] });
  expect(tenant.say(OTHER, { asks: [wanted(3, OTHER)] }).granted).toEqual([]);
  const releases = [{ name: "l", holder: `${GOAL_ID}/0`, fence: 1 }];
  tenant.say(GOAL_ID, { releases });
  expect(tenant.nudged).toEqual([OTHER]);
  expect(tenant.say(OTHER, { asks: [wanted(3, OTHER)] }).granted).toEqual([{ task: 3, name: "l", fence: 2 }]);
  // The release comes once more, and takes nothing from the next.
  tenant.say(GOAL_ID, { releases });
  expect(tenant.say(OTHER, { renews: [{ task: 3, place: 0, name: "l", fence: 2 }] }).lost).toEqual([]);
});

test("a goal that says nothing loses what it holds and its places, and hears of it", () => {
  const tenant = new Tenant();
  tenant.say(GOAL_ID, { asks: [wanted(0, GOAL_ID)] });
  tenant.nowMs += TENANT_LOCK_TTL_MS;
  expect(tenant.say(OTHER, { asks: [wanted(0, OTHER)] }).granted).toHaveLength(1);
  expect(tenant.say(GOAL_ID, { renews: [{ task: 0, place: 0, name: "l", fence: 1 }] }).lost).toEqual([1]);
});

test("wants that cannot be met are refused by task", () => {
  const tenant = new Tenant();
  tenant.say(GOAL_ID, { asks: [{ ...shared("l", 2), task: 0, holder: `${GOAL_ID}/0` }] });
  expect(tenant.say(OTHER, { asks: [{ ...shared("l", 3), task: 7, holder: `${OTHER}/7` }] }).refused).toEqual([7]);
});

test("a sub-goal's task is inside the lock of the task above it, for as long as that has it", () => {
  const tenant = new Tenant();
  tenant.say(GOAL_ID, { asks: [wanted(0, GOAL_ID)] });
  const holder = `${GOAL_ID}/0/${OTHER}/5`;
  expect(tenant.say(OTHER, { asks: [{ ...exclusive("l"), task: 5, holder }] }).granted).toEqual([{ task: 5, name: "l", fence: 1 }]);
  const renews = [{ task: 5, place: 0, name: "l", fence: 1 }];
  expect(tenant.say(OTHER, { renews }).lost).toEqual([]);
  tenant.say(OTHER, { releases: [{ name: "l", holder, fence: 1 }] });
  expect(tenant.say(GOAL_ID, { renews: [{ task: 0, place: 0, name: "l", fence: 1 }] }).lost).toEqual([]);
  tenant.say(GOAL_ID, { releases: [{ name: "l", holder: `${GOAL_ID}/0`, fence: 1 }] });
  expect(tenant.say(OTHER, { renews }).lost).toEqual([1]);
});

/** Lets the goal and the shard talk until they have nothing more to say. */
function talk(d: Driver, tenant: Tenant, isLost: (message: LockMessage) => boolean = () => false): void {
  for (let round = 0; round < 20; round++) {
    d.dispatch();
    const messages = d.lockMessages.splice(0);
    if (messages.length === 0) return;
    for (const message of messages) {
      tenant.nowMs = d.nowMs;
      const news = isLost(message) ? null : tenant.say(message.goalId, message);
      d.do({ kind: "lock-news", message, news });
    }
    if (messages.some(isLost)) return;
  }
}

const tenantWide = (name = "l") => get({ locks: [{ name, scope: "tenant" }] });
const statuses = (d: Driver): string =>
  d
    .statuses()
    .map((status) => status[0])
    .join("");

test("tasks that want a lock of the tenant take one place, and run one after another", () => {
  const tenant = new Tenant();
  const d = new Driver({ tasks: Array.from({ length: 5 }, () => tenantWide()) });
  for (let task = 0; task < 5; task++) {
    talk(d, tenant);
    expect(statuses(d)).toBe("s".repeat(task) + "r" + "w".repeat(4 - task));
    d.settle([task]);
  }
  talk(d, tenant);
  expect(tenant.table.locks.size).toBe(0);
});

test("several locks of the tenant are had in the order of their names, and then those of the goal", () => {
  const tenant = new Tenant();
  const asked: string[] = [];
  const d = new Driver({ tasks: [get({ locks: [{ name: "z", scope: "tenant" }, { name: "g" }, { name: "a", scope: "tenant" }] })] });
  talk(d, tenant, ({ asks }) => {
    asked.push(...asks.map(({ name }) => name));
    return false;
  });
  expect([[...new Set(asked)], d.status(0)]).toEqual([["a", "z"], "running"]);
});

test("a lock that is not renewed in time is lost: the attempt is aborted, its result does not count, and the task waits anew", () => {
  const tenant = new Tenant();
  const d = new Driver({ tasks: [tenantWide()] });
  talk(d, tenant);
  expect(d.status(0)).toBe("running");
  const late = d.line(0);
  d.passMs(TENANT_LOCK_TTL_MS / 3);
  talk(d, tenant, () => true);
  d.nowMs += TENANT_LOCK_TTL_MS;
  d.do({ kind: "settle", lines: [late], seed: 7 });
  expect([d.status(0), d.state.late, d.aborts.length]).toEqual(["waiting", 1, 1]);
  talk(d, tenant);
  expect([d.status(0), d.state.tasks.attempt[0]]).toEqual(["running", 2]);
});

test("what is held is renewed, however long it takes", () => {
  const tenant = new Tenant();
  const d = new Driver({ tasks: [get({ locks: [{ name: "l", scope: "tenant" }], timeoutMs: 600_000 })] });
  talk(d, tenant);
  for (let i = 0; i < 20; i++) {
    d.passMs(TENANT_LOCK_TTL_MS / 3);
    talk(d, tenant);
  }
  expect([d.status(0), d.state.tasks.attempt[0]]).toEqual(["running", 1]);
  expect(tenant.say(OTHER, { asks: [wanted(0, OTHER)] }).granted).toEqual([]);
});

test("a goal that is paused asks for nothing, and goes on where it was", () => {
  const tenant = new Tenant();
  const d = new Driver({ tasks: [tenantWide()] });
  d.do({ kind: "pause" });
  talk(d, tenant);
  expect(tenant.table.locks.size).toBe(0);
  d.do({ kind: "resume" });
  talk(d, tenant);
  expect(d.status(0)).toBe("running");
});

test("a goal that was loaded from disk does not give back what its tasks have by now", () => {
  const tenant = new Tenant();
  tenant.say(OTHER, { asks: [wanted(0, OTHER, "m")] });
  const locks = ["l", "m"].map((name) => ({ name, scope: "tenant" }) as const);
  const d = new Driver({ tasks: [get({ locks })] });
  d.nowMs = tenant.nowMs;
  talk(d, tenant);
  // It has the first and waits for the second; its lease runs out, and it leaves both.
  d.passMs(TENANT_LOCK_TTL_MS);
  tenant.nowMs = d.nowMs;
  talk(d, tenant);
  const holds = d.state.locks.tenant.claims.get(0)!.map(({ name, fence }) => ({ name, fence }));
  expect(holds).toHaveLength(2);
  d.state = { ...d.replayed(), life: LIFE };
  d.do({ kind: "recover" });
  talk(d, tenant);
  expect(d.state.locks.tenant.claims.get(0)).toMatchObject(holds);
  for (const { name, fence } of holds) expect(tenant.table.locks.get(name)!.holds.has(fence), name).toBe(true);
});

test("letting an old grant go takes nobody out of the queue", () => {
  const tenant = new Tenant();
  tenant.say(OTHER, { asks: [wanted(0, OTHER)] });
  tenant.say(GOAL_ID, { asks: [wanted(0, GOAL_ID)] });
  tenant.say(GOAL_ID, { releases: [{ name: "l", holder: `${GOAL_ID}/0`, fence: 9 }] });
  expect(tenant.table.locks.get("l")!.waiting.size).toBe(1);
  tenant.say(GOAL_ID, { releases: [{ name: "l", holder: `${GOAL_ID}/0`, fence: 0 }] });
  expect(tenant.table.locks.get("l")!.waiting.size).toBe(0);
});
