/**
 * A goal and its sub-goals in a core test: real cores, and a postman who
 * carries their messages when he is told to, and forgets or repeats them when
 * he is told to.
 */
import { SUBGOAL_REPORT_MS } from "../../shared/limits.ts";
import { type FundRequest, fundsOf } from "../../shared/policy/account.ts";
import { parseNestedGoal } from "../../shared/protocol/goal.ts";
import type { SubgoalOrder, SubgoalReport } from "../../shared/protocol/subgoal.ts";
import type { TaskSpec } from "../../shared/protocol/task.ts";
import { linkOf } from "../../durable-objects/goal/core/subgoals.ts";
import { Driver, GOAL_ID, upstream } from "./goal-harness.ts";

type Options = ConstructorParameters<typeof Driver>[0];

export class Family {
  readonly goals = new Map<string, Driver>();
  readonly root: Driver;

  constructor(options: Options = {}) {
    this.root = new Driver(options);
    this.goals.set(GOAL_ID, this.root);
  }

  /** The goal below a task; made on first sight, though nothing is in it before its first order. */
  below(parent: Driver, task: number): Driver {
    return this.at(parent.state.kin.open.get(task)!.goalId);
  }

  at(goalId: string): Driver {
    let goal = this.goals.get(goalId);
    if (goal === undefined) this.goals.set(goalId, (goal = new Driver({ isUnborn: true })));
    return goal;
  }

  /** What an order to a goal that may not exist carries. */
  birthOf(parent: Driver, { goalId, task }: SubgoalOrder) {
    const { offer, position } = parent.state.tasks;
    const { spec, tasks } = parseNestedGoal((parent.offers.get(offer[task]!)![position[task]!] as TaskSpec).goal);
    const registry = { version: 1, upstreams: [upstream()] };
    const specs = { specs: tasks as TaskSpec[], failures: new Map(), contentKeys: new Map() };
    return {
      id: goalId as typeof GOAL_ID,
      spec: { ...spec, parent: linkOf(parent.state, task, spec.deadlineMs) },
      registry,
      funds: fundsOf(parent.state.budget.account, String(task)),
      tasks: specs,
    };
  }

  /** Hands an order over; answers with the report that it was answered with. */
  deliver(parent: Driver, order: SubgoalOrder): SubgoalReport | null {
    const child = this.at(order.goalId);
    const isMade = parent.state.kin.open.get(order.task)?.isMade !== false;
    const reply = child.do({ kind: "obey", order, birth: isMade ? null : this.birthOf(parent, order) });
    return reply.ok ? reply.value.report! : null;
  }

  /** Carries everything, and lets time pass, until nobody has anything to say. */
  carry(): void {
    for (let round = 0; round < 200; round++) {
      let said = 0;
      for (const goal of this.goals.values()) {
        goal.dispatch();
        const orders = goal.orders.splice(0);
        const reports = goal.reported.splice(0);
        for (const order of orders) goal.do({ kind: "obeyed", order, report: this.deliver(goal, order) });
        for (const report of reports) {
          const reply = this.at(goal.state.goal!.spec.parent!.goalId).do({ kind: "hear", report });
          if (reply.ok) goal.do({ kind: "heard", number: report.number, word: reply.value.word! });
        }
        const { asked } = goal;
        goal.asked = undefined;
        if (asked !== undefined) this.#fund(goal, asked);
        said += orders.length + reports.length;
      }
      for (const goal of this.goals.values()) goal.passMs(SUBGOAL_REPORT_MS);
      if (said === 0 && round > 0) return;
    }
    throw new Error("they never stopped talking");
  }

  /** Asks the goal above, and that one's own account above where it lacks grants. */
  #fund(goal: Driver, request: FundRequest): void {
    const { parent } = goal.state.goal!.spec;
    if (parent === undefined) return;
    const reply = this.at(parent.goalId).do({ kind: "fund-subgoal", goalId: goal.state.goal!.id, task: parent.task, request });
    if (reply.ok) goal.do({ kind: "funded", need: request.need, funds: reply.value.funds! });
  }

  /** As `carry`, with every call answered with success. */
  finish(): void {
    for (let round = 0; round < 20; round++) {
      this.carry();
      let ran = 0;
      for (const goal of this.goals.values()) {
        const { batches } = goal.state;
        for (let task = 0; batches.size > 0 && task < goal.state.tasks.n; task++) {
          if (goal.state.tasks.batch[task] === 0) continue;
          ran++;
          goal.settle([task]);
        }
      }
      if (ran === 0) return;
    }
  }
}
