/**
 * Who is run a second time where an upstream has nothing else to do for the
 * goal: calls that may be open twice, and that their own batch cannot hedge,
 * because it was given no leave to or has used it up. A batch has nothing left
 * to begin once it has no more tasks than lanes; what runs in it then began
 * before it was last heard of, at the latest. So no task is looked at before
 * its batch has been quiet for too long.
 */
import { LEASE_GRACE_MS } from "../../../shared/limits.ts";
import { BACKUP_LAG_MS } from "../../../shared/limits-hedging.ts";
import { startable } from "../../../shared/policy/lease.ts";
import type { Beaten, LineHead } from "../../../shared/protocol/line.ts";
import { mayRunAgain } from "./approval.ts";
import type { Backup, Try } from "./backups.ts";
import { canSpare, costOf, isHedgeable, otherOrigin } from "./hedges.ts";
import type { Recorder } from "./recorder.ts";
import { ONE_CALL } from "./reserve.ts";
import { type BatchState, type GoalState, isAtEnd } from "./state.ts";

/** When something of the batch was last heard; at first, when it was sent. */
const heardAtMs = ({ leaseUntilMs, timeoutMs }: BatchState): number => leaseUntilMs - timeoutMs - LEASE_GRACE_MS;

/** When calls that are still open in the batch straggle; the end of time while it may begin or hedge more by itself. */
function dueAtMs(batch: BatchState, afterMs: number): number {
  const { left, lanes, hedges } = batch;
  const isLeftAlone = hedges === undefined || (hedges.left === 0 && hedges.isUnheard !== true);
  return left <= lanes && isLeftAlone ? heardAtMs(batch) + afterMs + BACKUP_LAG_MS : Infinity;
}

/** Runs stragglers at the upstream a second time, or has permits asked for where there is none to spare. */
export function backUp(rec: Recorder, number: number, seed: number): void {
  const { state, nowMs } = rec;
  const admission = state.admissions[number];
  if (admission === undefined) return;
  admission.stragglers = 0;
  admission.lookedAtMs = nowMs;
  const { lease, closing } = admission;
  const upstream = state.upstreams[number]!;
  if (lease.hedgeAfterMs === null || lease.isOpen || nowMs < upstream.gateUntilMs) return;
  const most = upstream.config!.maxConcurrency ?? Infinity;
  for (const task of stragglersAt(state, number, lease.hedgeAfterMs, nowMs)) {
    if (admission.hedges - admission.stragglers < 1) return;
    if (!mayRunAgain(rec, task)) continue;
    const first = state.batches.get(state.tasks.batch[task]!)!;
    const cost = costOf(state, task, first.reserve ?? ONE_CALL);
    if (!canSpare(state, cost)) return;
    if (startable(lease, upstream.lanes + closing, nowMs) < 1) {
      // More than there can be would only look as if the upstream were full.
      if (upstream.lanes + closing + admission.stragglers < most) admission.stragglers++;
      continue;
    }
    admission.hedges--;
    lease.starts--;
    const origin = otherOrigin(upstream, first.origin, lease.origins, seed ^ state.nextBatch);
    rec.backUp({ kind: "backup.started", task, batch: state.nextBatch, origin, firstAtMs: heardAtMs(first), atMs: nowMs });
  }
}

/** Tasks at the upstream whose calls straggle, and run once. */
function stragglersAt(state: GoalState, upstream: number, afterMs: number, nowMs: number): number[] {
  const { batches, tasks, backups } = state;
  const quiet = new Set<number>();
  for (const [id, batch] of batches) if (batch.upstream === upstream && dueAtMs(batch, afterMs) <= nowMs) quiet.add(id);
  const found: number[] = [];
  for (let task = 0; quiet.size > 0 && task < tasks.n; task++) {
    if (quiet.has(tasks.batch[task]!) && isHedgeable(state, task) && !backups.has(task)) found.push(task);
  }
  return found;
}

/** When the next calls will straggle; the end of time for none. What has waited since it was last looked for lacks a permit or leave, and is told of those. */
export function backUpAtMs({ admissions, upstreams, batches }: GoalState): number {
  let at = Infinity;
  admissions.forEach(({ lease: { hedgeAfterMs }, hedges, lookedAtMs }, number) => {
    if (hedgeAfterMs === null || hedges < 1 || !isAtEnd(upstreams[number]!)) return;
    for (const batch of batches.values()) {
      const due = batch.upstream === number ? dueAtMs(batch, hedgeAfterMs) : Infinity;
      if (due > lookedAtMs) at = Math.min(at, due);
    }
  });
  return at;
}

/** Whose line it is. The line of a backup is written as the one of a second try that won. */
export const tryOf = ({ beaten }: LineHead): Try => (beaten === undefined ? "first" : "second");

/** What the attempt's line says of its other try. */
export function beatenBy(by: Try, { firstAtMs, startedAtMs }: Backup): Beaten {
  const isFirst = by === "second";
  return { isFirst, startedAtMs: isFirst ? firstAtMs : startedAtMs, status: 0 };
}
