/** How long something has taken of late: a histogram in which what comes counts for more than what was. */
import { LATENCY_CALLS } from "../limits.ts";
import { age, merge, newHistogram, type Quantiles, quantilesOf } from "./histogram.ts";

export interface Latencies {
  readonly latencies: Uint32Array;
  /** How many there were. */
  timed: number;
  timedSinceAged: number;
}

/** In milliseconds; null where nothing was timed yet. */
export interface LatencyView extends Quantiles {
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

export const latencyView = ({ latencies, timed }: Latencies): LatencyView => ({ ...quantilesOf(latencies), count: timed });
