/**
 * When the goal must wake next, as one number: a Durable Object has one alarm.
 *
 *   active   deadline, or end of idleness if nothing lives
 *            first end of a backoff or of a time to live
 *            first end of a lease, of a reservation
 *            when the account above is asked again
 *            first end of a lease, of a batch or a lock; when locks of the tenant are to be renewed
 *            for each upstream with work and permits, and each function with work: when its gate opens
 *            when calls will straggle that may be run again
 *            the next message to a sub-goal, or to the goal above
 *   ended    the same messages; then the end of the retention
 */
import { IDLE_MS_DEFAULT } from "../../../shared/limits.ts";
import { canStart } from "./afford.ts";
import { hasRoom } from "./dispatch.ts";
import { flightsAtMs } from "./flight-turn.ts";
import { reservationDueMs } from "./reservations.ts";
import { deletableAtMs, hasRelatives, isPaused, nextMessageMs, owesReport } from "./kin.ts";
import { isRunQueue, versionOf } from "./run-state.ts";
import { runsAtMs } from "./runs.ts";
import { type GoalState, isUpstream, liveCount, type UpstreamState } from "./state.ts";
import { backUpAtMs } from "./stragglers.ts";
import { tenantLocksAt } from "./tenant-locks.ts";
import { nextTimeMs } from "./timers.ts";

/** Milliseconds since the epoch; null for a goal that does not exist. */
export function wakeAt(state: GoalState): number | null {
  const { goal } = state;
  if (goal === null) return null;
  const messageAtMs = nextMessageMs(state);
  // What is not told yet keeps the goal from being deleted, and the answers to it wake the goal.
  if (goal.phase !== "active") {
    const at = hasRelatives(state) ? messageAtMs : deletableAtMs(state);
    // A gate that is gone gives back nothing of its tab, and until then the goal's costs are not final.
    const heldUntilMs = reservationDueMs(state);
    if (heldUntilMs === null) return at;
    return messageAtMs === null ? heldUntilMs : Math.min(messageAtMs, heldUntilMs);
  }
  let at = goal.deadlineAtMs ?? Number.MAX_SAFE_INTEGER;
  if (liveCount(state.counts) === 0) at = Math.min(at, goal.touchedAtMs + IDLE_MS_DEFAULT);
  at = Math.min(at, nextTimeMs(state.timers) ?? Number.MAX_SAFE_INTEGER);
  for (const { leaseUntilMs } of state.batches.values()) at = Math.min(at, leaseUntilMs);
  at = Math.min(at, reservationDueMs(state) ?? Number.MAX_SAFE_INTEGER);
  at = Math.min(at, state.locks.table.dueAtMs, tenantLocksAt(state), flightsAtMs(state));
  at = Math.min(at, messageAtMs ?? Number.MAX_SAFE_INTEGER);
  if (isPaused(state)) return at;
  const { isExhausted, funding } = state.budget;
  if (funding.dueAtMs > 0 && !funding.isAsking && upstreamsWait(state)) at = Math.min(at, funding.dueAtMs);
  if (isExhausted) return at;
  state.admissions.forEach(({ lease, closing }, number) => {
    const upstream = state.upstreams[number]!;
    // Work that lacks room, or budget, is woken by the results or the grant that makes it.
    if (upstream.config === null || !hasRoom(upstream, lease, closing) || !canStart(state, upstream)) return;
    const opensAtMs = Math.max(upstream.gateUntilMs, lease.gateUntilMs);
    if (opensAtMs > 0) at = Math.min(at, opensAtMs);
  });
  state.upstreams.forEach((upstream, number) => (at = Math.min(at, runsAtMs(state, upstream, number))));
  return Math.min(at, backUpAtMs(state));
}

const upstreamsWait = ({ upstreams }: GoalState): boolean => upstreams.some(({ queued }) => queued > 0);

/** Whether losing this incarnation would leave work that nobody continues; an end that the directory has not heard of is such work. */
export function isBusy(state: GoalState): boolean {
  if (state.goal === null) return false;
  if (state.kin.owed.size > 0 || owesReport(state)) return true;
  if (state.goal.phase !== "active") return !state.goal.endReported;
  const rests = isPaused(state) || state.budget.isExhausted;
  return state.batches.size > 0 || (!rests && state.upstreams.some((upstream) => upstream.queued > 0 && isSent(state, upstream)));
}

/** Whether there is somewhere to send the entry's tasks to. */
const isSent = (state: GoalState, upstream: UpstreamState): boolean => upstream.config !== null || versionOf(state, upstream) !== undefined;

/** Whether work waits for an upstream or a function that was deleted: it may come back, and nobody will say so. */
export function isStalled(state: GoalState): boolean {
  const isWaiting = state.upstreams.some((upstream) => {
    return upstream.queued > 0 && !isSent(state, upstream) && (isUpstream(upstream) || isRunQueue(upstream));
  });
  return state.goal?.phase === "active" && !isPaused(state) && isWaiting;
}
