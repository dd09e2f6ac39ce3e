/**
 * Tasks whose work is a function. No governor has a say: what a function asks
 * of upstreams is admitted call by call, so a window of the goal's own bounds
 * what is open. A run may be repeated, because its calls carry the same keys
 * again.
 */
import { RUN_BATCH_TASKS_MAX, RUN_BATCH_TASKS_MIN, RUN_STARVED_MS, RUN_STARVED_MS_MAX, RUN_WINDOW_TASKS } from "../../../shared/limits.ts";
import { type Amounts, isBounded, isNothing, minus, NOTHING } from "../../../shared/policy/account.ts";
import { backoffMs, chance } from "../../../shared/policy/backoff.ts";
import { RUN_AGAIN_STATUS } from "../../../shared/policy/outcome.ts";
import { type LineHead, OUTCOMES, type RunFailure } from "../../../shared/protocol/line.ts";
import { canStart } from "./afford.ts";
import { admitted } from "./approval.ts";
import { codeOf, FAILED } from "./codes.ts";
import { noteAnswer } from "./flight-turn.ts";
import { finish, succeed } from "./lifecycle.ts";
import type { Recorder } from "./recorder.ts";
import { reservedFor } from "./reserve.ts";
import { availableIn, hasMore, isRunQueue, noteTime, versionOf } from "./run-state.ts";
import type { GoalState, UpstreamState } from "./state.ts";

/** Batches that a full window makes, so that as many executors share the work. */
const BATCHES_OPEN = RUN_WINDOW_TASKS / RUN_BATCH_TASKS_MAX;

/** Sends one batch of a function's tasks. False where there is nothing to send, or no room. */
export function sendRuns(rec: Recorder, queue: UpstreamState, number: number, pick: Pick): boolean {
  if (queue.queued === 0 || rec.nowMs < queue.gateUntilMs || versionOf(rec.state, queue) === undefined) return false;
  const room = roomFor(rec.state, queue, number);
  if (room <= 0) return false;
  const picked = pick(rec.state, queue, Math.min(room, batchSize(queue)), RUN_BATCH_TASKS_MAX);
  if (picked.length === 0) return false;
  const tasks = admitted(rec, picked);
  // Others may be in the place of those that may not start.
  if (tasks.length === 0) return true;
  rec.start({ batch: rec.state.nextBatch, upstream: number, origin: 0, lanes: tasks.length, tasks });
  return true;
}

/** Chooses tasks from the queue's head. */
type Pick = (state: GoalState, queue: UpstreamState, most: number, lanes: number) => number[];

/** Runs that may be started. One that shows whether there is budget again goes ahead of the others. */
function roomFor(state: GoalState, queue: UpstreamState, number: number): number {
  const starved = state.runs.starved.get(number);
  if (starved === undefined) {
    const room = RUN_WINDOW_TASKS - queue.running;
    // A batch has a price of its own: what comes back bit by bit is gathered for the next one.
    return room >= batchSize(queue) ? room : 0;
  }
  return queue.running === 0 && hasMore(state.budget.account, starved) ? 1 : 0;
}

/** Guided self-scheduling, as for calls: a batch is its share of what remains. */
function batchSize({ queued }: UpstreamState): number {
  const share = Math.ceil(Math.min(queued, RUN_WINDOW_TASKS) / BATCHES_OPEN);
  return Math.min(RUN_BATCH_TASKS_MAX, Math.max(RUN_BATCH_TASKS_MIN, share));
}

/** When a function's gate opens, where that is all that its tasks wait for; the end of time for no wait. */
export function runsAtMs(state: GoalState, queue: UpstreamState, number: number): number {
  if (queue.queued === 0 || queue.gateUntilMs === 0 || !isRunQueue(queue)) return Number.MAX_SAFE_INTEGER;
  const isReady = versionOf(state, queue) !== undefined && roomFor(state, queue, number) > 0 && canStart(state, queue);
  return isReady ? queue.gateUntilMs : Number.MAX_SAFE_INTEGER;
}

/** Takes the report of a running task's current attempt. `seed` is the chance for the backoffs. */
export function settleRun(rec: Recorder, head: LineHead, line: string, seed: number): void {
  const { task } = head;
  const queue = rec.state.tasks.upstream[task]!;
  const reserved = reservedFor(rec.state, task);
  const isStarved = head.outcome === "budget_exhausted" && isBounded(rec.state.budget.account);
  endRun(rec, head, line, seed, isStarved);
  // What it had set aside is spent by now, and less of it was used.
  const difference = minus(head.drawn ?? NOTHING, reserved);
  if (!isNothing(difference)) rec.correct(task, difference);
  if (isStarved) starve(rec, queue, head.startedAtMs, minus(NOTHING, difference));
  else if (head.outcome !== "not_sent" && rec.state.runs.starved.has(queue)) rec.starve(queue, null);
}

function endRun(rec: Recorder, head: LineHead, line: string, seed: number, isStarved: boolean): void {
  const { task, startedAtMs, endedAtMs } = head;
  const { tasks } = rec.state;
  // Nobody has tried it: it waits in the queue as before.
  if (head.outcome === "not_sent") return rec.lose(task, 0);
  rec.noteUsed(task, head);
  const outcome = OUTCOMES.indexOf(head.outcome);
  if (isStarved) return rec.defer(task, outcome, startedAtMs, endedAtMs);
  noteTime(rec.state, tasks.upstream[task]!, endedAtMs - startedAtMs);
  if (head.outcome === "returned") {
    noteAnswer(rec, task, line);
    return succeed(rec, task, rec.out.keep(line), startedAtMs, endedAtMs);
  }
  const failures = tasks.failures[task]! + 1;
  if (head.status === RUN_AGAIN_STATUS && failures < tasks.maxAttempts[task]!) {
    const waitMs = Math.max(1, head.retryAfterMs, backoffMs(failures, chance(seed, task, head.attempt)));
    return rec.delay(task, outcome, startedAtMs, endedAtMs, rec.nowMs + waitMs);
  }
  finish(rec, { task, status: FAILED, code: codeOf(head.outcome as RunFailure), place: rec.out.keep(line), startedAtMs, endedAtMs });
}

/**
 * A run could not afford a call, and what it would have cost nobody knows: the
 * function rests until there is more than there was then. What was lent out comes
 * back bit by bit, so each try that comes to nothing makes the next one wait.
 * `back` is what the run had set aside itself and has not used.
 */
function starve(rec: Recorder, queue: number, startedAtMs: number, back: Amounts): void {
  const { runs, upstreams, budget } = rec.state;
  const before = runs.starved.get(queue);
  // Others of the same window come to the same end.
  const isNews = before === undefined || rec.nowMs >= upstreams[queue]!.gateUntilMs;
  const tries = isNews ? (before?.tries ?? 0) + 1 : before.tries;
  const now = availableIn(budget.account);
  const { refusal } = runs;
  // Something may have come back since.
  const isOld = refusal === null || refusal.atMs < startedAtMs;
  const then = isOld ? now : refusal.amounts.map((amount, d) => amount + Math.max(0, back[d]!));
  rec.starve(queue, { had: now.map((amount, d) => Math.min(amount, then[d]!)), tries });
  if (isNews) rec.gate(queue, rec.nowMs + Math.min(RUN_STARVED_MS_MAX, RUN_STARVED_MS * 2 ** Math.min(tries - 1, 30)));
}
