/**
 * What goals tell one another, on its way: orders to sub-goals, reports to the
 * goal above, and the answers to them. Nothing is repeated here: what got no
 * answer is owed by the core, which sends it again.
 */
import { assert } from "../../shared/assert.ts";
import { failure } from "../../shared/errors.ts";
import { type GoalId, subGoalIdOf, taskIdOf } from "../../shared/ids.ts";
import { FUNDS_TOLD_MAX, FUNDS_WAITING_MAX, SUBGOAL_WAIT_MS } from "../../shared/limits.ts";
import {
  type Amounts,
  available,
  availableOf,
  type Bounds,
  CALLS,
  DIMENSIONS,
  type FundRequest,
  isNothing,
  TASKS,
} from "../../shared/policy/account.ts";
import { narrow } from "../../shared/policy/rules.ts";
import { type GoalSpec, parseNestedGoal } from "../../shared/protocol/goal.ts";
import type { ParentWord, SubgoalOrder, SubgoalReport } from "../../shared/protocol/subgoal.ts";
import type { CreateSubgoalRequest, SubgoalBirth } from "../../shared/rpc-relatives.ts";
import { err, ok } from "../../shared/result.ts";
import type { Answer, GoalRpc, JsonReply } from "../../shared/rpc.ts";
import { isTerminal } from "./core/codes.ts";
import { linkOf } from "./core/subgoals.ts";
import type { Birth, RelativeCommand } from "./core/relatives.ts";
import { policiesBehind } from "./core/rights.ts";
import type { GoalState } from "./core/state.ts";
import type { Directory } from "./directory.ts";
import { entryNames, parseOffer } from "./offers.ts";
import { prepare } from "./prepare.ts";
import { type Signal, within } from "./signal.ts";
import type { GoalStore, NewOffer } from "./store.ts";
import type { Ask, Turns } from "./turns.ts";

interface Surroundings {
  readonly turns: Turns;
  readonly store: GoalStore;
  readonly directory: Directory;
  readonly signal: Signal;
  readonly goal: (goalId: string) => GoalRpc;
  /** Asks the account above, where that could help. */
  readonly prepare: (missing: Amounts, wanted: Amounts) => Promise<void>;
}

export class RelativesDesk {
  readonly #around: Surroundings;
  /** Sub-goals that asked for more than there was, by task, and what was left then. */
  readonly #waiting = new Map<number, { readonly goalId: string; readonly left: readonly number[] }>();

  /** How often the account above has said that it has more. */
  #news = 0;

  constructor(around: Surroundings) {
    this.#around = around;
  }

  get #state(): GoalState {
    return this.#around.turns.state;
  }

  // From above.

  /** Sends an order, with all that the sub-goal is made of where it may not be there yet. */
  async tellSubgoal(order: SubgoalOrder): Promise<void> {
    let command: RelativeCommand = { kind: "not-obeyed", task: order.task };
    try {
      const answer = await this.#around.goal(order.goalId).obey(order, this.#birthOf(order));
      if (answer.ok) command = { kind: "obeyed", order, report: answer.value };
      else if (answer.error.code === "not_found") command = { kind: "obeyed", order, report: null };
    } catch (error) {
      console.warn(`the sub-goal ${order.goalId} did not answer: ${String(error)}`);
    }
    await this.#around.turns.runPaced({ command });
  }

  #birthOf({ task }: SubgoalOrder): SubgoalBirth | null {
    const state = this.#state;
    if (state.kin.open.get(task)?.isMade !== false) return null;
    const goal = this.#around.store.calls.goal(state.tasks.offer[task]!, state.tasks.position[task]!);
    assert(goal !== undefined, "a sub-goal comes from a task of kind goal");
    const { spec, tasks } = parseNestedGoal(goal);
    const policies = narrow(
      [...(state.goal!.spec.policies ?? []), ...policiesBehind(state, task)],
      spec.policies ?? [],
      state.tasks.depth[task]! + 1,
    );
    return {
      spec: { ...spec, policies, parent: linkOf(state, task, spec.deadlineMs) },
      tasksJson: tasks.length === 0 ? "" : JSON.stringify(tasks),
    };
  }

  /** Where only grants from above are missing, they are asked for first, level by level. Null for one that is to stop. */
  async fund(goalId: string, task: number, request: FundRequest): Promise<Bounds | null> {
    const ask = async (): Promise<Bounds> => {
      const command: RelativeCommand = { kind: "fund-subgoal", goalId, task, request };
      const reply = await this.#around.turns.run({ command, render: ({ funds }) => JSON.stringify(funds) });
      assert(reply.ok, "whoever asks for grants is told of them");
      return JSON.parse(reply.value.json) as Bounds;
    };
    const short = (funds: Bounds): number[] => request.need.map((need, d) => Math.max(0, need - (funds[d] ?? need)));
    let funds = await ask();
    // What was granted from above may go to a sibling that asked meanwhile; while more comes, it is worth another try.
    for (let known = ""; !isNothing(short(funds)) && known !== this.#fundsAbove();) {
      known = this.#fundsAbove();
      await this.#around.prepare(short(funds), this.#wanted(request, funds));
      funds = await ask();
    }
    // That it gets no more is no verdict on its budget, and it must not fail for it.
    if (this.#state.goal !== null && isTerminal(this.#state.tasks.status[task]!)) return null;
    if (!isNothing(short(funds)) && this.#waiting.size < FUNDS_WAITING_MAX) this.#waiting.set(task, { goalId, left: this.#left() });
    return funds;
  }

  /** What the sub-goal could use, and as much for each of its siblings: they will come for it too. */
  #wanted({ want }: FundRequest, funds: Bounds): number[] {
    return want.map((total, d) => Math.max(0, total - (funds[d] ?? total)) * this.#state.kin.open.size);
  }

  /** Changes when the account above has given something, or says that it has more. */
  #fundsAbove(): string {
    return `${this.#state.budget.account.funds.join()} ${this.#news}`;
  }

  /** Where this goal's own limit rises, it may get more from above for them. */
  #left(): number[] {
    const { account } = this.#state.budget;
    return DIMENSIONS.flatMap((_, d) => [available(account, d), availableOf(account, d)]);
  }

  /** After each commit: sub-goals that came away with nothing hear when there is more. */
  committed(): void {
    if (this.#waiting.size === 0) return;
    const now = this.#left();
    this.#tellWaiting((left) => now.some((amount, d) => amount > left[d]!));
  }

  /** The account above has more: those below who want some hear of it. */
  moreFunds(): void {
    this.#news++;
    this.#tellWaiting(() => true);
  }

  #tellWaiting(isWorthIt: (left: readonly number[]) => boolean): void {
    let told = 0;
    for (const [task, { goalId, left }] of this.#waiting) {
      if (!isWorthIt(left)) continue;
      if (++told > FUNDS_TOLD_MAX) return;
      this.#waiting.delete(task);
      // One that does not hear of it asks again by itself, later.
      void this.#around
        .goal(goalId)
        .moreFunds()
        .catch(() => undefined);
    }
  }

  async hear(report: SubgoalReport): Promise<ParentWord> {
    const reply = await this.#around.turns.runPaced({ command: { kind: "hear", report }, render: ({ word }) => JSON.stringify(word) });
    assert(reply.ok, "whoever reports is heard");
    return JSON.parse(reply.value.json) as ParentWord;
  }

  /** Takes a goal as a task, and waits for it to be there. */
  async create(request: CreateSubgoalRequest): Promise<Answer<JsonReply>> {
    const { turns, signal } = this.#around;
    const reply = turns.stored(request.idempotency) ?? (await this.#submit(request));
    if (!reply.ok) return reply;
    const { task } = JSON.parse(reply.value.json) as { task: number };
    const until = Date.now() + SUBGOAL_WAIT_MS;
    while (!this.#isThere(task) && (await within(signal.changed(), until - Date.now())));
    const { id } = this.#state.goal!;
    const made = { goalId: subGoalIdOf(id, task), taskId: taskIdOf(id, task), isMade: this.#isThere(task) };
    return ok({ json: JSON.stringify(made), replayed: reply.value.replayed });
  }

  #isThere(task: number): boolean {
    const { kin, tasks } = this.#state;
    return kin.open.get(task)?.isMade ?? isTerminal(tasks.status[task]!);
  }

  async #submit({ goalJson, idempotency, bearer }: CreateSubgoalRequest): Promise<Answer<JsonReply>> {
    const body = new TextEncoder().encode(`[{"goal":${goalJson}}]`);
    const values = parseOffer(body, "array");
    if (!values.ok) return values;
    await this.#around.directory.refreshFor(this.#state, entryNames(values.value));
    const prepared = await prepare(values.value);
    const reply = await this.#around.turns.run({
      command: { kind: "submit", ...prepared, atomic: true },
      offer: { format: "array", body, specs: values.value },
      idempotency,
      bearer,
      render: ({ receipts }) => JSON.stringify({ task: receipts!.tasks[0] }),
    });
    return reply.ok ? reply : err({ ...reply.error, ...(reply.error.errors && { errors: reply.error.errors.map(belowTheGoal) }) });
  }

  // From below.

  async tellParent(report: SubgoalReport): Promise<void> {
    let command: RelativeCommand = { kind: "not-heard" };
    const { goalId } = this.#state.goal!.spec.parent!;
    try {
      command = { kind: "heard", number: report.number, word: await this.#around.goal(goalId).hear(report) };
    } catch (error) {
      console.warn(`the goal ${goalId} did not hear a report: ${String(error)}`);
    }
    await this.#around.turns.runPaced({ command });
  }

  async obey(order: SubgoalOrder, made: SubgoalBirth | null): Promise<Answer<SubgoalReport>> {
    const exists = this.#state.goal !== null;
    if (!exists && made === null) return err(failure("not_found", "there is no such sub-goal"));
    const born = exists || made === null ? undefined : await this.#birth(order, made);
    if (born === null) return err(failure("goal_ended", "the goal above wants no sub-goal any more"));
    const ask: Ask = {
      command: { kind: "obey", order, birth: born?.birth ?? null },
      ...(born && { offer: born.offer }),
      render: ({ report }) => JSON.stringify(report),
    };
    const reply = await this.#around.turns.run(ask);
    return reply.ok ? ok(JSON.parse(reply.value.json) as SubgoalReport) : reply;
  }

  /** Null where the goal above has come to its end since it sent the order. */
  async #birth(order: SubgoalOrder, { spec, tasksJson }: SubgoalBirth): Promise<{ birth: Birth; offer: Omit<NewOffer, "offer"> } | null> {
    const body = new TextEncoder().encode(tasksJson === "" ? "[]" : tasksJson);
    const values = parseOffer(body, "array");
    assert(values.ok, "the tasks of a sub-goal were read before");
    const id = order.goalId as GoalId;
    const { registry } = await this.#around.directory.opening(id, 0);
    const funds = await this.#opening(order, spec, values.value.length);
    if (funds === null) return null;
    const tasks = await prepare(values.value);
    return { birth: { id, spec, registry, funds, tasks }, offer: { format: "array", body, specs: values.value } };
  }

  /** Grants for the first tasks, and for as many calls, where the goal above is bounded. */
  async #opening({ goalId, task, funds, stop }: SubgoalOrder, { budget, parent }: GoalSpec, count: number): Promise<Bounds | null> {
    if (stop !== null || funds.every((total) => total === null)) return funds;
    const want = DIMENSIONS.map((name, d) => Math.max(d === TASKS ? count : 0, budget?.[name] ?? (d <= CALLS ? count : 0)));
    return this.#around.goal(parent!.goalId).fundSubgoal(goalId, task, { need: [count, 0, 0, 0], want });
  }
}

/** The caller sent the goal, and knows nothing of a task around it. */
const belowTheGoal = ({ pointer, detail }: { pointer: string; detail: string }) => ({
  pointer: pointer.replace(/^\/tasks\/0\/goal/, ""),
  detail,
});
