/**
 * The adaptive limit: Vegas with slow start (Brakmo and Peterson 1995, as in
 * Netflix concurrency-limits), over windows of 200 ms and a round of calls.
 * From the mean duration and the least one it estimates how many calls wait in
 * the upstream's queue,
 *
 *   queue = limit · (1 − baseline / mean)
 *
 * and holds that between `lg` and `6 lg`, lg = max(1, log10 limit). A refusal
 * cuts the limit by 0.7. Slow start also ends where half as many calls again
 * get hardly more done, which a short queue does not show: then what limits is
 * not the upstream, and the limit goes back. Gradient2 is not used: under a
 * permanent backlog its long average takes the overload for normal.
 */
import {
  LIMIT_BASELINE_WINDOWS,
  LIMIT_FAST_MS,
  LIMIT_LEAST_BY_SLOWNESS,
  LIMIT_MAX,
  LIMIT_MIN,
  LIMIT_NOISE_MS,
  LIMIT_SLACK_MS,
  LIMIT_START,
  LIMIT_WINDOW_CALLS_MIN,
  LIMIT_WINDOW_MS,
} from "../../../shared/limits.ts";

const CUT = 0.7;
/** A window that lasts so many calls' durations closes with what it has. */
const LONG = 4;
const SLOW_START_GAIN = 1.5;
/** What a step of slow start must add to what is done in a second. */
const WORTH = 1.2;
/** Windows of growth in a row after which slow start begins again: the upstream has much more to give. */
const SPEED_UP_AFTER = 4;

export interface Limiter {
  /** 0: not set yet. */
  limit: number;
  /** The least mean of a window; 0 while unknown. */
  baselineMs: number;
  isSlowStart: boolean;
  /** Windows since the baseline was set anew. */
  windows: number;
  /** Windows in a row that raised the limit. */
  raises: number;
  cutAtMs: number;
  /** What the last step of slow start was to improve on; 0 before the first. */
  perSecondBefore: number;
  /** The window that is open. */
  startedAtMs: number;
  answered: number;
  sumMs: number;
  mostInUse: number;
  meanMs: number;
}

export function newLimiter(limit: number, baselineMs: number): Limiter {
  return {
    limit,
    baselineMs,
    isSlowStart: true,
    windows: 0,
    raises: 0,
    cutAtMs: 0,
    perSecondBefore: 0,
    startedAtMs: 0,
    answered: 0,
    sumMs: 0,
    mostInUse: 0,
    meanMs: 0,
  };
}

/** Sets the limit within what the upstream declares; at first, to where limits start. */
export function fitLimit(limiter: Limiter, max: number | null): void {
  const most = max ?? LIMIT_MAX;
  const start = limiter.limit === 0 ? LIMIT_START : limiter.limit;
  limiter.limit = Math.min(most, Math.max(Math.min(LIMIT_MIN, most), start));
}

/** Calls that ended, and how many were open meanwhile. */
export function observe(limiter: Limiter, answered: number, sumMs: number, inUse: number): void {
  limiter.answered += answered;
  limiter.sumMs += sumMs;
  limiter.mostInUse = Math.max(limiter.mostInUse, inUse);
}

/** The upstream refused: at most one cut for what was sent before it could be felt. */
export function cut(limiter: Limiter, max: number | null, nowMs: number): void {
  if (nowMs - limiter.cutAtMs < Math.max(LIMIT_WINDOW_MS, limiter.meanMs)) return;
  limiter.cutAtMs = nowMs;
  limiter.isSlowStart = false;
  limiter.raises = 0;
  // What was never in use is no evidence.
  limiter.limit = Math.min(limiter.limit, Math.max(limiter.mostInUse, LIMIT_MIN)) * CUT;
  fitLimit(limiter, max);
}

/** Closes the window if it is old enough. `chance` in [0, 1) spreads the baseline's renewal. Whether it closed. */
export function closeWindow(limiter: Limiter, max: number | null, nowMs: number, chance: number): boolean {
  if (limiter.startedAtMs === 0) limiter.startedAtMs = nowMs;
  // Less than a round of calls is a sample of the short ones, and the least of many such means is no baseline.
  const passedMs = nowMs - limiter.startedAtMs;
  const isLong = limiter.meanMs > 0 && passedMs >= LONG * Math.max(LIMIT_WINDOW_MS, limiter.meanMs);
  const least = isLong ? LIMIT_WINDOW_CALLS_MIN : Math.max(LIMIT_WINDOW_CALLS_MIN, limiter.mostInUse);
  if (passedMs < LIMIT_WINDOW_MS || limiter.answered < least) return false;
  const meanMs = limiter.sumMs / limiter.answered;
  limiter.meanMs = meanMs;
  limiter.windows++;
  const isRenewal = limiter.windows >= LIMIT_BASELINE_WINDOWS * (0.75 + chance / 2);
  if (isRenewal) limiter.windows = 0;
  if (limiter.baselineMs === 0 || meanMs < limiter.baselineMs || isRenewal) limiter.baselineMs = Math.max(meanMs, 0.1);
  const wasCut = nowMs - limiter.cutAtMs < LIMIT_WINDOW_MS;
  // A limit that is not reached says nothing about the upstream.
  const perSecond = (limiter.answered * 1_000) / (nowMs - limiter.startedAtMs);
  if (!wasCut && limiter.mostInUse >= limiter.limit / 2) {
    const before = limiter.limit;
    adapt(limiter, meanMs, perSecond, max ?? LIMIT_MAX);
    limiter.limit = Math.max(limiter.limit, Math.min(before, leastBySlowness(max)));
  }
  fitLimit(limiter, max);
  limiter.startedAtMs = nowMs;
  limiter.answered = 0;
  limiter.sumMs = 0;
  limiter.mostInUse = 0;
  return true;
}

/**
 * Slow answers alone do not bring the limit below this; refusals do. What is
 * slow may be the machine that measures, and then fewer calls make it no faster.
 */
function leastBySlowness(max: number | null): number {
  return max === null ? LIMIT_LEAST_BY_SLOWNESS : Math.min(max, LIMIT_START) / 2;
}

function adapt(limiter: Limiter, meanMs: number, perSecond: number, most: number): void {
  const { limit, perSecondBefore } = limiter;
  // Calls so short show no queue, and where limits start is enough for thousands of them a second.
  if (meanMs <= LIMIT_FAST_MS && most >= LIMIT_MAX) return approach(limiter, LIMIT_START);
  // Below the slack a queue is too short to be told from noise.
  const baselineMs = Math.min(meanMs, Math.max(limiter.baselineMs + LIMIT_NOISE_MS, LIMIT_SLACK_MS));
  const queue = limit * (1 - baselineMs / meanMs);
  const lg = Math.max(1, Math.log10(limit));
  // There is nothing more to try.
  if (limit >= most) settleAt(limiter, limit);
  if (limiter.isSlowStart) {
    limiter.perSecondBefore = perSecond;
    if (perSecondBefore > 0 && perSecond < perSecondBefore * WORTH) return settleAt(limiter, limit / SLOW_START_GAIN);
    if (queue >= Math.max(lg, 0.1 * limit)) return settleAt(limiter, limit - queue);
    limiter.limit = limit * SLOW_START_GAIN;
    return;
  }
  if (queue < lg) {
    limiter.limit = limit + 6 * lg;
    if (++limiter.raises >= SPEED_UP_AFTER) startAgain(limiter);
    return;
  }
  limiter.raises = 0;
  if (queue < 3 * lg) limiter.limit = limit + lg;
  else if (queue > 6 * lg) limiter.limit = limit - Math.max(lg, 0.5 * (queue - 3 * lg));
}

/** One step toward a limit, from either side. */
function approach(limiter: Limiter, goal: number): void {
  const { limit } = limiter;
  limiter.limit = limit < goal ? Math.min(goal, limit * SLOW_START_GAIN) : Math.max(goal, limit / SLOW_START_GAIN);
}

function settleAt(limiter: Limiter, limit: number): void {
  limiter.isSlowStart = false;
  limiter.raises = 0;
  limiter.limit = limit;
}

function startAgain(limiter: Limiter): void {
  limiter.isSlowStart = true;
  limiter.raises = 0;
  limiter.perSecondBefore = 0;
}
