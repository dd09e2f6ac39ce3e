/** The attempts of tasks that needed more than one, and those that were tried twice. Only as many are kept as can count. */
import { ATTEMPTS_MAX } from "../../../shared/limits.ts";
import { endBackup } from "./backups.ts";
import { chargeHedge } from "./hedges.ts";
import { type AttemptRecord, BEATEN, type GoalState } from "./state.ts";

/** Keeps as many as can count against a task: overload and restarts, which do not count, may go on for hours. */
export function keepAttempt(state: GoalState, task: number, startedAtMs: number, endedAtMs: number, outcome: string): void {
  keepRecord(state, task, { startedAtMs, endedAtMs, outcome });
}

function keepRecord(state: GoalState, task: number, record: AttemptRecord): void {
  const list = state.attempts.get(task);
  if (list === undefined) {
    state.attempts.set(task, [record]);
    return;
  }
  if (list.length >= ATTEMPTS_MAX) list.shift();
  list.push(record);
}

/** The attempt was tried twice, by its batch or by a backup. Before it leaves its batch. */
export function hedgeTask(state: GoalState, task: number, wasFirstBeaten: boolean, startedAtMs: number, endedAtMs: number): void {
  const record = { startedAtMs, endedAtMs, outcome: BEATEN };
  keepRecord(state, task, wasFirstBeaten ? record : { ...record, hedge: true });
  if (state.backups.has(task)) endBackup(state, task);
  else chargeHedge(state, task);
}
