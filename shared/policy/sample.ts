/** Gathers what calls met, between two reports to the governor. */
import type { Sample } from "../protocol/admission.ts";
import { bucketOf } from "./histogram.ts";
import type { Verdict } from "./outcome.ts";

interface OriginCount {
  reached: number;
  unavailable: number;
  refused: number;
}

export interface Sampler {
  answered: number;
  sumMs: number;
  retryAfterUntilMs: number;
  origins: OriginCount[];
  /** Count by bucket. */
  latencies: Map<number, number>;
}

export function newSampler(): Sampler {
  return { answered: 0, sumMs: 0, retryAfterUntilMs: 0, origins: [], latencies: new Map() };
}

/** Counts a call that ended. `retryAfterMs` counts from `nowMs`. */
export function count(sampler: Sampler, origin: number, verdict: Verdict, ms: number, retryAfterMs: number, nowMs: number): void {
  if (verdict === "nothing") return;
  while (sampler.origins.length <= origin) sampler.origins.push({ reached: 0, unavailable: 0, refused: 0 });
  const counts = sampler.origins[origin]!;
  if (verdict === "answered") {
    const bucket = bucketOf(ms);
    sampler.answered++;
    sampler.sumMs += ms;
    sampler.latencies.set(bucket, (sampler.latencies.get(bucket) ?? 0) + 1);
    counts.reached++;
  } else if (verdict === "refused") counts.refused++;
  else counts.unavailable++;
  if (retryAfterMs > 0) sampler.retryAfterUntilMs = Math.max(sampler.retryAfterUntilMs, nowMs + retryAfterMs);
}

/** What was gathered, for a report; the sampler begins anew. */
export function drain(sampler: Sampler, nowMs: number): Sample {
  const { answered, sumMs, retryAfterUntilMs, origins, latencies } = sampler;
  Object.assign(sampler, newSampler());
  return { answered, sumMs, retryAfterMs: Math.max(0, retryAfterUntilMs - nowMs), origins, latencies: [...latencies].flat() };
}
