/**
 * Decides what is sent next, within what the upstream's governor has granted.
 * Two bounds hold for each upstream: the lanes, which count calls that may be
 * open, and the window, which counts tasks that were sent and whose results are
 * not durable. Lanes are the permits. Where the upstream declares
 * `maxConcurrency`, that is the window: a crash repeats no more calls of a goal.
 */
import { BATCH_DURATION_MS_TARGET, BATCH_LANES_MAX, BATCH_TASKS_MAX, SHORT_CALL_MS, SHORT_CALLS_PER_LANE } from "../../../shared/limits.ts";
import { type Lease, startable } from "../../../shared/policy/lease.ts";
import { chooseOrigin } from "../../../shared/policy/origins.ts";
import { admissionOf } from "./admission.ts";
import { admitted } from "./approval.ts";
import { allowanceOf, reviewBudget } from "./afford.ts";
import { IDEMPOTENT, QUEUED } from "./codes.ts";
import { hedgesFor } from "./hedges.ts";
import { isPaused } from "./kin.ts";
import type { Recorder } from "./recorder.ts";
import { isRunQueue } from "./run-state.ts";
import { sendRuns } from "./runs.ts";
import { type GoalState, isAtEnd, type UpstreamState } from "./state.ts";
import { backUp } from "./stragglers.ts";

/** `seed` is a random 32-bit integer, for the choice of origins. */
export function dispatch(rec: Recorder, seed: number): void {
  const { goal, upstreams, admissions } = rec.state;
  // There are none yet for upstreams that nothing was sent to.
  admissions.forEach(({ lease }) => {
    if (rec.nowMs >= lease.untilMs) lease.calls = 0;
  });
  if (goal === null || goal.phase !== "active" || isPaused(rec.state)) return;
  upstreams.forEach((upstream, number) => {
    if (upstream.queued > 0) {
      if (upstream.config !== null) while (sendOne(rec, upstream, number, seed));
      else if (isRunQueue(upstream)) while (sendRuns(rec, upstream, number, pick));
    }
    if (isAtEnd(upstream)) backUp(rec, number, seed);
  });
  reviewBudget(rec);
}

function sendOne(rec: Recorder, upstream: UpstreamState, number: number, seed: number): boolean {
  if (upstream.queued === 0 || upstream.config === null || rec.nowMs < upstream.gateUntilMs) return false;
  const { lease, closing } = admissionOf(rec.state, number);
  if (!hasRoom(upstream, lease, closing)) return false;
  const lanes = Math.min(BATCH_LANES_MAX, startable(lease, upstream.lanes + closing, rec.nowMs));
  const room = Math.min(windowOf(upstream, lease) - upstream.running, lease.starts);
  if (lanes <= 0 || room <= 0) return false;
  const origin = chooseOrigin(upstream.origins, upstream.config.origins.length, lease.origins, seed ^ rec.state.nextBatch);
  const picked = pick(rec.state, upstream, Math.min(room, batchSize(upstream, lease, origin, lanes)), lanes);
  if (picked.length === 0) return false;
  const tasks = admitted(rec, picked);
  // Others may be in the place of those that may not start.
  if (tasks.length === 0) return true;
  lease.starts -= tasks.length;
  const used = Math.min(lanes, tasks.length);
  const hedges = hedgesFor(rec, number, { tasks, lanes: used, origin }, seed);
  rec.start({ batch: rec.state.nextBatch, upstream: number, origin, lanes: used, tasks, ...(hedges !== null && { hedges }) });
  return true;
}

/** Permits, whether or not their lease has run out. */
const callsOf = ({ calls, spoiled }: Lease): number => calls - spoiled;

/** Whether the upstream takes another batch. Where it does not, results or a grant will make room. */
export function hasRoom(upstream: UpstreamState, lease: Lease, closing: number): boolean {
  const lanes = callsOf(lease) - upstream.lanes - closing;
  if (lanes <= 0 || lease.starts < 1 || windowOf(upstream, lease) <= upstream.running) return false;
  // A batch for fewer lanes than a full one pays only when there are no more to be had.
  return lanes >= Math.min(BATCH_LANES_MAX, callsOf(lease)) || upstream.running === 0 || upstream.config?.maxConcurrency !== null;
}

function windowOf(upstream: UpstreamState, lease: Lease): number {
  const calls = callsOf(lease);
  return upstream.config?.maxConcurrency ?? Math.ceil(calls / BATCH_LANES_MAX) * BATCH_TASKS_MAX;
}

/**
 * Guided self-scheduling (Polychronopoulos and Kuck, 1987): a batch is its
 * share of what remains, within what its lanes can do in the time aimed at.
 */
function batchSize(upstream: UpstreamState, lease: Lease, origin: number, lanes: number): number {
  // An upstream that refuses is not sent more than it is asked for anyway.
  if (lease.spoiled > 0) return lanes;
  const window = windowOf(upstream, lease);
  const share = Math.ceil((Math.min(upstream.queued, window) * lanes) / Math.max(lanes, callsOf(lease)));
  const latencyMs = upstream.origins[origin]!.latencyMs || upstream.latencyMs;
  // A permit is free again only when a result is durable, so one call a lane leaves lanes idle where the window has room for more.
  const least = window > callsOf(lease) && latencyMs <= SHORT_CALL_MS ? SHORT_CALLS_PER_LANE : 1;
  const perLane = latencyMs === 0 ? 1 : Math.max(least, Math.ceil(BATCH_DURATION_MS_TARGET / latencyMs));
  return Math.max(lanes, Math.min(share, perLane * lanes, BATCH_TASKS_MAX));
}

/** Chooses up to `max` tasks from the queues' heads, the urgent ones first. Starting them takes them off. */
function pick(state: GoalState, upstream: UpstreamState, most: number, lanes: number): number[] {
  const picked: number[] = [];
  const allowance = allowanceOf(state, upstream.config);
  let max = most;
  for (const queue of upstream.ready) {
    for (let at = queue.head; at < queue.items.length && picked.length < max; at++) {
      const task = queue.items[at]!;
      if (state.tasks.status[task] !== QUEUED) continue;
      // What must not be repeated starts at once or stays in the queue: a crash leaves few in doubt.
      const isRepeatable = (state.tasks.flags[task]! & IDEMPOTENT) !== 0;
      if (!isRepeatable && picked.length >= lanes) return picked;
      if (!isRepeatable) max = Math.min(max, lanes);
      // What cannot be afforded holds up what is behind it, or a large reserve would never come to its turn.
      if (allowance !== null && !allowance.take(task)) return picked;
      picked.push(task);
    }
  }
  return picked;
}
