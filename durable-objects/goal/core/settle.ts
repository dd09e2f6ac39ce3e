/**
 * Takes what executors report. A result counts only for the current attempt of
 * a task that runs; whatever else comes is counted and dropped. What may be
 * repeated is decided here, and nowhere else.
 */
import { EXECUTOR_OVERLOADED_REST_MS, EXECUTOR_UNREACHABLE_REST_MS, SUSPICION_POISON, SUSPICION_RESTART } from "../../../shared/limits.ts";
import { isNothing, minus, NOTHING } from "../../../shared/policy/account.ts";
import { backoffMs, chance } from "../../../shared/policy/backoff.ts";
import { GIVEN_BACK_STATUS, isDecisive, isRefusal, isTransient, verdictOfCall } from "../../../shared/policy/outcome.ts";
import { type LineHead, OUTCOMES, parseLineHead } from "../../../shared/protocol/line.ts";
import { admissionOf, observe, retryAtMs } from "./admission.ts";
import { taskOfBackup } from "./backups.ts";
import { codeOf, FAILED, FOR_OUTCOME, IDEMPOTENT, RUN, RUNNING, WAITING } from "./codes.ts";
import { noteAnswer } from "./flight-turn.ts";
import { finish, succeed } from "./lifecycle.ts";
import type { Recorder } from "./recorder.ts";
import { settleRun } from "./runs.ts";
import { differenceOf, reservedFor } from "./reserve.ts";
import { beatenBy, tryOf } from "./stragglers.ts";
import { expireLeases } from "./tenant-locks.ts";

const isSuccess = (status: number): boolean => status >= 200 && status < 400;

/** Takes result lines. `seed` is the chance for the backoffs. */
export function settle(rec: Recorder, lines: readonly string[], seed: number): void {
  const { tasks } = rec.state;
  // What was done under a lock that is lost by now must not count.
  expireLeases(rec);
  for (const line of lines) {
    const head = parseLineHead(line);
    const { task, attempt } = head;
    if (task >= tasks.n || tasks.status[task] !== RUNNING || tasks.attempt[task] !== attempt) rec.countLate();
    else {
      if ((tasks.flags[task]! & RUN) !== 0) {
        settleRun(rec, head, line, seed);
        continue;
      }
      const decided = rec.state.backups.size === 0 ? head : weigh(rec, head);
      if (decided === null) continue;
      const reserved = reservedFor(rec.state, task);
      settleOne(rec, decided, line, seed);
      const difference = differenceOf(rec.state, head, head.outcome === "answered" && isRefusal(head.status), reserved);
      if (difference !== null) rec.correct(task, difference);
    }
  }
}

/** The line of an attempt that may have a backup: what it says of both tries, or null where the other one decides. */
function weigh(rec: Recorder, head: LineHead): LineHead | null {
  const { task, outcome, status } = head;
  const backup = rec.state.backups.get(task);
  if (backup === undefined) return head;
  const by = tryOf(head);
  // What was taken for lost may be answered after all.
  if (isDecisive(outcome, status) || (backup.failed !== null && backup.failed !== by)) return { ...head, beaten: beatenBy(by, backup) };
  if (backup.failed === by) {
    rec.countLate();
    return null;
  }
  observe(rec, head, verdictOfCall(outcome, status));
  noteRetryAfter(rec, head);
  rec.failTry(task, by);
  return null;
}

function settleOne(rec: Recorder, head: LineHead, line: string, seed: number): void {
  const { tasks } = rec.state;
  const { task, startedAtMs, endedAtMs } = head;
  const verdict = verdictOfCall(head.outcome, head.status);
  // Nobody has tried it: it waits in the queue as before.
  if (head.outcome === "not_sent" && head.status === GIVEN_BACK_STATUS) return rec.lose(task, 0);
  observe(rec, head, verdict);
  if (head.beaten !== undefined) rec.hedged(head, head.beaten);
  if (head.outcome === "answered" && isSuccess(head.status)) {
    noteAnswer(rec, task, line);
    return succeed(rec, task, rec.out.keep(line), startedAtMs, endedAtMs);
  }
  noteRetryAfter(rec, head);
  const outcome = OUTCOMES.indexOf(head.outcome);
  switch (repeatability(head, (tasks.flags[task]! & IDEMPOTENT) !== 0)) {
    case "doubtful":
      return rec.doubt(task, outcome, startedAtMs, endedAtMs);
    case "repeatable": {
      const admission = admissionOf(rec.state, tasks.upstream[task]!);
      // An upstream that is known to be down says nothing of the task.
      if (admission.lease.isOpen && verdict !== "answered") return rec.defer(task, outcome, startedAtMs, endedAtMs);
      const failures = tasks.failures[task]! + 1;
      if (failures >= tasks.maxAttempts[task]!) break;
      const waitMs = Math.max(head.retryAfterMs, backoffMs(failures, chance(seed, task, head.attempt)));
      const dueAtMs = retryAtMs(admission, rec.nowMs + Math.max(1, waitMs), rec.nowMs);
      return rec.delay(task, outcome, startedAtMs, endedAtMs, dueAtMs);
    }
    case "final":
      break;
  }
  finish(rec, { task, status: FAILED, code: failureCode(head), place: rec.out.keep(line), startedAtMs, endedAtMs });
}

function repeatability(head: LineHead, isIdempotent: boolean): "repeatable" | "doubtful" | "final" {
  switch (head.outcome) {
    case "not_sent":
      return "repeatable";
    case "timeout":
    case "broken":
      return isIdempotent ? "repeatable" : "doubtful";
    case "answered":
      return (isIdempotent ? isTransient(head.status) : isRefusal(head.status)) ? "repeatable" : "final";
    default:
      return "final";
  }
}

function failureCode(head: LineHead): number {
  if (head.outcome === "timeout") return codeOf("upstream_timeout");
  return codeOf(head.outcome === "too_large" ? "result_too_large" : "upstream_error");
}

/** `Retry-After` closes the gate for all tasks of that upstream. */
function noteRetryAfter(rec: Recorder, head: LineHead): void {
  if (head.retryAfterMs === 0) return;
  const upstream = rec.state.tasks.upstream[head.task]!;
  closeGate(rec, upstream, rec.nowMs + head.retryAfterMs);
}

/** A herd of refusals says the same thing; only a later time is news. */
function closeGate(rec: Recorder, upstream: number, untilMs: number): void {
  if (untilMs > rec.state.upstreams[upstream]!.gateUntilMs) rec.gate(upstream, untilMs);
}

/**
 * The executor of a batch is gone (of every batch, where none is named). What
 * may be repeated goes back into the queue at once, or ends as poison; of the
 * rest nobody knows, so it waits for a late report until the lease ends.
 */
export function loseBatch(rec: Recorder, batch: number | null, suspicion: number): void {
  // Most batches close with nothing left, and need no look at every task.
  if (batch !== null && !rec.state.batches.has(batch)) return loseBackup(rec, batch, suspicion);
  for (const task of runningTasks(rec, batch)) {
    const backup = batch === null ? undefined : rec.state.backups.get(task);
    if (backup === undefined || backup.failed === "second") loseTask(rec, task, suspicion);
    else if (backup.failed === null) rec.failTry(task, "first");
  }
}

/** The same of the batch of a backup. Without suspicion no executor had it. */
function loseBackup(rec: Recorder, batch: number, suspicion: number): void {
  const task = taskOfBackup(rec.state, batch);
  if (task === undefined) return;
  const { failed } = rec.state.backups.get(task)!;
  if (failed === "first") loseTask(rec, task, Math.max(suspicion, SUSPICION_RESTART));
  else if (failed === null && suspicion === 0) rec.dropBackup(task);
  else if (failed === null) rec.failTry(task, "second");
}

/** `overloaded`: it is not to be asked again at once. `unreachable`: the connection was lost, perhaps on the way back. */
export type Refusal = "overloaded" | "unreachable";

/**
 * No executor took the batch, as far as one knows. That speaks little, or not
 * at all, against its tasks, and another try at once would fare no better: the
 * upstream's calls rest first.
 */
export function refuseBatch(rec: Recorder, id: number, refusal: Refusal): void {
  const { batches, backups } = rec.state;
  const upstream = (batches.get(id) ?? backups.get(taskOfBackup(rec.state, id) ?? -1))?.upstream;
  if (upstream === undefined) return;
  const isOverload = refusal === "overloaded";
  loseBatch(rec, id, isOverload ? 0 : SUSPICION_RESTART);
  closeGate(rec, upstream, rec.nowMs + (isOverload ? EXECUTOR_OVERLOADED_REST_MS : EXECUTOR_UNREACHABLE_REST_MS));
}

/** The lease of a batch has ended without a word. */
export function expireLease(rec: Recorder, batch: number, suspicion: number): void {
  const { tasks } = rec.state;
  for (const task of runningTasks(rec, batch)) {
    // An earlier one of the batch may have taken this one with it, and had it aborted.
    if (tasks.status[task] !== RUNNING) continue;
    rec.abort(task);
    if ((tasks.flags[task]! & IDEMPOTENT) !== 0) loseTask(rec, task, suspicion);
    else rec.doubt(task, -1, 0, 0);
  }
}

/** What may be repeated goes back into its queue, or ends as poison. */
export function loseTask(rec: Recorder, task: number, suspicion: number): void {
  const { tasks } = rec.state;
  // An earlier one of the batch may have taken this one with it.
  if (tasks.status[task] !== RUNNING || (tasks.flags[task]! & IDEMPOTENT) === 0) return;
  const isPoison = tasks.suspicion[task]! + suspicion >= SUSPICION_POISON;
  const charged = reservedFor(rec.state, task);
  if (isPoison) finish(rec, { task, status: FAILED, code: codeOf("poison") });
  else rec.lose(task, suspicion);
  // Without suspicion no executor had it: nothing was sent.
  if (suspicion === 0 && !isNothing(charged)) rec.correct(task, minus(NOTHING, charged));
}

function runningTasks(rec: Recorder, batch: number | null): number[] {
  const { tasks } = rec.state;
  const found: number[] = [];
  for (let task = 0; task < tasks.n; task++) {
    if (batch === null ? tasks.batch[task] !== 0 : tasks.batch[task] === batch) found.push(task);
  }
  return found;
}

/** Whether somebody has to say what became of the task. */
export function isDoubtful(rec: Recorder, task: number): boolean {
  return rec.state.tasks.status[task] === WAITING && rec.state.tasks.reason[task] === FOR_OUTCOME;
}
