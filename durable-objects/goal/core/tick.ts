/** What time alone brings about: backoffs end, tasks and leases expire, deadlines and retention pass. */
import { IDLE_MS_DEFAULT, SUSPICION_EXECUTOR_LOST } from "../../../shared/limits.ts";
import { expireClaim } from "./claims.ts";
import { codeOf, EXPIRED, FOR_BACKOFF, isTerminal, RUNNING, STARTED, WAITING, WORK } from "./codes.ts";
import { verdictOf } from "./completion.ts";
import { deletableAtMs, hasRelatives } from "./kin.ts";
import { finish, stopGoal } from "./lifecycle.ts";
import { expireLocks } from "./lock-turn.ts";
import type { Recorder } from "./recorder.ts";
import { expireReservations } from "./reservations.ts";
import { expireLease } from "./settle.ts";
import { liveCount, ROOT } from "./state.ts";
import { expireLeases } from "./tenant-locks.ts";
import { takeDue } from "./timers.ts";

export function tick(rec: Recorder): void {
  const { state, nowMs } = rec;
  const { goal } = state;
  if (goal === null) return;
  if (goal.phase !== "active") {
    expireReservations(rec);
    rec.out.destroy = !hasRelatives(state) && state.budget.tabs.size === 0 && nowMs >= deletableAtMs(state);
    return;
  }
  if (goal.deadlineAtMs !== null && nowMs >= goal.deadlineAtMs) return expireGoal(rec);
  expireLeases(rec);
  expireLocks(rec);
  for (let task = takeDue(state.timers, nowMs); task !== null; task = takeDue(state.timers, nowMs)) fire(rec, task);
  expireReservations(rec);
  for (const [batch, { leaseUntilMs }] of state.batches) if (leaseUntilMs <= nowMs) expireLease(rec, batch, SUSPICION_EXECUTOR_LOST);
  if (liveCount(state.counts) === 0 && nowMs >= goal.touchedAtMs + IDLE_MS_DEFAULT) stopGoal(rec, "expired", "expired");
}

/** A timer may be stale: the task may have moved on since it was set. */
function fire(rec: Recorder, task: number): void {
  const { tasks } = rec.state;
  const status = tasks.status[task]!;
  if (isTerminal(status)) return;
  const expiresAtMs = tasks.expiresAtMs[task]!;
  if (expiresAtMs > 0 && expiresAtMs <= rec.nowMs && (tasks.flags[task]! & STARTED) === 0) {
    finish(rec, { task, status: EXPIRED, code: codeOf("expired") });
  } else if (status === WAITING && tasks.reason[task] === FOR_BACKOFF && tasks.dueAtMs[task]! <= rec.nowMs) {
    rec.release(task);
  } else if (status === RUNNING && (tasks.flags[task]! & WORK) !== 0) expireClaim(rec, task);
}

/** At the deadline the goal has succeeded if its rule already holds; what has not ended expires either way. */
function expireGoal(rec: Recorder): void {
  const { goal, families, counts } = rec.state;
  const rule = goal!.spec.completion;
  const isDecided = rule.minSuccessful !== undefined || liveCount(counts) === 0;
  const holds = isDecided && verdictOf(rule, families.get(ROOT)!.counts, true) === "succeeded";
  stopGoal(rec, holds ? "succeeded" : "expired", "expired");
}
