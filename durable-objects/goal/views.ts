/** How the goal and its tasks look on the wire. Results are put in as the text they are kept as. */
import type { TaskErrorCode } from "../../shared/errors.ts";
import { failure, problemOf } from "../../shared/errors.ts";
import { type GoalId, subGoalIdOf, taskIdOf } from "../../shared/ids.ts";
import { quantilesOf } from "../../shared/policy/histogram.ts";
import { available, DIMENSIONS, named, reservedInAll, spentInAll } from "../../shared/policy/account.ts";
import type { BudgetView } from "../../shared/protocol/budget.ts";
import type { Counts, GoalView } from "../../shared/protocol/goal.ts";
import { TASK_STATUSES } from "../../shared/protocol/goal.ts";
import { payloadOf } from "../../shared/protocol/line.ts";
import type { GoalReport } from "../../shared/rpc.ts";
import {
  codeOf,
  CODES,
  FAILED,
  isTerminal,
  QUEUED,
  REASON_WORDS,
  RUN,
  RUNNING,
  SUBGOAL,
  STATUS_WORDS,
  SUCCEEDED,
  WORK,
  WORK_DONE,
} from "./core/codes.ts";
import { outlookOf } from "./core/estimate.ts";
import { countsInAll, statusOf } from "./core/kin.ts";
import { BEATEN, type GoalState, ROOT, totalCount } from "./core/state.ts";
import type { Receipts } from "./core/submit.ts";

const timestamp = (ms: number): string => new Date(ms).toISOString();

export function countsOf(counts: readonly number[]): Counts {
  const byStatus = Object.fromEntries(TASK_STATUSES.map((status, i) => [status, counts[i]!]));
  return { ...(byStatus as Omit<Counts, "total">), total: totalCount(counts) };
}

export function goalView(state: GoalState, rowsWritten: number, nowMs: number): GoalView {
  const goal = state.goal!;
  const { position, startMs } = outlookOf(state, nowMs);
  return {
    id: goal.id,
    ...parentOf(state),
    name: goal.spec.name,
    labels: goal.spec.labels,
    status: statusOf(state),
    createdAt: timestamp(goal.createdAtMs),
    ...(goal.endedAtMs === null ? {} : { endedAt: timestamp(goal.endedAtMs) }),
    deadlineAt: goal.deadlineAtMs === null ? null : timestamp(goal.deadlineAtMs),
    sealed: goal.sealed,
    epoch: state.rights.epoch,
    policies: goal.spec.policies ?? [],
    counts: countsOf(countsInAll(state)),
    joined: state.joined,
    position,
    estimatedStartMs: startMs,
    budget: budgetOf(state),
    latency: quantilesOf(state.latencies),
    storage: { rowsWritten },
    ...(state.kin.refusal === null ? {} : { problem: problemOf({ ...state.kin.refusal, goalId: goal.id }) }),
  };
}

function budgetOf({ budget: { account, isExhausted } }: GoalState): GoalView["budget"] {
  const amounts = { limit: named(account.limit), reserved: named(reservedInAll(account)), spent: named(spentInAll(account)) };
  return isExhausted ? { ...amounts, exhausted: true } : amounts;
}

/** The account on the wire. `funds`: what the account above has granted, where it is what bounds this one. */
export function budgetView(state: GoalState): BudgetView {
  const { account, isExhausted } = state.budget;
  const left = DIMENSIONS.map((_, d) => {
    const amount = available(account, d);
    return amount === Number.MAX_SAFE_INTEGER ? null : Math.max(0, amount);
  });
  return { ...budgetOf(state), funds: named(account.funds), available: named(left), exhausted: isExhausted };
}

function parentOf({ goal }: GoalState): { parentGoalId?: string; parentTaskId?: string } {
  const { parent } = goal!.spec;
  return parent === undefined ? {} : { parentGoalId: parent.goalId, parentTaskId: taskIdOf(parent.goalId as GoalId, parent.task) };
}

export function goalReport(state: GoalState): GoalReport {
  const goal = state.goal!;
  return {
    goalId: goal.id,
    name: goal.spec.name,
    labels: goal.spec.labels,
    status: statusOf(state),
    createdAtMs: goal.createdAtMs,
    deadlineAtMs: goal.deadlineAtMs,
    endedAtMs: goal.endedAtMs,
    sealed: goal.sealed,
    counts: countsOf(countsInAll(state)),
    // What a sub-goal spends is for the goal above to account for.
    ...(goal.spec.parent === undefined && { spent: spentInAll(state.budget.account) }),
    // What children have spent is theirs to say until they are closed, and what gates hold may not be spent at all.
    isFinal: goal.endedAtMs !== null && state.budget.account.children.size === 0 && state.budget.tabs.size === 0,
  };
}

interface AttemptView {
  readonly startedAt: string;
  readonly endedAt?: string;
  readonly outcome: string;
  readonly hedge?: true;
}

function attemptsOf(state: GoalState, task: number): AttemptView[] {
  const { tasks } = state;
  const status = tasks.status[task]!;
  const attempts: AttemptView[] = (state.attempts.get(task) ?? []).map(({ startedAtMs, endedAtMs, outcome, hedge }) => ({
    startedAt: timestamp(startedAtMs),
    ...(endedAtMs === 0 ? {} : { endedAt: timestamp(endedAtMs) }),
    outcome,
    ...(hedge === true && { hedge }),
  }));
  const startedAt = timestamp(tasks.startedAtMs[task]!);
  if (status === RUNNING) attempts.push({ startedAt, outcome: "running" });
  const backup = state.backups.get(task);
  if (backup !== undefined) attempts.push({ startedAt: timestamp(backup.startedAtMs), outcome: "running", hedge: true });
  // The attempt that ended the task is in its own columns, unless the task lived on for its children.
  const isKept = tasks.resultRow[task]! > 0 && (tasks.flags[task]! & WORK_DONE) === 0;
  // What a claimer reported before it was lost is of an earlier attempt. What says why a task was denied, or was the answer to an equal one, is of none.
  const wordOfSuccess = (tasks.flags[task]! & RUN) === 0 ? "answered" : "returned";
  const isOfAnother = tasks.code[task] === codeOf("poison") || tasks.code[task] === codeOf("denied") || tasks.startedAtMs[task] === 0;
  if (isKept && (status === SUCCEEDED || status === FAILED) && !isOfAnother) {
    const last = attempts.at(-1);
    // Where its first try was beaten, it was the second that counted.
    const hedge = last?.outcome === BEATEN && last.hedge === undefined;
    const outcome = status === SUCCEEDED ? wordOfSuccess : "failed";
    attempts.push({ startedAt, endedAt: timestamp(tasks.endedAtMs[task]!), outcome, ...(hedge && { hedge }) });
  }
  return attempts;
}

/** The task as JSON. `line` is its result line, where it has one. */
export function taskJson(state: GoalState, task: number, line: string | null): string {
  const { tasks } = state;
  const goalId = state.goal!.id;
  const status = tasks.status[task]!;
  // What a sub-goal does are no attempts of the task.
  const attempts = (tasks.flags[task]! & SUBGOAL) === 0 ? attemptsOf(state, task) : [];
  const optionalId = (other: number): string | undefined => (other >= 0 ? taskIdOf(goalId, other) : undefined);
  const optionalTime = (ms: number): string | undefined => (ms > 0 ? timestamp(ms) : undefined);
  const family = state.families.get(task);
  const succeeded = status === SUCCEEDED || (tasks.flags[task]! & WORK_DONE) !== 0;
  const head = JSON.stringify({
    id: taskIdOf(goalId, task),
    goalId,
    parentTaskId: tasks.parent[task] === ROOT ? undefined : taskIdOf(goalId, tasks.parent[task]!),
    key: state.names[task],
    retryOf: optionalId(tasks.retryOf[task]!),
    status: STATUS_WORDS[status],
    reason: reasonOf(state, task),
    attempt: tasks.attempt[task],
    attempts,
    usage: { calls: tasks.usedCalls[task], tokens: tasks.usedTokens[task], costMicros: tasks.usedMicros[task] },
    queuedAt: timestamp(tasks.queuedAtMs[task]!),
    startedAt: optionalTime(tasks.startedAtMs[task]!),
    endedAt: isTerminal(status) ? optionalTime(tasks.endedAtMs[task]!) : undefined,
    subgoal: subgoalOf(state, task),
    children: family === undefined ? undefined : { counts: countsOf(family.counts) },
    problem: problemFor(state, task, line),
  });
  if (!succeeded || line === null) return head;
  return `${head.slice(0, -1)},"result":${payloadOf(line)}}`;
}

/** The goal that does the task's work, from when it was begun on; how it stands, while it is there and lives. */
function subgoalOf({ goal, kin, tasks }: GoalState, task: number): object | undefined {
  if ((tasks.flags[task]! & SUBGOAL) === 0 || tasks.attempt[task] === 0) return undefined;
  const open = kin.open.get(task);
  if (open?.isMade !== true) return { goalId: subGoalIdOf(goal!.id, task) };
  return { goalId: open.goalId, status: open.status, counts: countsOf(open.counts) };
}

function reasonOf({ tasks, budget }: GoalState, task: number): string | undefined {
  if (budget.isExhausted && tasks.status[task] === QUEUED) return "budget";
  const isUnclaimed = tasks.status[task] === QUEUED && (tasks.flags[task]! & WORK) !== 0;
  return isUnclaimed ? "claim" : REASON_WORDS[tasks.reason[task]!] || undefined;
}

function problemFor(state: GoalState, task: number, line: string | null): unknown {
  const { tasks } = state;
  const code = CODES[tasks.code[task]!] as TaskErrorCode | "";
  if (code === "") return undefined;
  const taskId = taskIdOf(state.goal!.id, task);
  if (line !== null && tasks.status[task] === FAILED && (tasks.flags[task]! & WORK_DONE) === 0) {
    const reported = JSON.parse(payloadOf(line)) as { detail?: string; stack?: string };
    if ((tasks.flags[task]! & RUN) !== 0)
      return { ...problemOf(failure(code, reported.detail ?? DETAILS[code], { taskId })), stack: reported.stack };
    if ((tasks.flags[task]! & WORK) !== 0) {
      const detail = code === "poison" ? `${DETAILS.poison}; before that, its claimer reported: ${reported.detail}` : reported.detail;
      return { ...problemOf(failure(code, detail ?? DETAILS[code], { taskId })), reported };
    }
    return problemOf(failure(code, reported.detail ?? DETAILS[code], { taskId }));
  }
  return problemOf(failure(code, DETAILS[code], { taskId }));
}

const DETAILS: Readonly<Record<TaskErrorCode, string>> = {
  upstream_error: "the upstream answered with an error",
  upstream_timeout: "the upstream did not answer within timeoutMs",
  result_too_large: "the upstream's answer is larger than Drover keeps",
  function_error: "the function failed",
  function_limit: "the function went beyond a limit",
  dependency_failed: "a task that this one comes after did not succeed",
  children_failed: "the children's completion rule was not met",
  parent_failed: "the task's parent ended first",
  outcome_unknown: "the call may have had its effect; it was decided to count as failed",
  poison: "the executor was lost each time that it ran this task",
  expired: "the task was not done by its deadline",
  canceled: "the task was canceled",
  budget_exhausted: "the goal's budget is exhausted",
  lock_conflict: "a lock is in use with other permits, or is held as shared by a task above this one",
  lock_lost: "a lock that the task held was not renewed in time",
  denied: "the policy, or whoever was asked, denied the task",
};

/** The answer to a submission: `{accepted, joined, rejected, position, estimatedStartMs, receipts?}`. */
export function receiptsJson(state: GoalState, receipts: Receipts, all: boolean): string {
  const { accepted, joined, rejected, position, estimatedStartMs, estimator } = receipts;
  const goalId = state.goal!.id;
  const head = { goalId, accepted, joined, rejected: rejected.size, position, estimatedStartMs };
  if (!all && rejected.size === 0) return JSON.stringify(head);
  const list: unknown[] = [];
  receipts.tasks.forEach((task, index) => {
    const fault = rejected.get(index);
    if (fault !== undefined) list.push({ index, status: "rejected", problem: problemOf({ ...fault, goalId }) });
    else if (all) {
      const taskId = taskIdOf(goalId, task);
      const isQueued = receipts.joins[index] === 0 && state.tasks.status[task] === QUEUED;
      const start = isQueued ? estimator.next(state.tasks.upstream[task]!) : null;
      const estimate = start === null ? {} : { position: start.position, estimatedStartMs: start.startMs };
      list.push({ index, taskId, status: receipts.joins[index] === 1 ? "joined" : STATUS_WORDS[QUEUED], ...estimate });
    }
  });
  return JSON.stringify({ ...head, receipts: list });
}
