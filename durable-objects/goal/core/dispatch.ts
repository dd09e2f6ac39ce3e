/**
 * Decides what is sent next, within what the upstream's governor has granted.
 * Two bounds hold for each upstream: the lanes, which count calls that may be
 * open, and the window, which counts tasks that were sent and whose results are
 * not durable. Where the upstream declares `maxConcurrency`, both are the
 * permits: a crash repeats no more calls than them.
 */
import { BATCH_DURATION_MS_TARGET, BATCH_LANES_MAX, BATCH_TASKS_MAX } from "../../../shared/limits.ts";
import { chance } from "../../../shared/policy/backoff.ts";
import { type Lease, startable } from "../../../shared/policy/lease.ts";
import { admissionOf } from "./admission.ts";
import { IDEMPOTENT, QUEUED } from "./codes.ts";
import type { Recorder } from "./recorder.ts";
import type { GoalState, OriginState, UpstreamState } from "./state.ts";

/** `seed` is a random 32-bit integer, for the choice of origins. */
export function dispatch(rec: Recorder, seed: number): void {
  const { goal, upstreams, admissions } = rec.state;
  for (const { lease } of admissions) if (rec.nowMs >= lease.untilMs) lease.calls = 0;
  if (goal === null || goal.phase !== "active" || goal.paused) return;
  upstreams.forEach((upstream, number) => {
    while (sendOne(rec, upstream, number, seed));
  });
}

function sendOne(rec: Recorder, upstream: UpstreamState, number: number, seed: number): boolean {
  if (upstream.queued === 0 || upstream.config === null || rec.nowMs < upstream.gateUntilMs) return false;
  const { lease, closing } = admissionOf(rec.state, number);
  if (!hasRoom(upstream, lease, closing)) return false;
  const lanes = Math.min(BATCH_LANES_MAX, startable(lease, upstream.lanes + closing, rec.nowMs));
  const room = Math.min(windowOf(upstream, lease) - upstream.running, lease.starts);
  if (lanes <= 0 || room <= 0) return false;
  const origin = chooseOrigin(upstream, lease, seed ^ rec.state.nextBatch);
  const tasks = pick(rec.state, upstream, Math.min(room, batchSize(upstream, lease, origin)), lanes);
  if (tasks.length === 0) return false;
  lease.starts -= tasks.length;
  rec.start({ batch: rec.state.nextBatch, upstream: number, origin, lanes: Math.min(lanes, tasks.length), tasks });
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
  return upstream.config?.maxConcurrency === null ? Math.ceil(calls / BATCH_LANES_MAX) * BATCH_TASKS_MAX : calls;
}

/**
 * Guided self-scheduling (Polychronopoulos and Kuck, 1987): a batch is its
 * share of what remains, within what its lanes can do in the time aimed at.
 */
function batchSize(upstream: UpstreamState, lease: Lease, origin: number): number {
  if (upstream.config!.maxConcurrency !== null) return BATCH_LANES_MAX;
  const share = Math.ceil((upstream.queued * BATCH_LANES_MAX) / Math.max(BATCH_LANES_MAX, callsOf(lease)));
  const latencyMs = upstream.origins[origin]!.latencyMs || upstream.latencyMs;
  const perLane = latencyMs === 0 ? 1 : Math.ceil(BATCH_DURATION_MS_TARGET / latencyMs);
  return Math.max(BATCH_LANES_MAX, Math.min(share, perLane * BATCH_LANES_MAX, BATCH_TASKS_MAX));
}

/**
 * The better of two random origins (Mitzenmacher, 2001), by calls open times
 * duration: equal numbers open would starve a fast origin beside a slow one.
 */
function chooseOrigin({ config, origins }: UpstreamState, lease: Lease, seed: number): number {
  const count = config!.origins.length;
  if (count === 1) return 0;
  const places = lease.origins?.filter((place) => place < count) ?? [];
  const at = (n: number): number => (places.length === 0 ? n : places[n]!);
  const among = places.length === 0 ? count : places.length;
  const first = at(Math.floor(chance(seed, 1, 1) * among));
  if (among === 1) return first;
  const second = at((Math.floor(chance(seed, 1, 1) * among) + 1 + Math.floor(chance(seed, 2, 2) * (among - 1))) % among);
  return loadOf(origins[second]!) < loadOf(origins[first]!) ? second : first;
}

const loadOf = ({ open, latencyMs }: OriginState): number => (open + 1) * Math.max(latencyMs, 1);

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
