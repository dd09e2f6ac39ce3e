/** The contract between a goal and its sub-goals. Every call may be made again: it says how things stand, under a number. */
import type { Bounds, FundRequest } from "./policy/account.ts";
import type { GoalSpec } from "./protocol/goal.ts";
import type { ParentWord, SubgoalOrder, SubgoalReport } from "./protocol/subgoal.ts";
import type { Answer, IdempotencyKey, JsonReply } from "./rpc.ts";
import type { Bearer } from "./token/claims.ts";

export interface CreateSubgoalRequest {
  /** The goal as its caller described it. */
  readonly goalJson: string;
  readonly idempotency?: IdempotencyKey | undefined;
  readonly bearer?: Bearer | undefined;
}

/** What a sub-goal is made of. */
export interface SubgoalBirth {
  readonly spec: GoalSpec;
  /** As in `CreateGoalRequest`. */
  readonly tasksJson: string;
}

export interface RelativeRpc {
  /** From a caller: makes a sub-goal. The answer is `{goalId, taskId, isMade}`, once it is there or after `SUBGOAL_WAIT_MS`. */
  createSubgoal(request: CreateSubgoalRequest): Promise<Answer<JsonReply>>;
  /** From the goal above: makes the sub-goal where it is not there yet, and tells it what to do. */
  obey(order: SubgoalOrder, birth: SubgoalBirth | null): Promise<Answer<SubgoalReport>>;
  /** From a sub-goal that needs more of the budget: the new totals of its grants, once they are durable. The same as before mean that there is no more. Null for one that is to stop. */
  fundSubgoal(goalId: string, task: number, request: FundRequest): Promise<Bounds | null>;
  /** From a sub-goal: how it stands. */
  hear(report: SubgoalReport): Promise<ParentWord>;
}
