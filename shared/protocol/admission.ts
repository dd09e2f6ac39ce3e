/**
 * What a client of a governor says to it, and what the governor answers. A
 * client is whatever sends calls to an upstream: a goal, or a gate of the
 * proxy. Everything here is a total, never a difference, so a message that is
 * lost, late or repeated does no harm.
 */
import type { LatencyView } from "../policy/latencies.ts";
import type { Upstream } from "./upstream.ts";

export const PRIORITY_BANDS = 3;

/** Calls that a client would like to have open, those that are open included: interactive, normal, background. */
export type Demand = readonly [number, number, number];

/** What came of the calls to one origin. */
export interface OriginSample {
  /** The upstream's own answers, good or bad. */
  readonly reached: number;
  /** It was not reached: no connection, a broken one, or a gateway's 502 or 504. */
  readonly unavailable: number;
  /** It has too much: 429, 503, or no answer in time. */
  readonly refused: number;
}

/** What a client's calls met since its last report. */
export interface Sample {
  /** Calls that were answered in full and did not say that it was too much. */
  readonly answered: number;
  /** The sum of their durations, in milliseconds. */
  readonly sumMs: number;
  /** What answers said that they used, and how many said so. */
  readonly tokens: number;
  readonly metered: number;
  /** The longest `Retry-After` from now, in milliseconds; 0 for none. */
  readonly retryAfterMs: number;
  /** By the origin's place in the upstream's list. */
  readonly origins: readonly OriginSample[];
  /** Pairs of a bucket of `shared/policy/histogram.ts` and its count. */
  readonly latencies: readonly number[];
}

export interface Report {
  /** Who asks: a goal's id, or a gate's name. */
  readonly client: string;
  /** One incarnation of the client: 16 hex digits of chance. */
  readonly life: string;
  readonly weight: number;
  /** Rises with every report of a life. */
  readonly seq: number;
  /** The epoch and number of the latest grant that was taken; 0 and 0 for none. */
  readonly epoch: number;
  readonly taken: number;
  /** Calls that may be open now. Never more than was granted, but while a grant shrinks. */
  readonly inUse: number;
  /** Calls that the client keeps of what it was granted; the others are given back. A governor that has forgotten its clients learns from it. */
  readonly held: number;
  /** Starts that the latest grant allowed and that were not used. */
  readonly unusedStarts: number;
  readonly wants: Demand;
  readonly sample: Sample;
  /** The upstream as the client knows it, and the registry's version that it is from. */
  readonly upstream: Upstream;
  readonly version: number;
}

/** Leave to have calls open. It replaces every earlier one of the same epoch with a lower number. */
export interface Grant {
  /** Rises when the governor loses its memory. */
  readonly epoch: number;
  /** Rises with every grant of an epoch. */
  readonly number: number;
  /** The report that it answers: the lease runs from when that report was sent. */
  readonly seq: number;
  /** Calls that may be open at once. */
  readonly calls: number;
  /** Calls that may be started; null where there is no bound. */
  readonly starts: number | null;
  /** How long the lease lasts on the governor's clock. The client uses `LEASE_USE` of it on its own. */
  readonly ttlMs: number;
  /** No call starts for so long. */
  readonly gateMs: number;
  /** The upstream is taken to be down: what is granted are probes. */
  readonly isOpen: boolean;
  /** Places of the origins that may be called; null for all. */
  readonly origins: readonly number[] | null;
  /** What the client may expect to be done in a second, from what the upstream has done; 0 while unknown. */
  readonly callsPerSecond: number;
  /** There is so much room that permits may rest a while between calls. Left out: there is not. */
  readonly isAmple?: boolean;
  /** A call that takes longer may be sent a second time. Left out or null: none may, now. */
  readonly hedgeAfterMs?: number | null;
}

/** The live state of an upstream. */
export interface UpstreamLive extends LatencyView {
  readonly limit: number | null;
  readonly inFlight: number;
  readonly queued: number;
  readonly circuit: "closed" | "open";
  /** Calls that take longer are hedged; null while none is. */
  readonly hedgeAfterMs: number | null;
  /** What a call used on average, by what answers said; 0 while none has. */
  readonly tokensPerCall: number;
  /** Messages to and from clients, and calls that they made, since the governor woke. */
  readonly messages: number;
  readonly calls: number;
}
