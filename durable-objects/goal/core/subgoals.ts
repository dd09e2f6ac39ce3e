/**
 * Sub-goals, from above: tasks of kind `goal` are begun, their goals made and
 * told what to do, and heard. An intent is durable before anything is sent, and
 * a message is owed until it was answered, so a crash in between leaves neither
 * an orphan nor a second one. Reports are totals under a number.
 */
import { type Failure, failure } from "../../../shared/errors.ts";
import { type GoalId, subGoalIdOf } from "../../../shared/ids.ts";
import {
  RELATIVE_ANSWER_MS,
  RELATIVE_RETRY_MS,
  RELATIVE_RETRY_MS_MAX,
  SUBGOAL_MESSAGES_MAX,
  SUBGOAL_REPORT_MS,
  SUBGOAL_REPORT_MS_PER_SIBLING,
  SUBGOAL_SILENCE_MS,
  SUBGOALS_OPENING_MAX,
} from "../../../shared/limits.ts";
import { type Bounds, type FundRequest, fundsOf, NOTHING } from "../../../shared/policy/account.ts";
import type { GoalStatus } from "../../../shared/protocol/goal.ts";
import { formatLine } from "../../../shared/protocol/line.ts";
import type { ParentLink, ParentWord, SubgoalOrder, SubgoalReport } from "../../../shared/protocol/subgoal.ts";
import { closeChildOf, fundChildOf, noteChildSpent } from "./budget.ts";
import { CANCELED, codeOf, EXPIRED, FAILED, isTerminal, NO_REASON, QUEUED, RUNNING, STARTED } from "./codes.ts";
import { ancestorsOf, isPaused, newSubgoal, orderFor, reckon, SUBGOALS } from "./kin.ts";
import { finish, succeed } from "./lifecycle.ts";
import { holderOf } from "./locks.ts";
import { dequeue, setStatus } from "./mutate.ts";
import type { Recorder } from "./recorder.ts";
import { type GoalState, liveCount, upstreamNamed } from "./state.ts";

export type SubgoalChange =
  /** Tasks run from now on, and these are the goals that do their work. Each exists, or is going to. */
  | { readonly kind: "subgoals.begun"; readonly atMs: number; readonly tasks: readonly number[]; readonly goalIds: readonly GoalId[] }
  | { readonly kind: "subgoal.heard"; readonly report: SubgoalReport }
  /** task, number of the order, 1 where it was to stop. */
  | { readonly kind: "subgoals.told"; readonly rows: number[] };

const TOLD_WIDTH = 3;

export function applySubgoals(state: GoalState, change: SubgoalChange): void {
  switch (change.kind) {
    case "subgoals.begun":
      return change.tasks.forEach((task, i) => begin(state, task, change.goalIds[i]!, change.atMs));
    case "subgoal.heard":
      return hear(state, change.report);
    case "subgoals.told":
      for (let i = 0; i < change.rows.length; i += TOLD_WIDTH) tell(state, change.rows[i]!, change.rows[i + 1]!, change.rows[i + 2] === 1);
      return;
  }
}

function begin(state: GoalState, task: number, goalId: GoalId, atMs: number): void {
  const { tasks, kin } = state;
  const queue = state.upstreams[tasks.upstream[task]!]!;
  const priority = tasks.priority[task]!;
  dequeue(state, queue.ready[priority]!, task);
  setStatus(state, task, RUNNING, NO_REASON);
  queue.wanted[priority]!--;
  tasks.attempt[task] = 1;
  tasks.flags[task] = tasks.flags[task]! | STARTED;
  tasks.startedAtMs[task] = atMs;
  kin.open.set(task, newSubgoal(goalId));
  kin.making++;
  reckon(state, task);
}

function hear(state: GoalState, { task, number, status, counts, spent, isFinal }: SubgoalReport): void {
  const { kin } = state;
  const subgoal = kin.open.get(task)!;
  counts.forEach((count, i) => (kin.counts[i] = kin.counts[i]! + count - subgoal.counts[i]!));
  if (!subgoal.isMade) kin.making--;
  kin.open.set(task, { ...subgoal, isMade: true, heard: number, status, counts, spent });
  if (isFinal) kin.open.delete(task);
  reckon(state, task);
}

function tell(state: GoalState, task: number, number: number, isStopped: boolean): void {
  const subgoal = state.kin.open.get(task)!;
  subgoal.told = Math.max(subgoal.told, number);
  subgoal.isStopped ||= isStopped;
  reckon(state, task);
}

function note(rec: Recorder, change: SubgoalChange): void {
  applySubgoals(rec.state, change);
  rec.out.changes.push(change);
}

/** Tasks at their turn become intents, a page at a time. */
export function beginSubgoals(rec: Recorder): void {
  const { state } = rec;
  const queue = state.upstreams[upstreamNamed(state, SUBGOALS)];
  if (queue === undefined || queue.queued === 0 || state.goal!.phase !== "active" || isPaused(state)) return;
  const room = SUBGOALS_OPENING_MAX - state.kin.making;
  const tasks: number[] = [];
  for (const { head, items } of queue.ready) {
    for (let at = head; at < items.length && tasks.length < room; at++) {
      if (state.tasks.status[items[at]!] === QUEUED) tasks.push(items[at]!);
    }
  }
  if (tasks.length === 0) return;
  const goalIds = tasks.map((task) => subGoalIdOf(state.goal!.id, task));
  note(rec, { kind: "subgoals.begun", atMs: rec.nowMs, tasks, goalIds });
  for (const task of tasks) fundChildOf(rec, String(task), { need: NOTHING, want: NOTHING });
}

/** Writes the messages that are due. Once a turn, also after the goal's end. */
export function writeOrders(rec: Recorder): void {
  const { state, nowMs, out } = rec;
  const { kin, mail } = state;
  mail.dueAtMs = null;
  if (kin.open.size === 0) return;
  lookForSilence(rec);
  for (const list of [kin.owed, mail.asked]) {
    for (const task of list) {
      if (mail.out >= SUBGOAL_MESSAGES_MAX) return;
      const letter = mail.letters.get(task);
      if (letter !== undefined && letter.dueAtMs > nowMs) {
        mail.dueAtMs = Math.min(mail.dueAtMs ?? letter.dueAtMs, letter.dueAtMs);
        continue;
      }
      // One that hangs counts as lost.
      if (letter?.isOut !== true) mail.out++;
      const dueAtMs = nowMs + RELATIVE_ANSWER_MS;
      mail.letters.set(task, { isOut: true, dueAtMs, failures: letter?.failures ?? 0 });
      mail.dueAtMs = Math.min(mail.dueAtMs ?? dueAtMs, dueAtMs);
      out.orders.push(orderFor(state, task));
    }
  }
}

/** A sub-goal that says nothing for long is asked how it stands: nobody else would notice that it is lost. */
function lookForSilence({ state, nowMs }: Recorder): void {
  const { kin, mail } = state;
  if (mail.lookAtMs === 0) mail.lookAtMs = nowMs + SUBGOAL_SILENCE_MS;
  if (nowMs < mail.lookAtMs) return;
  mail.lookAtMs = nowMs + SUBGOAL_SILENCE_MS;
  for (const task of kin.open.keys()) if ((mail.heardAtMs.get(task) ?? 0) < nowMs - SUBGOAL_SILENCE_MS) mail.asked.add(task);
}

/** A message was answered with a report. */
export function takeAnswer(rec: Recorder, order: SubgoalOrder, report: SubgoalReport): void {
  const { kin } = rec.state;
  letterBack(rec, order.task);
  takeReport(rec, report);
  const subgoal = kin.open.get(order.task);
  if (subgoal === undefined) return;
  const isStop = order.stop !== null;
  if (subgoal.told >= order.number && (subgoal.isStopped || !isStop)) return;
  const rows = [order.task, order.number, isStop ? 1 : 0];
  const last = rec.out.changes.at(-1);
  tell(rec.state, order.task, order.number, isStop);
  if (last?.kind === "subgoals.told") last.rows.push(...rows);
  else rec.out.changes.push({ kind: "subgoals.told", rows });
}

/** A message got no answer: it is sent again. */
export function noteNoAnswer({ state, nowMs }: Recorder, task: number): void {
  const { letters } = state.mail;
  const letter = letters.get(task);
  if (letter?.isOut !== true) return;
  const failures = letter.failures + 1;
  state.mail.out--;
  if (!state.kin.open.has(task)) return void letters.delete(task);
  const restMs = Math.min(RELATIVE_RETRY_MS_MAX, RELATIVE_RETRY_MS * 2 ** Math.min(16, failures - 1));
  letters.set(task, { isOut: false, dueAtMs: nowMs + restMs, failures });
}

function letterBack({ state, nowMs }: Recorder, task: number): void {
  const { mail, kin } = state;
  if (mail.letters.get(task)?.isOut === true) mail.out--;
  mail.letters.delete(task);
  mail.asked.delete(task);
  if (kin.open.has(task)) mail.heardAtMs.set(task, nowMs);
}

/** A sub-goal has come to its end. What is still under way to it counts until it is back. */
function forget({ state: { mail } }: Recorder, task: number): void {
  mail.heardAtMs.delete(task);
  mail.asked.delete(task);
  if (mail.letters.get(task)?.isOut === false) mail.letters.delete(task);
}

/** What a sub-goal says counts if it is newer than what it said before. */
function takeReport(rec: Recorder, report: SubgoalReport): void {
  const { state } = rec;
  const { task } = report;
  const subgoal = state.kin.open.get(task);
  if (subgoal?.goalId !== report.goalId || report.number <= subgoal.heard) return;
  const { refusal, ...rest } = report;
  note(rec, { kind: "subgoal.heard", report: rest });
  if (!report.isFinal) return noteChildSpent(rec, String(task), report.spent);
  closeChildOf(rec, String(task), report.spent);
  forget(rec, task);
  if (!isTerminal(state.tasks.status[task]!)) settleSubgoal(rec, report, refusal);
}

/** A report came by itself. The answer says how things stand from above. */
export function hearSubgoal(rec: Recorder, report: SubgoalReport): ParentWord {
  const { state, nowMs } = rec;
  takeReport(rec, report);
  const subgoal = state.kin.open.get(report.task);
  const isKnown = subgoal?.goalId === report.goalId;
  if (isKnown) state.mail.heardAtMs.set(report.task, nowMs);
  const reportMs = Math.max(SUBGOAL_REPORT_MS, SUBGOAL_REPORT_MS_PER_SIBLING * state.kin.open.size);
  return { order: isKnown ? orderFor(state, report.task) : null, reportMs };
}

/** A sub-goal asks for grants. One that is to stop gets no more. */
export function fundSubgoal(rec: Recorder, goalId: string, task: number, request: FundRequest): Bounds {
  const { kin, tasks, budget } = rec.state;
  const mayAsk = kin.open.get(task)?.goalId === goalId && !isTerminal(tasks.status[task]!);
  return mayAsk ? fundChildOf(rec, String(task), request) : fundsOf(budget.account, String(task));
}

/** There is no such sub-goal, though there was: nobody knows what became of its work. */
export function loseSubgoal(rec: Recorder, task: number): void {
  const { state } = rec;
  const subgoal = state.kin.open.get(task);
  letterBack(rec, task);
  if (subgoal === undefined) return;
  const { goalId, heard, counts } = subgoal;
  const [, , , succeeded, failed, canceled, expired] = counts as Seven;
  const over = [0, 0, 0, succeeded, failed, canceled + liveCount(counts), expired];
  const granted = state.budget.account.children.get(String(task))?.granted ?? [];
  const spent = subgoal.spent.map((amount, d) => Math.max(amount, granted[d] ?? 0));
  note(rec, { kind: "subgoal.heard", report: { goalId, task, number: heard + 1, status: "failed", counts: over, spent, isFinal: true } });
  closeChildOf(rec, String(task), spent);
  if (isTerminal(state.tasks.status[task]!)) return;
  const detail = `the sub-goal ${goalId} does not exist any more; nobody knows how it ended`;
  finish(rec, { task, status: FAILED, code: codeOf("outcome_unknown"), place: problemLine(rec, task, failure("outcome_unknown", detail)) });
}

type Seven = [number, number, number, number, number, number, number];

/** How a task ends whose sub-goal did. */
const ENDS: Readonly<
  Record<Exclude<GoalStatus, "active" | "paused" | "succeeded">, readonly [number, "children_failed" | "canceled" | "expired"]>
> = {
  failed: [FAILED, "children_failed"],
  canceled: [CANCELED, "canceled"],
  expired: [EXPIRED, "expired"],
};

function settleSubgoal(rec: Recorder, report: SubgoalReport, refusal: Failure | undefined): void {
  const { task, goalId, status } = report;
  if (status === "active" || status === "paused") return;
  if (status === "succeeded") return succeed(rec, task, rec.out.keep(resultLine(rec, report)), 0, 0);
  const [end, code] = ENDS[status];
  if (end !== FAILED) return finish(rec, { task, status: end, code: codeOf(code) });
  const because = refusal === undefined ? "" : `: ${refusal.errors?.[0]?.detail ?? refusal.detail}`;
  const known = refusal?.code === "budget_exhausted" || refusal?.code === "denied" ? refusal.code : code;
  const problem = failure(known, `the sub-goal ${goalId} failed${because}`);
  finish(rec, { task, status: FAILED, code: codeOf(known), place: problemLine(rec, task, problem) });
}

function lineOf({ state, nowMs }: Recorder, task: number, status: number, tokens: number, payload: unknown): string {
  const startedAtMs = state.tasks.startedAtMs[task]!;
  const head = { task, attempt: 1, outcome: "answered", status, retryAfterMs: 0, startedAtMs, endedAtMs: nowMs, tokens } as const;
  return formatLine(head, JSON.stringify(payload));
}

function resultLine(rec: Recorder, { task, goalId, status, counts, spent }: SubgoalReport): string {
  const [queued, waiting, running, succeeded, failed, canceled, expired] = counts as Seven;
  const total = counts.reduce((sum, count) => sum + count, 0);
  const [tasks, calls, tokens, costMicros] = spent as [number, number, number, number];
  const named = { queued, waiting, running, succeeded, failed, canceled, expired, total };
  const body = { goalId, status, counts: named, usage: { tasks, calls, tokens, costMicros } };
  return lineOf(rec, task, 200, tokens, { status: 200, body });
}

function problemLine(rec: Recorder, task: number, { code, detail }: Failure) {
  return rec.out.keep(lineOf(rec, task, 0, 0, { code, detail }));
}

/** Where the sub-goal of a task hangs. `deadlineMs` is its own, from the moment that it was opened. */
export function linkOf(state: GoalState, task: number, deadlineMs: number | null): ParentLink {
  const { goal, tasks } = state;
  const { id, spec, deadlineAtMs } = goal!;
  const own = deadlineMs === null ? Number.POSITIVE_INFINITY : tasks.startedAtMs[task]! + deadlineMs;
  const atMs = Math.min(own, deadlineAtMs ?? Number.POSITIVE_INFINITY);
  return {
    goalId: id,
    task,
    ancestors: [...ancestorsOf(state), id],
    path: holderOf(state, task),
    depth: (spec.parent?.depth ?? 0) + tasks.depth[task]! + 1,
    deadlineAtMs: Number.isFinite(atMs) ? atMs : null,
  };
}
