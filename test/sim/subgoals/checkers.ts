/** What must hold in a world of goals inside goals. They recount from the outside, and call nothing of the core but the comparison. */
import { toSnapshot } from "../../../durable-objects/goal/core/snapshot.ts";
import type { GoalState } from "../../../durable-objects/goal/core/state.ts";
import type { Disk } from "../storage.ts";
import { Violation } from "../violation.ts";

const ENDED = [3, 4, 5, 6];

function check(holds: boolean, what: string): void {
  if (!holds) throw new Violation(what);
}

function durable(state: GoalState): string {
  const { meta, columns } = toSnapshot(state);
  return JSON.stringify([meta, Object.values(columns).map((column) => [...column])]);
}

const endedIn = (counts: readonly number[]): number => ENDED.reduce((sum, status) => sum + counts[status]!, 0);

export class SubgoalCheckers {
  readonly #rootId: string;
  /** Sub-goals by id: whose work they are. */
  readonly #intents = new Map<string, string>();
  /** How each goal has ended, and when it was created. */
  readonly #ends = new Map<string, string>();
  readonly #born = new Map<string, number>();
  /** Ended tasks that each goal knew of below. */
  readonly #known = new Map<string, number>();
  #stoppedAtMs = Number.POSITIVE_INFINITY;

  constructor(rootId: string) {
    this.#rootId = rootId;
  }

  /** After each turn, committed or about to fail. */
  turn(id: string, state: GoalState, nowMs: number): void {
    const { goal, kin, tasks } = state;
    const born = this.#born.get(id);
    check(born === undefined || born === goal!.createdAtMs, "a goal is made once");
    this.#born.set(id, goal!.createdAtMs);
    check(id === this.#rootId || this.#intents.has(id), "no goal is made without an intent that is durable");
    for (const [task, { goalId }] of kin.open) {
      const whose = `${id}/${task}`;
      check((this.#intents.get(goalId) ?? whose) === whose, "each intent has a goal of its own");
      this.#intents.set(goalId, whose);
    }
    const before = this.#ends.get(id);
    check(before === undefined || before === goal!.phase, "a goal ends once");
    if (goal!.phase !== "active") this.#ends.set(id, goal!.phase);
    const known = endedIn(kin.counts);
    check(known >= (this.#known.get(id) ?? 0), "what has ended below stays ended in the counts above");
    this.#known.set(id, known);
    const owed = [...kin.open].filter(([task, subgoal]) => {
      const hasEnded = tasks.status[task]! >= 3;
      return !subgoal.isMade || (hasEnded ? !subgoal.isStopped : subgoal.told !== kin.orders);
    });
    check(owed.length === kin.owed.size && owed.every(([task]) => kin.owed.has(task)), "whatever a sub-goal has not heard is owed to it");
    const isStopped = id === this.#rootId && goal!.phase !== "active" && kin.open.size === 0;
    if (isStopped) this.#stoppedAtMs = Math.min(this.#stoppedAtMs, nowMs);
  }

  call(id: string, atMs: number): void {
    check(!this.#ends.has(id), "nothing starts in a goal that has ended");
    check(atMs <= this.#stoppedAtMs, "nothing starts anywhere once the root has heard that all has stopped");
  }

  /** Some time after the accounts above were given plenty. */
  funded(id: string, { goal, budget }: GoalState): void {
    const { limit, spent, reserved, held } = budget.account;
    const hasRoom = limit[1] === null || limit[1]! > spent[1]! + reserved[1]! + held[1]!;
    check(goal?.phase !== "active" || !budget.isExhausted || !hasRoom, `nobody rests for want of what the goals above have: ${id} does`);
  }

  compare(state: GoalState, disk: Disk): void {
    check(durable(disk.load()) === durable(state), "state rebuilt from disk equals memory");
  }

  /** When all is over. */
  end(goals: ReadonlyMap<string, GoalState>): void {
    for (const [id, state] of goals) {
      check(state.goal !== null, `every goal that was spoken to is there: ${id}`);
      check(state.goal!.phase !== "active", `every goal comes to an end: ${id} did not`);
      check(state.kin.open.size === 0, `every goal hears of the ends below: ${id} did not`);
      const { reserved, held } = state.budget.account;
      check(
        [...reserved, ...held].every((amount) => amount === 0),
        "nothing stays reserved or granted after the end",
      );
    }
    for (const goalId of this.#intents.keys()) check(goals.has(goalId), `each intent becomes a goal: ${goalId} did not`);
    for (const [id, state] of goals) this.#sums(id, state, goals);
  }

  /** What a goal knows of all below it is the sum of what they are. */
  #sums(id: string, state: GoalState, goals: ReadonlyMap<string, GoalState>): void {
    const below = [...goals].filter(([, { goal }]) => goal!.spec.parent?.ancestors.includes(id) === true).map(([, each]) => each);
    const counts = state.kin.counts.map((_, status) => below.reduce((sum, each) => sum + each.counts[status]!, 0));
    check(
      String(counts) === String(state.kin.counts),
      `counts above are the sums of those below: ${String(state.kin.counts)}, not ${String(counts)}`,
    );
    const children = below.filter(({ goal }) => goal!.spec.parent!.goalId === id);
    const own = state.counts.reduce((sum, count) => sum + count, 0);
    const tasks = children.reduce((sum, { budget }) => sum + budget.account.spent[0]!, own);
    check(tasks === state.budget.account.spent[0], "what was spent above is the sum of what was spent below");
  }
}
