/** Watches the account of a goal in the goal's own world, where attempts meet everything that can go wrong. */
import { CALLS, TASKS } from "../../../shared/policy/account.ts";
import type { GoalState } from "../../../durable-objects/goal/core/state.ts";
import type { Call } from "../executor.ts";
import type { Turn } from "../shell.ts";
import { must } from "../violation.ts";

const RUNNING = 2;
const WORK = 32;
const RUN = 2_048;
const QUEUED = 0;

export class BudgetChecker {
  /** Calls that reached an upstream, or may have. */
  #made = 0;

  /** What callers have set aside, by reservation. */
  readonly #reservations = new Map<number, { readonly calls: number; readonly untilMs: number }>();
  /** Charged for what was set aside. */
  #settled = 0;

  /** A function made a call. */
  called(): void {
    this.#made++;
  }

  call({ effect }: Call): void {
    if (effect !== "surely none") this.#made++;
  }

  /** `toldOf`: what the calls of a run used that were charged to what was set aside for each. */
  turn({ state, executed, nowMs }: Turn, toldOf: (task: number) => number): void {
    const { account } = state.budget;
    const { status, flags, reserve, usedCalls, n } = state.tasks;
    this.#takeReservations(executed, state, nowMs);
    let running = [...this.#reservations.values()].reduce((sum, { calls }) => sum + calls, 0);
    let needs = 1;
    let used = 0;
    for (let task = 0; task < n; task++) {
      const isRun = (flags[task]! & RUN) !== 0;
      const own = reserve[task] === 0 ? 0 : state.budget.reserves[reserve[task]! - 1]![CALLS]!;
      if (status[task] === RUNNING && (flags[task]! & WORK) === 0) running += isRun ? own : 1;
      if (status[task] === QUEUED) needs = Math.max(needs, own);
      used += usedCalls[task]! - toldOf(task);
    }
    for (const { hedges } of state.batches.values()) running += hedges?.left ?? 0;
    running += state.backups.size;
    const [spent, reserved] = [account.spent[CALLS]!, account.reserved[CALLS]!];
    must(account.spent[TASKS] === n, "every task is charged once", () => `${account.spent[TASKS]} of ${n}`);
    must(reserved === running, "what runs is reserved", () => `${reserved} reserved, ${running} running`);
    must(
      used + this.#settled === spent,
      "the account is the sum of its tasks",
      () => `${spent} spent, ${used} by tasks, ${this.#settled} by others`,
    );
    must(this.#made <= spent + reserved, "every call that was made is charged", () => `${this.#made} made, ${spent}+${reserved} charged`);
    const limit = account.limit[CALLS]!;
    must(limit === null || spent + reserved <= limit, "no call beyond the budget", () => `${spent}+${reserved} of ${limit}`);
    must(!state.budget.isExhausted || spent + needs > limit, "a goal rests only when nothing is left", () => `${spent} of ${limit}`);
  }

  /** What was set aside and not settled in time is charged. */
  #takeReservations(executed: Turn["executed"], { goal }: GoalState, nowMs: number): void {
    const charge = (id: number, used: number | null): void => {
      this.#settled += used ?? this.#reservations.get(id)!.calls;
      this.#reservations.delete(id);
    };
    for (const [id, { untilMs }] of this.#reservations) if (untilMs <= nowMs) charge(id, null);
    for (const { command, reply } of executed) {
      if (!reply.ok) continue;
      if (command.kind === "reserve") {
        this.#reservations.set(reply.value.reservation!, { calls: command.amounts[CALLS]!, untilMs: nowMs + command.ttlMs });
      } else if (command.kind === "settle-reservation") charge(command.reservation, command.used === null ? 0 : command.used[CALLS]!);
    }
    if (goal!.phase !== "active") for (const id of this.#reservations.keys()) charge(id, null);
  }

  end({ budget }: GoalState): void {
    must(
      budget.account.reserved.every((amount) => amount === 0),
      "nothing stays reserved after the end",
      () => String(budget.account.reserved),
    );
  }
}
