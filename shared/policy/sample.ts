/** Gathers what calls met, between two reports to the governor. */
import type { Sample } from "../protocol/admission.ts";
import { countApart } from "./histogram.ts";
import type { Verdict } from "./outcome.ts";

interface OriginCount {
  reached: number;
  unavailable: number;
  refused: number;
}

export interface Sampler {
  answered: number;
  sumMs: number;
  tokens: number;
  metered: number;
  retryAfterUntilMs: number;
  origins: OriginCount[];
  /** Count by bucket. */
  latencies: Map<number, number>;
}

export function newSampler(): Sampler {
  return { answered: 0, sumMs: 0, tokens: 0, metered: 0, retryAfterUntilMs: 0, origins: [], latencies: new Map() };
}

/** A call that ended. */
export interface Ended {
  /** The place of the origin that was called. */
  readonly origin: number;
  readonly verdict: Verdict;
  readonly ms: number;
  /** From now; 0 for none. */
  readonly retryAfterMs: number;
  /** What the answer says that it used; 0 where it says nothing. */
  readonly tokens: number;
}

export function count(sampler: Sampler, { origin, verdict, ms, retryAfterMs, tokens }: Ended, nowMs: number): void {
  if (verdict === "nothing") return;
  while (sampler.origins.length <= origin) sampler.origins.push({ reached: 0, unavailable: 0, refused: 0 });
  const counts = sampler.origins[origin]!;
  if (verdict === "answered") {
    sampler.answered++;
    sampler.sumMs += ms;
    countApart(sampler.latencies, ms);
    counts.reached++;
  } else if (verdict === "refused") counts.refused++;
  else counts.unavailable++;
  if (tokens > 0) {
    sampler.tokens += tokens;
    sampler.metered++;
  }
  if (retryAfterMs > 0) sampler.retryAfterUntilMs = Math.max(sampler.retryAfterUntilMs, nowMs + retryAfterMs);
}

/** What was gathered, for a report; the sampler begins anew. */
export function drain(sampler: Sampler, nowMs: number): Sample {
  const { answered, sumMs, tokens, metered, retryAfterUntilMs, origins, latencies } = sampler;
  Object.assign(sampler, newSampler());
  return {
    answered,
    sumMs,
    tokens,
    metered,
    retryAfterMs: Math.max(0, retryAfterUntilMs - nowMs),
    origins,
    latencies: [...latencies].flat(),
  };
}
