/** What a gate holds of a goal's budget: totals that may be lost and repeated, and never more than there is. */
import { expect, test } from "vitest";
import { apply } from "../../durable-objects/goal/core/apply.ts";
import { isFinal } from "../../durable-objects/goal/core/kin.ts";
import { wakeAt } from "../../durable-objects/goal/core/wake.ts";
import type { DrawTab, Drawn } from "../../durable-objects/goal/core/tabs.ts";
import { TAB_MS } from "../../shared/limits.ts";
import { Driver, durable } from "./goal-harness.ts";

const CALL = [0, 1, 0, 0];
const calls = (count: number): number[] => [0, count, 0, 0];

function goalFor(limit: number): Driver {
  return new Driver({ spec: { budget: { calls: limit } } });
}

function draw(goal: Driver, over: Partial<DrawTab>): Drawn {
  const request: DrawTab = { kind: "tab", life: "gate", isNew: false, used: calls(0), left: calls(0), wants: [], ...over };
  const reply = goal.do(request);
  if (!reply.ok) throw new Error(reply.error.detail);
  return reply.value.drawn!;
}

const want = (need: number, spare = 0): DrawTab["wants"] => [{ amounts: CALL, need, spare }];
const account = ({ state }: Driver): number[] => [state.budget.account.spent[1]!, state.budget.account.reserved[1]!];

test("what is wanted is granted in order, and where there is little nobody lays in a stock", () => {
  const goal = goalFor(10);
  expect(draw(goal, { isNew: true, wants: want(2, 3) })).toEqual({ granted: [5], isTight: false });
  expect(draw(goal, { left: calls(5), wants: [...want(1, 8), ...want(9)] })).toEqual({ granted: [1, 4], isTight: true });
  expect(account(goal)).toEqual([0, 10]);
});

test("what is said twice counts once, and what was granted and not heard of is free again", () => {
  const goal = goalFor(10);
  draw(goal, { isNew: true, wants: want(6) });
  for (let i = 0; i < 2; i++) draw(goal, { used: calls(4), left: calls(2) });
  expect(account(goal)).toEqual([4, 2]);
  // The answer to this was lost, so the gate says the same of what it holds.
  draw(goal, { used: calls(4), left: calls(2), wants: want(3) });
  expect(draw(goal, { used: calls(4), left: calls(2), wants: want(4) })).toEqual({ granted: [4], isTight: false });
  expect(account(goal)).toEqual([4, 6]);
  // What it never had it cannot hold.
  draw(goal, { used: calls(4), left: calls(60) });
  expect(account(goal)).toEqual([4, 6]);
  expect(durable(goal.replayed())).toEqual(durable(goal.state));
});

test("a gate that says nothing any more has spent what it held, and learns so when it comes back", () => {
  const goal = goalFor(10);
  draw(goal, { isNew: true, wants: want(6) });
  draw(goal, { used: calls(1), left: calls(5) });
  expect(wakeAt(goal.state)).toBeLessThanOrEqual(goal.nowMs + TAB_MS);
  goal.nowMs += TAB_MS;
  goal.do({ kind: "tick" });
  expect(account(goal)).toEqual([6, 0]);
  expect(draw(goal, { used: calls(3), left: calls(3), wants: want(1) })).toEqual({ granted: null, isTight: false });
  expect(account(goal)).toEqual([6, 0]);
  expect(draw(goal, { life: "next", isNew: true, wants: want(9) })).toEqual({ granted: [4], isTight: true });
  expect(durable(goal.replayed())).toEqual(durable(goal.state));
});

test("what is held when the goal ends is given back, and nothing more is granted", () => {
  const goal = goalFor(10);
  draw(goal, { isNew: true, wants: want(6) });
  goal.do({ kind: "cancel" });
  expect(account(goal)).toEqual([0, 6]);
  expect(draw(goal, { used: calls(1), left: calls(4), wants: want(1) })).toEqual({ granted: [0], isTight: true });
  expect(account(goal)).toEqual([1, 4]);
  expect(draw(goal, { used: calls(2), left: calls(0) })).toEqual({ granted: [], isTight: false });
  expect(account(goal)).toEqual([2, 0]);
  expect(goal.state.budget.tabs.size).toBe(0);
  for (const isNew of [false, true]) expect(draw(goal, { isNew, wants: want(1) })).toEqual({ granted: [0], isTight: false });
  expect(account(goal)).toEqual([2, 0]);
  expect(durable(goal.replayed())).toEqual(durable(goal.state));
});

test("a goal's costs are final when no gate holds anything of it: one that is gone has spent all that it held", () => {
  const goal = goalFor(10);
  draw(goal, { isNew: true, wants: want(6) });
  goal.do({ kind: "cancel" });
  expect(isFinal(goal.state)).toBe(false);
  expect(wakeAt(goal.state)).toBeLessThanOrEqual(goal.nowMs + TAB_MS);
  goal.nowMs += TAB_MS;
  goal.do({ kind: "tick" });
  expect(account(goal)).toEqual([6, 0]);
  expect(isFinal(goal.state)).toBe(true);
  expect(durable(goal.replayed())).toEqual(durable(goal.state));
});

test("a goal whose gate holds nothing is final at its end, and one whose gate does is not deleted before", () => {
  const idle = goalFor(10);
  draw(idle, { isNew: true, wants: want(6) });
  draw(idle, { used: calls(6), left: calls(0) });
  idle.do({ kind: "cancel" });
  expect([isFinal(idle.state), account(idle)]).toEqual([true, [6, 0]]);
  const short = new Driver({ spec: { budget: { calls: 10 }, retentionMs: 0 } });
  draw(short, { isNew: true, wants: want(6) });
  short.do({ kind: "cancel" });
  expect(wakeAt(short.state)).toBeGreaterThan(short.nowMs);
  short.nowMs += 1_000;
  short.do({ kind: "tick" });
  expect(short.destroyed).toBe(false);
  draw(short, { used: calls(1), left: calls(0) });
  short.do({ kind: "tick" });
  expect(short.destroyed).toBe(true);
});

test("an end from before gates gave back after it charges what they held", () => {
  const goal = goalFor(10);
  draw(goal, { isNew: true, wants: want(6) });
  apply(goal.state, { kind: "goal.ended", phase: "canceled", rest: "canceled", atMs: goal.nowMs }, () => []);
  expect([isFinal(goal.state), account(goal)]).toEqual([true, [6, 0]]);
});
