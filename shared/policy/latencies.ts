/** How long something has taken of late: a histogram in which what comes counts for more than what was. */
import { LATENCY_CALLS } from "../limits.ts";
import { age, merge, newHistogram, quantileMs } from "./histogram.ts";

export interface Latencies {
  readonly latencies: Uint32Array;
  /** How many there were. */
  timed: number;
  timedSinceAged: number;
}

/** In milliseconds; null where nothing was timed yet. */
export interface LatencyView {
  readonly p50Ms: number | null;
  readonly p95Ms: number | null;
  readonly p99Ms: number | null;
  /** How many were timed; the quantiles are of the last few thousand. */
  readonly count: number;
}

export const newLatencies = (): Latencies => ({ latencies: newHistogram(), timed: 0, timedSinceAged: 0 });

/** Adds what was counted elsewhere: pairs of a bucket of the histogram and its count. */
export function noteLatencies(kept: Latencies, pairs: readonly number[]): void {
  const count = merge(kept.latencies, pairs);
  kept.timed += count;
  kept.timedSinceAged += count;
  if (kept.timedSinceAged < LATENCY_CALLS) return;
  kept.timedSinceAged = 0;
  age(kept.latencies);
}

export function latencyView({ latencies, timed }: Latencies): LatencyView {
  const [p50Ms, p95Ms, p99Ms] = [0.5, 0.95, 0.99].map((q) => quantileMs(latencies, q));
  return { p50Ms: p50Ms!, p95Ms: p95Ms!, p99Ms: p99Ms!, count: timed };
}
