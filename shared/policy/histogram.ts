/**
 * A latency histogram with logarithmic buckets, as DDSketch has them (Masson,
 * Rim and Lee, VLDB 2019) and HdrHistogram before it (Tene, 2012): the bounds
 * grow by a constant ratio, so a quantile's error is relative, wherever it
 * lies. There are 8 buckets a doubling of `1 + ms`, and the middle of a bucket
 * is at most 4.5 % off. Counting is one addition, and merging is adding the
 * counts, so parts that were counted apart say what the whole would have.
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

/** Counts one latency apart, by bucket, for a histogram that is elsewhere. */
export function countApart(counts: Map<number, number>, ms: number): void {
  const bucket = bucketOf(ms);
  counts.set(bucket, (counts.get(bucket) ?? 0) + 1);
}

/** Adds what was counted elsewhere, pairs of a bucket and its count, and says how much that was. */
export function merge(histogram: Uint32Array, pairs: readonly number[]): number {
  let count = 0;
  for (let i = 0; i < pairs.length; i += 2) {
    histogram[pairs[i]!] = histogram[pairs[i]!]! + pairs[i + 1]!;
    count += pairs[i + 1]!;
  }
  return count;
}

/** Halves what was counted so far, so that what comes counts for more. */
export function age(histogram: Uint32Array): void {
  for (let bucket = 0; bucket < HISTOGRAM_BUCKETS; bucket++) histogram[bucket] = histogram[bucket]! >> 1;
}

export function totalIn(histogram: Uint32Array): number {
  let total = 0;
  for (const count of histogram) total += count;
  return total;
}

/** The bucket that the share `q` of all lies in or below; -1 without any. */
function bucketAt(histogram: Uint32Array, q: number): number {
  let left = Math.max(1, Math.ceil(q * totalIn(histogram)));
  return histogram.findIndex((count) => (left -= count) <= 0);
}

/** The latency in milliseconds below which the share `q` of all lies; null without any. */
export function quantileMs(histogram: Uint32Array, q: number): number | null {
  const bucket = bucketAt(histogram, q);
  return bucket < 0 ? null : Math.round(2 ** ((bucket + 0.5) / BUCKETS_PER_DOUBLING) - 1);
}

/** A latency in whole milliseconds that no more than `1 - q` of all exceed; null without any. The middle of a bucket would not do: half of it may be above. */
export function ceilingMs(histogram: Uint32Array, q: number): number | null {
  const bucket = bucketAt(histogram, q);
  return bucket < 0 ? null : Math.ceil(2 ** ((bucket + 1) / BUCKETS_PER_DOUBLING) - 1);
}

/** What is told of a histogram. */
export interface Quantiles {
  readonly p50Ms: number | null;
  readonly p95Ms: number | null;
  readonly p99Ms: number | null;
}

export function quantilesOf(histogram: Uint32Array): Quantiles {
  return { p50Ms: quantileMs(histogram, 0.5), p95Ms: quantileMs(histogram, 0.95), p99Ms: quantileMs(histogram, 0.99) };
}
