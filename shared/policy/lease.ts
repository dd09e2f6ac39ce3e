/**
 * The client's side of a permit lease (after Doorman, Google 2016: leases from
 * a capacity server, and a learning mode after its restart). A lease runs on
 * two clocks that are never compared: the governor counts from when a report
 * reached it, the client from when it sent that report, and uses `LEASE_USE`
 * of it only. So what the governor takes back nobody uses any more.
 */
import { ASK_INTERVAL_MS, ASK_RESULTS, ASK_RETRY_MS, LEASE_USE, REFUSED_ASK_INTERVAL_MS } from "../limits.ts";
import type { Demand, Grant } from "../protocol/admission.ts";

export interface Lease {
  readonly life: string;
  /** The last report, and when it was sent. Null: none is on its way. */
  seq: number;
  sentAtMs: number;
  isAsking: boolean;
  epoch: number;
  number: number;
  ttlMs: number;
  calls: number;
  /** Calls that may still be started; Infinity where there is no bound. */
  starts: number;
  /** Calls that the last report made the governor count: others wait to hear that they are fewer. */
  counted: number;
  /** The latest grant allowed a counted number of starts, and no report has gone since. */
  hasCounted: boolean;
  untilMs: number;
  gateUntilMs: number;
  isOpen: boolean;
  origins: readonly number[] | null;
  callsPerSecond: number;
  isAmple: boolean;
  hedgeAfterMs: number | null;
  /** Calls whose end said that the upstream has too much: their permits rest until the governor has heard of it. */
  spoiled: number;
  /** Those of them that the last report told of. */
  spoiledSaid: number;
  /** Results since the last report. */
  results: number;
  /** What was wanted when it was last asked. */
  wanted: number;
  /** No report leaves before this: the last one got no answer. */
  restUntilMs: number;
}

export function newLease(life: string): Lease {
  return {
    life,
    seq: 0,
    sentAtMs: 0,
    isAsking: false,
    epoch: 0,
    number: 0,
    ttlMs: 0,
    calls: 0,
    starts: 0,
    counted: 0,
    hasCounted: false,
    untilMs: 0,
    gateUntilMs: 0,
    isOpen: false,
    origins: null,
    callsPerSecond: 0,
    isAmple: false,
    hedgeAfterMs: null,
    spoiled: 0,
    spoiledSaid: 0,
    results: 0,
    wanted: 0,
    restUntilMs: 0,
  };
}

/** Calls that may be open now. */
export function permitted(lease: Lease, nowMs: number): number {
  return nowMs < lease.untilMs ? Math.max(0, lease.calls - lease.spoiled) : 0;
}

/** Calls that may be started now, given how many are open. */
export function startable(lease: Lease, inUse: number, nowMs: number): number {
  if (nowMs < lease.gateUntilMs) return 0;
  return Math.max(0, Math.min(permitted(lease, nowMs) - inUse, lease.starts));
}

/** What a report says of the lease. */
export interface Asked {
  readonly seq: number;
  readonly held: number;
  readonly unusedStarts: number;
}

/**
 * A report is about to be sent: its number, and what it says is held. Permits
 * beyond what is wanted are given back with it, and so are counted starts,
 * which may not be used once they are. What happens until its answer counts
 * for the next one.
 */
export function asked(lease: Lease, wanted: number, inUse: number, nowMs: number): Asked {
  const isCounted = Number.isFinite(lease.starts);
  const unusedStarts = isCounted ? lease.starts : 0;
  if (isCounted) lease.starts = 0;
  lease.calls = Math.min(lease.calls, wanted);
  lease.seq++;
  lease.sentAtMs = nowMs;
  lease.isAsking = true;
  lease.results = 0;
  lease.spoiledSaid = lease.spoiled;
  lease.hasCounted = false;
  lease.wanted = wanted;
  const held = permitted(lease, nowMs);
  lease.counted = Math.max(held, inUse);
  return { seq: lease.seq, held, unusedStarts };
}

/**
 * Takes a grant. False where a later one has been taken already, and where it
 * answers an earlier report: the governor counts none of those once it has the
 * latest.
 */
export function take(lease: Lease, grant: Grant, nowMs: number): boolean {
  if (grant.seq !== lease.seq) return false;
  lease.isAsking = false;
  const isLater = grant.epoch > lease.epoch || (grant.epoch === lease.epoch && grant.number > lease.number);
  if (!isLater) return false;
  lease.epoch = grant.epoch;
  lease.number = grant.number;
  lease.ttlMs = grant.ttlMs;
  lease.calls = grant.calls;
  lease.starts = grant.starts ?? Number.POSITIVE_INFINITY;
  lease.hasCounted = grant.starts !== null && grant.starts > 0;
  lease.untilMs = lease.sentAtMs + grant.ttlMs * LEASE_USE;
  lease.gateUntilMs = grant.gateMs > 0 ? nowMs + grant.gateMs : 0;
  lease.isOpen = grant.isOpen;
  lease.origins = grant.origins;
  lease.callsPerSecond = grant.callsPerSecond;
  lease.isAmple = grant.isAmple === true;
  lease.hedgeAfterMs = grant.hedgeAfterMs ?? null;
  lease.spoiled -= lease.spoiledSaid;
  lease.spoiledSaid = 0;
  return true;
}

/** The report got no answer. */
export function unanswered(lease: Lease, nowMs: number): void {
  lease.isAsking = false;
  lease.restUntilMs = nowMs + ASK_RETRY_MS;
}

export const totalOf = (wants: Demand): number => wants[0] + wants[1] + wants[2];

/**
 * When the next report is due; null for never. Few messages, and none late:
 * new demand and refusals go at once, results in groups, and a lease is
 * renewed in its first third.
 */
export function askDueAtMs(lease: Lease, wanted: number, inUse: number): number | null {
  if (lease.isAsking) return null;
  const dueAtMs = dueBy(lease, wanted, inUse);
  return dueAtMs === null ? null : Math.max(dueAtMs, lease.restUntilMs);
}

function dueBy(lease: Lease, wanted: number, inUse: number): number | null {
  // A governor that last heard of work takes it for open until it hears that it is done.
  const isHolding = lease.calls > 0 || inUse > 0 || lease.wanted > 0;
  if (wanted === 0 && !isHolding) return null;
  if (lease.seq === 0) return 0;
  const renewAtMs = lease.sentAtMs + Math.max(ASK_INTERVAL_MS, lease.ttlMs / 3);
  // Nothing more to do: others may have what is held.
  if (wanted === 0 && inUse === 0) return lease.sentAtMs;
  if (lease.spoiled > 0) return lease.sentAtMs + REFUSED_ASK_INTERVAL_MS;
  // There was nothing to wait for when it was last asked.
  if (lease.wanted === 0 && wanted > 0) return lease.sentAtMs;
  // All that was allowed to start has started, or permits are free again: the governor has to hear of it before it allows more.
  const isSpent = (lease.hasCounted || (lease.results > 0 && lease.calls > inUse)) && lease.starts < 1 && wanted > inUse;
  const isShort = wanted > lease.wanted && lease.calls >= lease.wanted;
  const isFree = Math.max(lease.calls, inUse) < lease.counted;
  if (isShort || isSpent || isFree || lease.results >= ASK_RESULTS) return Math.min(renewAtMs, lease.sentAtMs + ASK_INTERVAL_MS);
  return renewAtMs;
}
