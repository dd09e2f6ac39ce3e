/**
 * After how long a call may be sent a second time, if at all. A hedge helps
 * where a few calls are slow by bad luck. Where all are, because more is wanted
 * than the upstream takes, it would only add to that: then nothing is hedged.
 */
import { LIMIT_NOISE_MS } from "../../../shared/limits.ts";
import { HEDGE_AFTER_MS_MIN, HEDGE_CALLS_MIN, HEDGE_REST_MS } from "../../../shared/limits-hedging.ts";
import { ceilingMs, quantileMs } from "../../../shared/policy/histogram.ts";
import { capacityOf } from "./grant.ts";
import { isRated, rateRoom } from "./rate.ts";
import { type Governor, wantedBy } from "./state.ts";

/** Calls that take so much longer than they could wait for one another. */
const QUEUEING = 2;

/** Null: no call may be, now. */
export function hedgeAfterMs(governor: Governor, nowMs: number): number | null {
  const { upstream, timed, latencies } = governor;
  const hedge = upstream?.hedge ?? null;
  if (hedge === null || timed < HEDGE_CALLS_MIN || isInTrouble(governor, nowMs) || isSaturated(governor, nowMs)) return null;
  return Math.max(HEDGE_AFTER_MS_MIN, ceilingMs(latencies, hedge.quantile)!);
}

function isInTrouble({ health, learnUntilMs, gateUntilMs, limiter }: Governor, nowMs: number): boolean {
  return health.isOpen || nowMs < learnUntilMs || nowMs < gateUntilMs || nowMs < limiter.cutAtMs + HEDGE_REST_MS;
}

/**
 * Whether permits are short because the upstream takes no more: it says so
 * itself, or what is sent waits there. The limit that is being tried is no
 * bound of the upstream's, and the mean is not asked, because a few stragglers
 * move it: the median is.
 */
function isSaturated(governor: Governor, nowMs: number): boolean {
  const { clients, upstream, limiter, latencies } = governor;
  let wanted = 0;
  for (const client of clients.values()) wanted += wantedBy(client);
  if (isRated(governor) && rateRoom(governor, nowMs) < 1) return true;
  if (wanted <= capacityOf(governor)) return false;
  return upstream!.maxConcurrency !== null || quantileMs(latencies, 0.5)! > QUEUEING * limiter.baselineMs + LIMIT_NOISE_MS;
}
