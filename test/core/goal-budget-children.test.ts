/** The goal's account as the one above its sub-goals', and below its tenant's. */
import { describe, expect, test } from "vitest";
import { closeChildOf, fundChildOf, noteChildSpent, takeGrantFromAbove } from "../../durable-objects/goal/core/budget.ts";
import { Recorder } from "../../durable-objects/goal/core/recorder.ts";
import type { Bounds } from "../../shared/policy/account.ts";
import { Driver, durable } from "./goal-harness.ts";

const calls = (count: number): number[] => [0, count, 0, 0];

function stage(funds: Bounds) {
  const goal = new Driver();
  const record = <T>(act: (rec: Recorder) => T): T => {
    const out = {
      changes: goal.journal,
      sends: [],
      aborts: [],
      reports: [],
      orders: [],
      report: null,
      callOf: () => undefined,
      values: [],
      lines: [],
      lockMessages: [],
      flightMessages: [],
      warms: [],
      keep: () => ({ row: 1, index: 0 }),
      destroy: false,
    };
    return act(new Recorder(goal.state, goal.nowMs, out));
  };
  record((rec) => takeGrantFromAbove(rec, funds));
  return {
    goal,
    record,
    ask: (child: string, count: number) => record((rec) => fundChildOf(rec, child, { need: calls(1), want: calls(count) })),
  };
}

describe("a sub-goal's account", () => {
  test("is funded by totals, which are the same again when the same is asked for", () => {
    const { goal, ask } = stage([null, 100, null, null]);
    expect(ask("0", 40)).toEqual([null, 40, null, null]);
    const changes = goal.journal.length;
    expect(ask("0", 40)).toEqual([null, 40, null, null]);
    expect(goal.journal).toHaveLength(changes);
    expect(durable(goal.replayed())).toEqual(durable(goal.state));
  });

  test("gives back what it has not spent, once, when it is closed", () => {
    const { goal, record, ask } = stage([null, 100, null, null]);
    ask("0", 40);
    record((rec) => noteChildSpent(rec, "0", calls(5)));
    record((rec) => noteChildSpent(rec, "0", calls(3)));
    expect(goal.state.budget.account.children.get("0")!.spent).toEqual(calls(5));
    for (let i = 0; i < 2; i++) record((rec) => closeChildOf(rec, "0", calls(7)));
    const { spent, held } = goal.state.budget.account;
    expect([spent[1], held[1]]).toEqual([7, 0]);
    expect(durable(goal.replayed())).toEqual(durable(goal.state));
  });
});

test("a late grant from above is no news", () => {
  const { goal, record } = stage([null, 100, null, null]);
  record((rec) => takeGrantFromAbove(rec, [null, 60, null, null]));
  expect(goal.state.budget.account.funds).toEqual([null, 100, null, null]);
});
