/**
 * What a backup is: a call that straggles, run a second time in a batch of its
 * own (backup tasks: Dean and Ghemawat, "MapReduce", 2004). Here is what the
 * state, the account and the permits know of it; `stragglers.ts` decides who
 * gets one. It lasts as long as its attempt, which has no other second try.
 */
import { HEDGES_MAX } from "../../../shared/limits-hedging.ts";
import { type Amounts, release, reserve, settle } from "../../../shared/policy/account.ts";
import { costOf } from "./hedges.ts";
import { countUsage, ONE_CALL } from "./reserve.ts";
import type { GoalState } from "./state.ts";

/** The call in its task's own batch, and its backup. */
export type Try = "first" | "second";

export interface Backup {
  readonly batch: number;
  readonly upstream: number;
  readonly origin: number;
  /** When the first try had begun, at the latest; and when this one was sent. */
  readonly firstAtMs: number;
  readonly startedAtMs: number;
  /** What it has reserved. */
  readonly reserve: Amounts;
  /** The try that has failed: the other one decides by itself. */
  failed: Try | null;
}

export type BackupsChange =
  | {
      readonly kind: "backup.started";
      readonly task: number;
      readonly batch: number;
      readonly origin: number;
      readonly firstAtMs: number;
      readonly atMs: number;
    }
  | { readonly kind: "backup.failed"; readonly task: number; readonly failed: Try }
  /** No executor took it. */
  | { readonly kind: "backup.dropped"; readonly task: number };

/** The task whose backup the batch is; undefined for none. */
export function taskOfBackup({ backups }: GoalState, batch: number): number | undefined {
  for (const [task, backup] of backups) if (backup.batch === batch) return task;
  return undefined;
}

export function applyBackups(state: GoalState, change: BackupsChange): void {
  switch (change.kind) {
    case "backup.started":
      return begin(state, change);
    case "backup.failed":
      state.backups.get(change.task)!.failed = change.failed;
      return;
    case "backup.dropped":
      return drop(state, change.task);
  }
}

function begin(state: GoalState, { task, batch, origin, firstAtMs, atMs }: Extract<BackupsChange, { kind: "backup.started" }>): void {
  const first = state.batches.get(state.tasks.batch[task]!)!;
  const cost = costOf(state, task, first.reserve ?? ONE_CALL);
  reserve(state.budget.account, cost);
  const backup: Backup = { batch, upstream: first.upstream, origin, firstAtMs, startedAtMs: atMs, reserve: cost, failed: null };
  state.backups.set(task, backup);
  state.nextBatch = batch + 1;
  count(state, task, backup, 1);
}

/** It is a call that may be open, and one that is wanted. */
function count(state: GoalState, task: number, { upstream, origin }: Backup, by: number): void {
  const there = state.upstreams[upstream]!;
  there.lanes += by;
  there.origins[origin]!.open += by;
  there.wanted[state.tasks.priority[task]!]! += by;
}

/** It was never made: nothing is charged, and the leave for it may be used again. */
function drop(state: GoalState, task: number): void {
  const backup = state.backups.get(task)!;
  release(state.budget.account, backup.reserve);
  const admission = state.admissions[backup.upstream];
  if (admission !== undefined) admission.hedges = Math.min(HEDGES_MAX, admission.hedges + 1);
  remove(state, task, backup);
}

/** Its attempt is over: it is charged as another call of its task, for it was made. */
export function endBackup(state: GoalState, task: number): void {
  const backup = state.backups.get(task);
  if (backup === undefined) return;
  settle(state.budget.account, backup.reserve, backup.reserve);
  countUsage(state, task, backup.reserve);
  remove(state, task, backup);
}

function remove(state: GoalState, task: number, backup: Backup): void {
  state.backups.delete(task);
  count(state, task, backup, -1);
}
