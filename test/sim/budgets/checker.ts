/** Watches the account of a goal in the goal's own world, where attempts meet everything that can go wrong. */
import { CALLS, TASKS } from "../../../shared/policy/account.ts";
import type { GoalState } from "../../../durable-objects/goal/core/state.ts";
import type { Call } from "../executor.ts";
import { must } from "../violation.ts";

const RUNNING = 2;
const WORK = 32;

export class BudgetChecker {
  /** Calls that reached an upstream, or may have. */
  #made = 0;

  call({ effect }: Call): void {
    if (effect !== "surely none") this.#made++;
  }

  turn(state: GoalState): void {
    const { account } = state.budget;
    const { status, flags, usedCalls, n } = state.tasks;
    let running = 0;
    let used = 0;
    for (let task = 0; task < n; task++) {
      if (status[task] === RUNNING && (flags[task]! & WORK) === 0) running++;
      used += usedCalls[task]!;
    }
    const [spent, reserved] = [account.spent[CALLS]!, account.reserved[CALLS]!];
    must(account.spent[TASKS] === n, "every task is charged once", () => `${account.spent[TASKS]} of ${n}`);
    must(reserved === running, "what runs is reserved", () => `${reserved} reserved, ${running} running`);
    must(used === spent, "the account is the sum of its tasks", () => `${spent} spent, ${used} by tasks`);
    must(this.#made <= spent + reserved, "every call that was made is charged", () => `${this.#made} made, ${spent}+${reserved} charged`);
    const limit = account.limit[CALLS]!;
    must(limit === null || spent + reserved <= limit, "no call beyond the budget", () => `${spent}+${reserved} of ${limit}`);
    must(!state.budget.isExhausted || spent === limit, "a goal rests only when nothing is left", () => `${spent} of ${limit}`);
  }

  end({ budget }: GoalState): void {
    must(
      budget.account.reserved.every((amount) => amount === 0),
      "nothing stays reserved after the end",
      () => String(budget.account.reserved),
    );
  }
}
