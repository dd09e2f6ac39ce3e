/**
 * Decides what is sent next. Two bounds hold for each upstream: the window,
 * which counts tasks that were sent and whose results are not durable, and the
 * lanes, which count calls that may be open. Where the upstream declares
 * `maxConcurrency`, both are that number: a crash repeats no more calls than it.
 */
import { BATCH_DURATION_MS_TARGET, BATCH_LANES_MAX, BATCH_TASKS_MAX, LANES_DEFAULT } from "../../../shared/limits.ts";
import { IDEMPOTENT, QUEUED } from "./codes.ts";
import type { Recorder } from "./recorder.ts";
import type { GoalState, UpstreamState } from "./state.ts";

/** A rate is spent in slices of this length: a little more than commits are apart when they are slowed. */
const RATE_SLICE_MS = 150;

export function dispatch(rec: Recorder): void {
  const { goal, upstreams } = rec.state;
  if (goal === null || goal.phase !== "active" || goal.paused) return;
  upstreams.forEach((upstream, number) => {
    while (sendOne(rec, upstream, number));
  });
}

function sendOne(rec: Recorder, upstream: UpstreamState, number: number): boolean {
  if (upstream.queued === 0 || upstream.config === null || rec.nowMs < upstream.gateUntilMs) return false;
  if (!hasRoom(upstream)) return false;
  const lanes = Math.min(BATCH_LANES_MAX, lanesMax(upstream) - upstream.lanes);
  const room = Math.min(windowMax(upstream) - upstream.running, rateRoom(upstream, rec.nowMs));
  if (room <= 0) return false;
  const tasks = pick(rec.state, upstream, Math.min(room, batchSize(upstream)), lanes);
  if (tasks.length === 0) return false;
  rec.start({ batch: rec.state.nextBatch, upstream: number, lanes: Math.min(lanes, tasks.length), tasks });
  return true;
}

/** Whether the upstream takes another batch. Where it does not, results will make room. */
export function hasRoom(upstream: UpstreamState): boolean {
  const lanes = lanesMax(upstream) - upstream.lanes;
  if (lanes <= 0 || windowMax(upstream) <= upstream.running) return false;
  // A batch for fewer lanes than a full one pays only when the upstream has no more to give.
  return lanes >= BATCH_LANES_MAX || upstream.running === 0 || upstream.config?.maxConcurrency !== null;
}

function lanesMax(upstream: UpstreamState): number {
  return upstream.config?.maxConcurrency ?? LANES_DEFAULT;
}

function windowMax(upstream: UpstreamState): number {
  return upstream.config?.maxConcurrency ?? (LANES_DEFAULT / BATCH_LANES_MAX) * BATCH_TASKS_MAX;
}

/**
 * Guided self-scheduling (Polychronopoulos and Kuck, 1987): a batch is its
 * share of what remains, within what its lanes can do in the time aimed at.
 */
function batchSize(upstream: UpstreamState): number {
  if (upstream.config!.maxConcurrency !== null) return BATCH_LANES_MAX;
  const share = Math.ceil(upstream.queued / (LANES_DEFAULT / BATCH_LANES_MAX));
  const perLane = upstream.latencyMs === 0 ? 1 : Math.ceil(BATCH_DURATION_MS_TARGET / upstream.latencyMs);
  return Math.max(BATCH_LANES_MAX, Math.min(share, perLane * BATCH_LANES_MAX, BATCH_TASKS_MAX));
}

/** Calls that the rate allows now: GCRA (ITU-T I.371) with a burst of one slice. */
function rateRoom(upstream: UpstreamState, nowMs: number): number {
  const rate = upstream.config?.ratePerSecond ?? null;
  if (rate === null) return Number.MAX_SAFE_INTEGER;
  const intervalMs = 1_000 / rate;
  const burstMs = Math.max(RATE_SLICE_MS, intervalMs);
  return Math.floor((nowMs + burstMs - Math.max(upstream.arrivalMs, nowMs)) / intervalMs);
}

/** When the rate allows the next call. */
export function rateOpensAtMs(upstream: UpstreamState): number {
  const rate = upstream.config?.ratePerSecond ?? null;
  if (rate === null) return 0;
  const intervalMs = 1_000 / rate;
  return upstream.arrivalMs + intervalMs - Math.max(RATE_SLICE_MS, intervalMs);
}

/** Chooses up to `max` tasks from the queues' heads, the urgent ones first. Starting them takes them off. */
function pick(state: GoalState, upstream: UpstreamState, most: number, lanes: number): number[] {
  const picked: number[] = [];
  let max = most;
  for (const queue of upstream.ready) {
    for (let at = queue.head; at < queue.items.length && picked.length < max; at++) {
      const task = queue.items[at]!;
      if (state.tasks.status[task] !== QUEUED) continue;
      // What must not be repeated starts at once or stays in the queue: a crash leaves few in doubt.
      const isRepeatable = (state.tasks.flags[task]! & IDEMPOTENT) !== 0;
      if (!isRepeatable && picked.length >= lanes) return picked;
      if (!isRepeatable) max = Math.min(max, lanes);
      picked.push(task);
    }
  }
  return picked;
}
