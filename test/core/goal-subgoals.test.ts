/** Sub-goals as the core decides: intents, orders, reports, and what a lost or repeated message does: nothing. */
import { describe, expect, it } from "vitest";
import { countsInAll } from "../../durable-objects/goal/core/kin.ts";
import { wakeAt, isBusy } from "../../durable-objects/goal/core/wake.ts";
import { subGoalIdOf } from "../../shared/ids.ts";
import { CALLS, spentInAll, UNBOUNDED } from "../../shared/policy/account.ts";
import { SUBGOAL_REPORT_MS, SUBGOAL_RETENTION_MS_MIN, SUBGOALS_OPENING_MAX } from "../../shared/limits.ts";
import type { TaskSpec } from "../../shared/protocol/task.ts";
import { Family } from "./family.ts";
import { type Driver, durable, get, GOAL_ID } from "./goal-harness.ts";

const goal = (tasks: readonly TaskSpec[], over: object = {}): TaskSpec => ({ goal: { tasks, ...over } });
const calls = (count: number): TaskSpec[] => Array.from({ length: count }, () => get());
const phaseOf = ({ state }: Driver) => state.goal!.phase;

describe("a task of kind goal", () => {
  it("runs from the commit of its intent on, and names the goal that is going to be", () => {
    const { root } = new Family({ tasks: [goal(calls(2))] });
    expect(root.status(0)).toBe("queued");
    root.dispatch();
    expect(root.status(0)).toBe("running");
    expect(root.journal.find(({ kind }) => kind === "subgoals.begun")).toMatchObject({
      kind: "subgoals.begun",
      tasks: [0],
      goalIds: [subGoalIdOf(GOAL_ID, 0)],
    });
    expect(root.orders).toEqual([{ goalId: subGoalIdOf(GOAL_ID, 0), task: 0, number: 0, isPaused: false, stop: null, funds: UNBOUNDED }]);
  });

  it("ends as its goal ends, with its counts and usage as the result", () => {
    const family = new Family({ tasks: [goal(calls(3))], spec: { sealed: true } });
    family.finish();
    expect(phaseOf(family.root)).toBe("succeeded");
    expect(countsInAll(family.root.state)).toEqual([0, 0, 0, 4, 0, 0, 0]);
    for (const each of family.goals.values()) expect(durable(each.replayed())).toEqual(durable(each.state));
  });

  it("begins no more than a page of goals before the first of them are there", () => {
    const family = new Family({ tasks: Array.from({ length: 40 }, () => goal(calls(1))), spec: { sealed: true } });
    family.root.dispatch();
    expect(family.root.state.counts).toMatchObject({ 0: 40 - SUBGOALS_OPENING_MAX, 2: SUBGOALS_OPENING_MAX });
    family.finish();
    expect(phaseOf(family.root)).toBe("succeeded");
    expect(countsInAll(family.root.state)[3]).toBe(80);
  });

  it("goes levels deep, and counts all of them at every level", () => {
    const family = new Family({ tasks: [goal([goal([goal(calls(2)), ...calls(1)])])], spec: { sealed: true } });
    family.finish();
    expect(countsInAll(family.root.state)[3]).toBe(6);
    const child = family.at(subGoalIdOf(GOAL_ID, 0));
    expect(countsInAll(child.state)[3]).toBe(5);
    expect(child.state.goal!.spec.parent).toMatchObject({ goalId: GOAL_ID, task: 0, ancestors: [GOAL_ID], path: `${GOAL_ID}/0`, depth: 1 });
  });
});

describe("a goal whose end above is known before it says so", () => {
  it("begins no call and no goal, and goes on where it was not meant", () => {
    const family = new Family({ tasks: [goal([...calls(2), goal(calls(1))])], spec: { sealed: true } });
    family.root.dispatch();
    family.deliver(family.root, family.root.orders[0]!);
    const child = family.at(subGoalIdOf(GOAL_ID, 0));
    child.grant();
    child.do({ kind: "dispatch", seed: 1, isOver: true });
    expect(child.state.counts).toMatchObject({ 0: 3 });
    child.do({ kind: "dispatch", seed: 1 });
    expect(child.state.counts).toMatchObject({ 0: 0, 2: 3 });
  });
});

describe("a message between goals", () => {
  it("is owed until it is answered, also by the next incarnation", () => {
    const { root } = new Family({ tasks: [goal(calls(1))] });
    root.dispatch();
    const [first] = root.orders.splice(0);
    root.do({ kind: "not-obeyed", task: 0 });
    root.dispatch();
    expect(root.orders).toEqual([]);
    expect(isBusy(root.state)).toBe(true);
    expect(wakeAt(root.state)).toBeLessThanOrEqual(root.nowMs + 1_000);
    root.passMs(1_000);
    root.dispatch();
    expect(root.orders).toEqual([first]);
    const next = root.replayed();
    expect([...next.kin.owed]).toEqual([0]);
  });

  it("makes one goal, however often it comes, and however late", () => {
    const family = new Family({ tasks: [goal(calls(1))], spec: { sealed: true } });
    const { root } = family;
    root.dispatch();
    const order = root.orders[0]!;
    const birth = family.birthOf(root, order);
    const child = family.at(order.goalId);
    for (let i = 0; i < 3; i++) child.do({ kind: "obey", order, birth });
    expect(child.state.tasks.n).toBe(1);
    root.orders = [order];
    family.finish();
    child.do({ kind: "obey", order, birth });
    expect(child.state.tasks.n).toBe(1);
    expect(phaseOf(child)).toBe("succeeded");
  });

  it("is worth a commit when it was heard only where it was the last one", () => {
    const family = new Family({ tasks: [goal(calls(2))] });
    family.carry();
    const child = family.below(family.root, 0);
    child.settle([0]);
    family.carry();
    expect(child.journal.filter(({ kind }) => kind === "parent.heard").length).toBeLessThanOrEqual(1);
    expect(child.state.mail.acknowledged).toBe(child.state.kin.told!.number);
    family.finish();
    expect(child.state.kin.acknowledged).toBe(child.state.kin.told!.number);
    expect(child.journal.at(-1)).toEqual({ kind: "parent.heard", number: child.state.kin.told!.number });
  });

  it("does no harm when it comes twice, or after a newer one", () => {
    const family = new Family({ tasks: [goal(calls(2))] });
    family.carry();
    const { root } = family;
    const child = family.below(root, 0);
    child.settle([0]);
    child.passMs(SUBGOAL_REPORT_MS);
    child.dispatch();
    const older = child.reported.splice(0);
    child.settle([1]);
    child.passMs(SUBGOAL_REPORT_MS);
    child.do({ kind: "not-heard" });
    child.passMs(1_000);
    child.dispatch();
    const newer = child.reported.splice(0);
    expect(newer[0]!.number).toBeGreaterThan(older[0]!.number);
    for (const report of [...newer, ...older, ...newer, ...older]) root.do({ kind: "hear", report });
    expect(countsInAll(root.state)).toEqual([0, 0, 0, 3, 0, 0, 0]);
  });

  it("puts an end to a goal that nobody knows", () => {
    const family = new Family({ tasks: [goal(calls(2))] });
    family.carry();
    const child = family.below(family.root, 0);
    child.do({ kind: "heard", number: 1, word: { order: null, reportMs: 250 } });
    expect(phaseOf(child)).toBe("canceled");
  });
});

describe("an order", () => {
  it("to stop reaches every level, and is final there before the root forgets it", () => {
    const family = new Family({ tasks: [goal([goal(calls(3)), ...calls(1)]), ...calls(1)] });
    family.carry();
    const { root } = family;
    const child = family.below(root, 0);
    const grandchild = family.below(child, 0);
    root.do({ kind: "cancel" });
    expect(root.state.kin.open.size).toBe(1);
    family.carry();
    expect([root, child, grandchild].map(phaseOf)).toEqual(["canceled", "canceled", "canceled"]);
    expect([root, child].map(({ state }) => state.kin.open.size)).toEqual([0, 0]);
    expect(countsInAll(root.state)).toEqual([0, 0, 0, 0, 0, 7, 0]);
  });

  it("to stop is one commit in each goal, of the same size however many tasks it ends", () => {
    const changesOf = (count: number): number[] => {
      const family = new Family({ tasks: [goal(calls(count))] });
      family.carry();
      const child = family.at(subGoalIdOf(GOAL_ID, 0));
      const before = [family.root.journal.length, child.journal.length] as const;
      family.root.do({ kind: "cancel" });
      family.root.dispatch();
      // The turn that ends the goal is the one that sends the order on.
      const [order] = family.root.orders.splice(0);
      expect(order).toMatchObject({ stop: "canceled" });
      expect(family.deliver(family.root, order!)).toMatchObject({ status: "canceled", isFinal: true });
      expect(countsInAll(child.state)[5]).toBe(count);
      return [family.root.journal.length - before[0], child.journal.length - before[1]];
    };
    expect(changesOf(200)).toEqual(changesOf(2));
  });

  it("to stop makes a goal that is not there yet, so that a late order to make it finds it ended", () => {
    const family = new Family({ tasks: [goal(calls(2))] });
    const { root } = family;
    root.dispatch();
    const late = root.orders.splice(0)[0]!;
    const birth = family.birthOf(root, late);
    root.do({ kind: "not-obeyed", task: 0 });
    root.do({ kind: "cancel-task", task: 0 });
    root.passMs(1_000);
    family.carry();
    const child = family.at(late.goalId);
    expect(phaseOf(child)).toBe("canceled");
    child.do({ kind: "obey", order: late, birth });
    expect([phaseOf(child), child.state.tasks.n]).toEqual(["canceled", 0]);
  });

  it("to pause is apart from the goal's own pause, and an older one is not heard", () => {
    const family = new Family({ tasks: [goal(calls(2))] });
    const { root } = family;
    family.carry();
    const child = family.below(root, 0);
    child.do({ kind: "pause" });
    root.do({ kind: "pause" });
    root.dispatch();
    const older = root.orders.at(-1)!;
    family.carry();
    expect(child.state.kin.above.isPaused).toBe(true);
    root.do({ kind: "resume" });
    family.carry();
    child.do({ kind: "obey", order: older, birth: null });
    expect([child.state.kin.above.isPaused, child.state.goal!.paused]).toEqual([false, true]);
  });

  it("carries the deadline: nothing below outlives it", () => {
    const family = new Family({
      tasks: [goal(calls(2), { deadlineMs: 60_000 }), goal(calls(1), { deadlineMs: 5_000 })],
      spec: { deadlineMs: 10_000 },
    });
    family.carry();
    const { root } = family;
    const deadlines = [0, 1].map((task) => family.below(root, task).state.goal!.deadlineAtMs! - root.state.goal!.createdAtMs);
    expect(deadlines).toEqual([10_000, 5_000]);
    for (const each of family.goals.values()) each.passMs(10_001);
    family.carry();
    expect(phaseOf(root)).toBe("expired");
    expect(countsInAll(root.state)).toEqual([0, 0, 0, 0, 0, 0, 5]);
  });
});

describe("the end of a sub-goal", () => {
  it("fails the task where the goal failed, and the parent with it", () => {
    const family = new Family({ tasks: [goal(calls(1))], spec: { sealed: true } });
    family.carry();
    family.below(family.root, 0).settle([0], { status: 404 });
    family.carry();
    expect(family.root.statuses()).toEqual(["failed"]);
    expect(phaseOf(family.root)).toBe("failed");
  });

  it("cancels the task where somebody canceled the goal", () => {
    const family = new Family({ tasks: [goal(calls(1))], spec: { sealed: true } });
    family.carry();
    family.below(family.root, 0).do({ kind: "cancel" });
    family.carry();
    expect(family.root.statuses()).toEqual(["canceled"]);
  });

  it("fails the task where the goal is lost, and counts what lived in it as canceled", () => {
    const family = new Family({ tasks: [goal(calls(2))], spec: { sealed: true } });
    family.carry();
    const { root } = family;
    const order = { goalId: subGoalIdOf(GOAL_ID, 0), task: 0, number: 0, isPaused: false, stop: null, funds: UNBOUNDED };
    root.do({ kind: "obeyed", order, report: null });
    expect(root.statuses()).toEqual(["failed"]);
    expect(countsInAll(root.state)).toEqual([0, 0, 0, 0, 1, 2, 0]);
  });

  it("is told until it is acknowledged, and the goal is kept for so long", () => {
    const family = new Family({ tasks: [goal(calls(1), { retentionMs: 0 })] });
    family.carry();
    const child = family.below(family.root, 0);
    child.settle([0]);
    for (let i = 0; i < 200; i++) {
      child.passMs(11_000);
      child.dispatch();
      child.do({ kind: "not-heard" });
    }
    expect(child.destroyed).toBe(false);
    expect(child.reported.length).toBeGreaterThan(100);
    family.carry();
    child.passMs(SUBGOAL_RETENTION_MS_MIN);
    expect(child.destroyed).toBe(true);
  });
});

describe("a budget", () => {
  const poor = { budget: { calls: 5 } };
  const reservedIn = ({ state }: Driver): readonly number[] => state.budget.account.reserved;

  it("is drawn on by all sub-goals together, and never overdrawn", () => {
    const family = new Family({ tasks: [goal(calls(3)), goal(calls(3)), goal(calls(3))], spec: { sealed: true, ...poor } });
    family.finish();
    const { root } = family;
    expect(spentInAll(root.state.budget.account)[CALLS]).toBe(5);
    root.do({ kind: "top-up", amounts: [0, 4, 0, 0], ceilings: UNBOUNDED });
    for (const each of family.goals.values()) each.do({ kind: "ask-again" });
    family.finish();
    expect(phaseOf(root)).toBe("succeeded");
    expect(spentInAll(root.state.budget.account)[CALLS]).toBe(9);
    for (const each of family.goals.values()) expect(reservedIn(each)).toEqual([0, 0, 0, 0]);
  });

  it("gets back what a sub-goal was granted and has not spent, once all of it has stopped", () => {
    const family = new Family({ tasks: [goal(calls(4))], spec: poor });
    family.carry();
    const { root } = family;
    expect(root.state.budget.account.held[CALLS]).toBeGreaterThan(0);
    root.do({ kind: "cancel" });
    family.carry();
    expect(root.state.budget.account.held).toEqual([0, 0, 0, 0]);
    expect(reservedIn(family.at(subGoalIdOf(GOAL_ID, 0)))).toEqual([0, 0, 0, 0]);
  });
});

describe("a submission", () => {
  it("is rejected for what is wrong levels below, with its pointer", () => {
    const { root } = new Family();
    const bad = goal([goal([{ call: { upstream: "nowhere", path: "/" } }])]);
    const reply = root.submit([bad]);
    expect(reply.ok && [...reply.value.receipts!.rejected.values()][0]!.errors![0]!.pointer).toBe(
      "/goal/tasks/0/goal/tasks/0/call/upstream",
    );
  });

  it("is rejected where its goals would be too deep", () => {
    let spec = goal(calls(1));
    for (let level = 0; level < 32; level++) spec = goal([spec]);
    const reply = new Family().root.submit([spec]);
    expect(reply.ok && reply.value.receipts!.rejected.size).toBe(1);
  });
});
