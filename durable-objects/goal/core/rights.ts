/**
 * Who may do what in the goal: the epoch of its tokens, the policies that have
 * a say, and which tasks must be checked again before they start. What a task's
 * request was allowed is decided when it is taken; only the tenant's policy can
 * change afterwards, so a task is looked at again where that has.
 */
import { type Failure, failure } from "../../../shared/errors.ts";
import { type Policy, type Rules, rulesOf, type Verdict } from "../../../shared/policy/rules.ts";
import type { TaskSpec } from "../../../shared/protocol/task.ts";
import type { Bearer } from "../../../shared/token/claims.ts";
import { APPROVED, FOR_APPROVAL, NEEDS_APPROVAL, WAITING } from "./codes.ts";
import { releaseTask, setStatus } from "./mutate.ts";
import type { GoalState } from "./state.ts";

/** Tasks from the first number up to the second, and the policies that they came under. */
export type Brought = readonly [first: number, end: number, policies: readonly Policy[]];

export interface Rights {
  /** Rises when the tokens of this goal are revoked. */
  epoch: number;
  tenantPolicy: Policy | null;
  /** Tasks of offers below this were taken under another policy of the tenant. */
  recheckBelow: number;
  /** What the tokens that brought tasks were restricted to, in the order of the tasks. Most have brought none. */
  brought: Brought[];
  /** The standing policies as one check; undefined until it is needed. Follows from the others. */
  rules: Rules | null | undefined;
}

export interface RightsImage {
  readonly epoch: number;
  readonly tenantPolicy: Policy | null;
  readonly recheckBelow: number;
  readonly brought: readonly Brought[];
}

export type RightsChange =
  | { readonly kind: "tokens.revoked"; readonly epoch: number }
  | { readonly kind: "task.approved"; readonly task: number; readonly atMs: number }
  /** Tasks that were queued, and that wait for approval now. */
  | { readonly kind: "tasks.parked"; readonly tasks: number[] };

export function rightsImage({ epoch, tenantPolicy, recheckBelow, brought }: Rights): RightsImage {
  return { epoch, tenantPolicy, recheckBelow, brought };
}

export function rightsFrom(image: RightsImage): Rights {
  return { ...image, brought: [...image.brought], rules: undefined };
}

export function applyRights(state: GoalState, change: RightsChange): void {
  switch (change.kind) {
    case "tokens.revoked":
      state.rights.epoch = change.epoch;
      return;
    case "task.approved":
      return approveTask(state, change.task, change.atMs);
    case "tasks.parked":
      for (const task of change.tasks) parkTask(state, task);
      return;
  }
}

export function approveTask(state: GoalState, task: number, atMs: number): void {
  const { flags, status, reason } = state.tasks;
  flags[task] = flags[task]! | APPROVED;
  if (status[task] === WAITING && reason[task] === FOR_APPROVAL) releaseTask(state, task, atMs);
}

/** Takes a queued task out of its queue, so that it can come back as its last. */
export function parkTask(state: GoalState, task: number): void {
  const { tasks, upstreams } = state;
  const queue = upstreams[tasks.upstream[task]!]!.ready[tasks.priority[task]!]!;
  queue.items.splice(queue.items.indexOf(task, queue.head), 1);
  tasks.flags[task] = tasks.flags[task]! | NEEDS_APPROVAL;
  setStatus(state, task, WAITING, FOR_APPROVAL);
}

/** Takes over the tenant's policy. What was taken under another one is checked again when its turn comes. */
export function setTenantPolicy(state: GoalState, policy: Policy | null): void {
  const { rights } = state;
  if (JSON.stringify(policy) === JSON.stringify(rights.tenantPolicy)) return;
  rights.tenantPolicy = policy;
  rights.recheckBelow = policy === null ? 0 : state.nextOffer;
  rights.rules = undefined;
}

/** The check of what the tenant, the goal and a token allow together; null where none of them restricts anything. */
export function rulesFor(state: GoalState, goalPolicies: readonly Policy[], bearer: readonly Policy[]): Rules | null {
  const { rights } = state;
  const standing = [
    { from: "the tenant's policy", policies: rights.tenantPolicy === null ? [] : [rights.tenantPolicy] },
    { from: "the goal's policy", policies: goalPolicies },
  ];
  if (bearer.length > 0) return rulesOf([...standing, { from: "the token", policies: bearer }]);
  if (state.goal === null) return rulesOf(standing);
  if (rights.rules === undefined) rights.rules = rulesOf(standing);
  return rights.rules;
}

/** What the goal's own policies and its tenant's allow. */
export function standingRules(state: GoalState): Rules | null {
  return rulesFor(state, state.goal!.spec.policies ?? [], []);
}

export function verdictOn(rules: Rules, { call, run, work }: Pick<TaskSpec, "call" | "run" | "work">): Verdict {
  if (run !== undefined) return rules.run(run.function);
  if (call !== undefined) return rules.call(call.upstream, call.method ?? "GET", call.path);
  return work === undefined ? "allowed" : rules.work(work.queue);
}

/** Notes what a token's tasks came under. */
export function noteBrought({ rights }: GoalState, first: number, end: number, policies: readonly Policy[]): void {
  const last = rights.brought.at(-1);
  const goesOn = last?.[1] === first && JSON.stringify(last[2]) === JSON.stringify(policies);
  if (goesOn) rights.brought[rights.brought.length - 1] = [last[0], end, last[2]];
  else rights.brought.push([first, end, policies]);
}

/** The policies of the token that brought the task: what is done on the task's behalf is held to them. */
export function policiesBehind({ rights, tasks }: GoalState, task: number): readonly Policy[] {
  let original = task;
  while (tasks.retryOf[original]! >= 0) original = tasks.retryOf[original]!;
  let [low, high] = [0, rights.brought.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (rights.brought[middle]![1] <= original) low = middle + 1;
    else high = middle;
  }
  const found = rights.brought[low];
  return found !== undefined && found[0] <= original ? found[2] : [];
}

/** Why the bearer's token is worth nothing any more; null where it is. */
export function revocation({ goal, rights }: GoalState, { epoch }: Bearer): Failure | null {
  if (epoch === undefined || goal === null || epoch === rights.epoch) return null;
  const detail = `the tokens of this goal were revoked: it is at epoch ${rights.epoch}, and the token is of epoch ${epoch} (caveat "goal")`;
  return failure("unauthorized", detail, { goalId: goal.id });
}

export function permissionDenied(detail: string, pointer: string): Failure {
  return failure("permission_denied", detail, { errors: [{ pointer, detail }] });
}
