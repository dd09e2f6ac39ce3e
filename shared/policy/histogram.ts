/**
 * A latency histogram with logarithmic buckets: 8 a doubling, so a quantile is
 * at most 9 % off. Counting is one addition, merging is adding the arrays.
 */
const BUCKETS_PER_DOUBLING = 8;
const DOUBLINGS = 24;
export const HISTOGRAM_BUCKETS = BUCKETS_PER_DOUBLING * DOUBLINGS;

export function newHistogram(): Uint32Array {
  return new Uint32Array(HISTOGRAM_BUCKETS);
}

export function bucketOf(ms: number): number {
  return Math.min(HISTOGRAM_BUCKETS - 1, Math.floor(Math.log2(1 + Math.max(0, ms)) * BUCKETS_PER_DOUBLING));
}

/** Counts one latency in milliseconds. */
export function record(histogram: Uint32Array, ms: number): void {
  const bucket = bucketOf(ms);
  histogram[bucket] = histogram[bucket]! + 1;
}

/** The latency in milliseconds below which the share `q` of all lies; null without any. */
export function quantileMs(histogram: Uint32Array, q: number): number | null {
  let total = 0;
  for (const count of histogram) total += count;
  if (total === 0) return null;
  let left = Math.ceil(q * total);
  for (let bucket = 0; bucket < HISTOGRAM_BUCKETS; bucket++) {
    left -= histogram[bucket]!;
    if (left <= 0) return Math.round(2 ** ((bucket + 0.5) / BUCKETS_PER_DOUBLING) - 1);
  }
  return null;
}
