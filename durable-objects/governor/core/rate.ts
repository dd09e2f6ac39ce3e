/**
 * Starts under a rate of calls and a rate of tokens, each by GCRA (ITU-T
 * I.371). A call's tokens are known when it has ended: until then it counts as
 * the upstream's reserve, or as what calls used on average.
 */
import { RATE_SLICE_MS, TOKEN_SLICE_MS } from "../../../shared/limits.ts";
import type { Sample } from "../../../shared/protocol/admission.ts";
import type { Governor } from "./state.ts";

const MINUTE_MS = 60_000;
/** Times are large numbers with few digits to spare after the point. */
const TINY = 1e-6;
/** A weight for the newest report's average. */
const GAIN = 0.2;

interface Meter {
  /** The theoretical arrival time of the next start. */
  readonly arrivalMs: number;
  /** What a start costs. */
  readonly intervalMs: number;
  readonly burstMs: number;
}

function callMeter({ upstream, arrivalMs }: Governor): Meter | null {
  const rate = upstream?.ratePerSecond ?? null;
  if (rate === null) return null;
  const intervalMs = 1_000 / rate;
  return { arrivalMs, intervalMs, burstMs: Math.max(RATE_SLICE_MS, intervalMs) };
}

function tokenMeter(governor: Governor): Meter | null {
  const rate = governor.upstream?.tokensPerMinute ?? null;
  const cost = tokensOfCall(governor);
  if (rate === null || cost === 0) return null;
  const intervalMs = (cost * MINUTE_MS) / rate;
  return { arrivalMs: governor.tokensArrivalMs, intervalMs, burstMs: Math.max(TOKEN_SLICE_MS, intervalMs) };
}

const tokensOfCall = ({ upstream, meanTokens }: Governor): number => upstream?.reserve.tokens || meanTokens;

function metersOf(governor: Governor): Meter[] {
  return [callMeter(governor), tokenMeter(governor)].filter((meter) => meter !== null);
}

/** Whether starts are counted. */
export function isRated({ upstream }: Governor): boolean {
  return upstream !== null && (upstream.ratePerSecond !== null || upstream.tokensPerMinute !== null);
}

/** Calls that may start now; Infinity where nothing bounds them. */
export function rateRoom(governor: Governor, nowMs: number): number {
  const rooms = metersOf(governor).map(({ arrivalMs, intervalMs, burstMs }) => {
    return Math.max(0, Math.floor((burstMs - Math.max(0, arrivalMs - nowMs)) / intervalMs + TINY));
  });
  return Math.min(Number.POSITIVE_INFINITY, ...rooms);
}

/** `count` starts are given. */
export function spendRate(governor: Governor, count: number, nowMs: number): void {
  if (count === 0) return;
  governor.spentAtMs = nowMs;
  move(governor, ({ arrivalMs, intervalMs }) => Math.max(arrivalMs, nowMs) + count * intervalMs);
}

/** `count` starts that were given at `atMs` are not used. Where others were given since, nobody knows what those still weigh. */
export function giveBackRate(governor: Governor, count: number, atMs: number): void {
  if (atMs >= governor.spentAtMs) move(governor, ({ arrivalMs, intervalMs }) => arrivalMs - count * intervalMs);
}

function move(governor: Governor, to: (meter: Meter) => number): void {
  const calls = callMeter(governor);
  if (calls !== null) governor.arrivalMs = to(calls);
  const tokens = tokenMeter(governor);
  if (tokens !== null) governor.tokensArrivalMs = to(tokens);
}

/** Puts what calls used in the place of what they were taken to use. */
export function meterTokens(governor: Governor, { tokens, metered }: Sample, nowMs: number): void {
  if (metered === 0) return;
  const rate = governor.upstream?.tokensPerMinute ?? null;
  if (rate !== null) {
    const beyond = tokens - metered * tokensOfCall(governor);
    governor.tokensArrivalMs = Math.max(governor.tokensArrivalMs, nowMs) + (beyond * MINUTE_MS) / rate;
  }
  const mean = tokens / metered;
  governor.meanTokens = governor.meanTokens === 0 ? mean : governor.meanTokens + GAIN * (mean - governor.meanTokens);
}
