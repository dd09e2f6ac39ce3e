/**
 * One upstream as a gate sees it: who waits, in the order of arrival, what is
 * open, and what the governor granted. The gate is a client of the governor
 * as a goal is. None of it is durable: a call that waits has its caller on the
 * line, and a new incarnation begins without permits.
 */
import { GATE_ASK_INTERVAL_MS, GATE_REST_MS, GATE_REST_PERMITS_MAX } from "../../../shared/limits.ts";
import { HEDGES_MAX, HEDGES_START } from "../../../shared/limits-hedging.ts";
import { askDueAtMs, asked, type Lease, newLease, startable } from "../../../shared/policy/lease.ts";
import { chooseOrigin } from "../../../shared/policy/origins.ts";
import { type CallEnd, verdictOfCall } from "../../../shared/policy/outcome.ts";
import { count, drain, newSampler, type Sampler } from "../../../shared/policy/sample.ts";
import type { Report } from "../../../shared/protocol/admission.ts";
import type { Upstream } from "../../../shared/protocol/upstream.ts";

/** How much the newest call counts in an origin's latency. */
const LATENCY_GAIN = 0.2;
/** The least that a caller is told to wait before it comes again. */
const RETRY_AFTER_MS_MIN = 1_000;

/** A call that waits. */
export interface Waiter {
  readonly untilMs: number;
  /** Places of origins that failed it. */
  readonly avoid: readonly number[];
}

export interface Queue<W extends Waiter> {
  upstream: Upstream;
  /** The registry's version that it is from. */
  version: number;
  readonly lease: Lease;
  readonly sampler: Sampler;
  readonly origins: { open: number; latencyMs: number }[];
  open: number;
  /** When a call ended last. */
  endedAtMs: number;
  /** Second tries that may be made. */
  hedges: number;
  /** In the order of arrival. */
  readonly waiting: Set<W>;
  /** Second tries that wait: for a permit that none of those in `waiting` wants. */
  readonly seconds: Set<W>;
}

export function newQueue<W extends Waiter>(upstream: Upstream, version: number, life: string): Queue<W> {
  const lease = newLease(life);
  const queue: Queue<W> = {
    upstream,
    version,
    lease,
    sampler: newSampler(),
    origins: [],
    open: 0,
    endedAtMs: 0,
    hedges: HEDGES_START,
    waiting: new Set(),
    seconds: new Set(),
  };
  configure(queue, upstream, version);
  return queue;
}

/** Takes the upstream as the registry has it now. */
export function configure<W extends Waiter>(queue: Queue<W>, upstream: Upstream, version: number): void {
  // Another address at the same place is another origin.
  upstream.origins.forEach((origin, place) => {
    const isNew = queue.origins[place] === undefined || queue.upstream.origins[place] !== origin;
    if (isNew) queue.origins[place] = { open: 0, latencyMs: 0 };
  });
  queue.upstream = upstream;
  queue.version = version;
  queue.lease.isAmple = false;
}

/** A first try of a call was let pass, and second ones are its upstream's share of these. */
export function earn<W extends Waiter>(queue: Queue<W>): void {
  const { hedge = null } = queue.upstream;
  if (hedge !== null) queue.hedges = Math.min(HEDGES_MAX, queue.hedges + hedge.budgetPercent / 100);
}

/** After how long a call may be made a second time; null where none may. */
export function hedgeAfterMs<W extends Waiter>({ upstream, lease }: Queue<W>): number | null {
  return (upstream.hedge ?? null) === null ? null : lease.hedgeAfterMs;
}

/** Whether so many calls, with those that wait for it already, may be made a second time: no more than the upstream's share of all. */
export function isHedging<W extends Waiter>(queue: Queue<W>, seconds: number): boolean {
  return hedgeAfterMs(queue) !== null && seconds <= queue.hedges;
}

/** Starts a second try of a call if it may be made, a permit is free, and nobody waits. */
export function startSecond<W extends Waiter>(queue: Queue<W>, avoid: readonly number[], seed: number, nowMs: number): number | null {
  if (!isHedging(queue, 1) || queue.waiting.size > 0) return null;
  const place = start(queue, avoid, seed, nowMs);
  if (place !== null) queue.hedges--;
  return place;
}

/** Starts a call if a permit is free. The place of its origin; null where it must wait. */
export function start<W extends Waiter>(queue: Queue<W>, avoid: readonly number[], seed: number, nowMs: number): number | null {
  const { lease, origins, upstream } = queue;
  if (startable(lease, queue.open, nowMs) < 1) return null;
  const places = lease.origins ?? upstream.origins.map((_, place) => place);
  const better = places.filter((place) => !avoid.includes(place));
  const place = chooseOrigin(origins, upstream.origins.length, better.length > 0 ? better : lease.origins, seed);
  lease.starts--;
  queue.open++;
  origins[place]!.open++;
  return place;
}

/** A call has ended, and so has the use of its permit. Without an end nobody knows how: its caller went away. */
export function finish<W extends Waiter>(queue: Queue<W>, place: number, end: CallEnd | null, nowMs: number): void {
  const origin = queue.origins[place]!;
  queue.open--;
  queue.endedAtMs = nowMs;
  origin.open = Math.max(0, origin.open - 1);
  queue.lease.results++;
  if (end !== null) judge(queue, place, end, nowMs);
}

/** A call has ended, and the next one has begun, or may, with the same permit. */
export function repeat<W extends Waiter>(queue: Queue<W>, place: number, end: CallEnd, nowMs: number): void {
  queue.lease.results++;
  judge(queue, place, end, nowMs);
}

/** What the end of a call says of its upstream. */
function judge<W extends Waiter>({ lease, origins, sampler }: Queue<W>, place: number, end: CallEnd, nowMs: number): void {
  const origin = origins[place]!;
  const verdict = verdictOfCall(end.outcome, end.status);
  count(sampler, { origin: place, verdict, ms: end.ms, retryAfterMs: end.retryAfterMs, tokens: end.tokens ?? 0 }, nowMs);
  if (verdict === "refused" || verdict === "unavailable") lease.spoiled++;
  if (verdict !== "answered") return;
  origin.latencyMs = origin.latencyMs === 0 ? Math.max(end.ms, 0.5) : origin.latencyMs + LATENCY_GAIN * (end.ms - origin.latencyMs);
}

/** One permit more for second tries, however many wait: what they want must not look like calls that wait. */
const wantedBy = <W extends Waiter>({ open, waiting, seconds }: Queue<W>): number => open + waiting.size + Math.min(1, seconds.size);

/** When the next report is due; null for never. */
export function reportAtMs<W extends Waiter>(queue: Queue<W>, nowMs: number): number | null {
  const { lease } = queue;
  if (nowMs >= lease.untilMs) lease.calls = 0;
  const wanted = wantedBy(queue);
  const dueAtMs = askDueAtMs(lease, wanted, queue.open);
  // Who calls one by one would ask for each call, and give back after each.
  if (dueAtMs !== null && wanted === 0 && isResting(queue)) return Math.max(dueAtMs, restUntilMs(queue));
  // Where the governor gave less than it was asked for, more demand changes nothing soon.
  const isShort = wanted > queue.open && wanted > lease.wanted && lease.calls >= lease.wanted;
  if (dueAtMs === null || !isShort) return dueAtMs;
  return Math.min(dueAtMs, Math.max(lease.sentAtMs + GATE_ASK_INTERVAL_MS, lease.restUntilMs));
}

/** Whether what it holds, and does not use, may wait for the next call: few, good, and nobody else misses them. */
const isResting = <W extends Waiter>({ lease }: Queue<W>): boolean =>
  lease.isAmple && lease.spoiled === 0 && lease.calls <= GATE_REST_PERMITS_MAX;

/** A while after the last call; but the governor is asked as often whether there are plenty still. */
const restUntilMs = <W extends Waiter>({ lease, endedAtMs }: Queue<W>): number =>
  Math.min(endedAtMs + GATE_REST_MS, Math.max(lease.sentAtMs + GATE_REST_MS, endedAtMs));

/** The report that is about to be sent. */
export function reportOf<W extends Waiter>(queue: Queue<W>, client: string, nowMs: number): Report {
  const { lease, sampler, upstream, version, open } = queue;
  const wanted = wantedBy(queue);
  return {
    client,
    life: lease.life,
    weight: 1,
    ...asked(lease, wanted, open, nowMs),
    epoch: lease.epoch,
    taken: lease.number,
    inUse: open,
    wants: [0, wanted, 0],
    sample: drain(sampler, nowMs),
    upstream,
    version,
  };
}

/** When a caller that got no permit in time should come again. */
export function retryAfterMs<W extends Waiter>({ lease, waiting }: Queue<W>, nowMs: number): number {
  const queueMs = lease.callsPerSecond === 0 ? 0 : ((waiting.size + 1) * 1_000) / lease.callsPerSecond;
  return Math.max(RETRY_AFTER_MS_MIN, queueMs, lease.gateUntilMs - nowMs);
}
