/**
 * What a governor knows of one upstream and of its clients. Only `Kept` is on
 * disk: a governor that has lost the rest learns it from its clients.
 */
import { LEASE_TTL_MS_MIN } from "../../../shared/limits.ts";
import { type Latencies, newLatencies } from "../../../shared/policy/latencies.ts";
import type { Demand } from "../../../shared/protocol/admission.ts";
import type { Upstream } from "../../../shared/protocol/upstream.ts";
import { type Health, newHealth } from "./health.ts";
import { type Limiter, newLimiter } from "./limiter.ts";

/** What survives: all that safety needs, and the limit, which is worth keeping. */
export interface Kept {
  readonly epoch: number;
  /** Permits may be out. A governor that finds this waits for a lease's length before it gives what it cannot account for. */
  readonly isBusy: boolean;
  /** The process that gave them out; "" where processes have no names. */
  readonly boot: string;
  /** The longest lease that may be out. */
  readonly ttlMs: number;
  readonly limit: number;
  readonly baselineMs: number;
}

export interface Given {
  readonly number: number;
  readonly calls: number;
}

/** One incarnation of a client. */
export interface Client {
  readonly name: string;
  readonly life: string;
  weight: number;
  /** The latest report. */
  seq: number;
  inUse: number;
  wants: Demand;
  /** What it keeps of the grant that it last took, and the grants since its latest report: it may act on any of them. */
  given: Given[];
  /** Starts of the latest grant, as long as they may be used. */
  starts: number;
  /** Its virtual time: starts that it was given, by its weight. */
  turn: number;
  expiresAtMs: number;
  /** How long its lease lasts from its latest report. */
  ttlMs: number;
  heardAtMs: number;
  toldAtMs: number;
  /** Its share of the limit as it should be, and in whole calls. */
  share: number;
  target: number;
  /** What it got less than its share, in call-milliseconds: the deficit of the round robin. */
  credit: number;
}

/** The latencies are those of calls that were answered, of all clients. */
export interface Governor extends Latencies {
  readonly epoch: number;
  readonly boot: string;
  number: number;
  /** Before this, nothing is given but what clients hold already. */
  learnUntilMs: number;
  isBusy: boolean;
  idleSinceMs: number;
  upstream: Upstream | null;
  version: number;
  readonly clients: Map<string, Client>;
  readonly limiter: Limiter;
  readonly health: Health;
  gateUntilMs: number;
  /** The theoretical arrival time of the next start, for the rate (GCRA, ITU-T I.371). */
  arrivalMs: number;
  /** The virtual time of the client that was given starts last (start-time fair queueing, Goyal 1996). */
  turn: number;
  /** When starts were last given. */
  spentAtMs: number;
  /** The same for tokens; and what a call used on average, 0 while unknown. */
  tokensArrivalMs: number;
  meanTokens: number;
  ttlMs: number;
  /** The longest lease that a restart would wait for. */
  keptTtlMs: number;
  sharedAtMs: number;
  /** Done in a second while more was wanted; 0 while unknown. */
  callsPerSecond: number;
  /** A call that takes longer may be hedged; null while none may. */
  hedgeAfterMs: number | null;
  /** Messages from and to clients, and calls that they reported. */
  messages: number;
  calls: number;
}

export function newGovernor(kept: Kept | null, boot: string, nowMs: number): Governor {
  // What an earlier process had open died with it; where processes have no names, it may live on.
  const mayLive = kept !== null && kept.isBusy && (boot === "" || kept.boot === boot);
  return {
    epoch: (kept?.epoch ?? 0) + 1,
    boot,
    number: 0,
    learnUntilMs: mayLive ? nowMs + kept.ttlMs : 0,
    isBusy: false,
    idleSinceMs: nowMs,
    upstream: null,
    version: -1,
    clients: new Map(),
    limiter: newLimiter(kept?.limit ?? 0, kept?.baselineMs ?? 0),
    health: newHealth(),
    gateUntilMs: 0,
    arrivalMs: 0,
    turn: 0,
    spentAtMs: 0,
    tokensArrivalMs: 0,
    meanTokens: 0,
    ttlMs: LEASE_TTL_MS_MIN,
    keptTtlMs: LEASE_TTL_MS_MIN,
    sharedAtMs: nowMs,
    callsPerSecond: 0,
    ...newLatencies(),
    hedgeAfterMs: null,
    messages: 0,
    calls: 0,
  };
}

/** The most calls that a client may have open, whichever of its grants it acts on. */
export function boundOf({ inUse, given }: Client): number {
  let most = inUse;
  for (const { calls } of given) if (calls > most) most = calls;
  return most;
}

/** Calls that all clients together may have open. */
export function boundOfAll(governor: Governor): number {
  let sum = 0;
  for (const client of governor.clients.values()) sum += boundOf(client);
  return sum;
}

/** Calls that the latest grant allows. */
export const toldTo = ({ given }: Client): number => given.at(-1)?.calls ?? 0;

/** Whoever wanted nothing for a while has no claim from before. */
export const turnOf = (governor: Governor, client: Client): number => Math.max(governor.turn, client.turn);

export const wantedBy = ({ wants }: Client): number => wants[0] + wants[1] + wants[2];
