/**
 * What a shard of flights knows: which calls are under way and who waits for
 * them, which answers are still fresh, and which calls are not worth waiting
 * for. All of it is in memory only: to lose it costs a call, never an answer.
 */

/** One call under way. There is always one who leads. */
export interface Flight<P> {
  leader: P;
  /** The leader is taken to be gone from then on, unless it is heard of. */
  leaseUntilMs: number;
  /** When its leader's call began. */
  beganAtMs: number;
  /** In the order in which they came. */
  readonly waiting: Set<P>;
  /** Calls in a row that came to nothing. */
  failures: number;
  /** How long the answer stays fresh that the leader is about to give, and from when. */
  freshMs: number;
  landedAtMs: number;
  /** A write has been answered since the call began, so that what it reads may be from before. */
  isOutdated: boolean;
}

export function newFlight<P>(leader: P, beganAtMs: number, leaseUntilMs: number): Flight<P> {
  return { leader, leaseUntilMs, beganAtMs, waiting: new Set(), failures: 0, freshMs: 0, landedAtMs: 0, isOutdated: false };
}

export interface Kept<A> {
  readonly answer: A;
  readonly bytes: number;
  readonly atMs: number;
  readonly untilMs: number;
}

/** `P` is a place of somebody who wants an answer, `A` an answer. */
export interface Flights<P, A> {
  /** How long a leader may say nothing. */
  readonly leaseMs: number;
  /** Calls whose answers have not begun to come, by what makes them equal. */
  readonly flights: Map<string, Flight<P>>;
  /** By leader: calls whose answers come, or are outdated. Nobody joins them any more: an answer is never older than the question. */
  readonly landing: Map<P, { readonly key: string; readonly flight: Flight<P> }>;
  /** All who wait. */
  waiting: number;
  /** Calls that begin before may still go to an upstream as it was. */
  changesUntilMs: number;
  /** The oldest first. */
  readonly kept: Map<string, Kept<A>>;
  keptBytes: number;
  /** Keys whose last answer was for its caller alone, and until when that counts. The oldest first. */
  readonly alone: Map<string, number>;
}

export function newFlights<P, A>(leaseMs: number): Flights<P, A> {
  return {
    leaseMs,
    flights: new Map(),
    landing: new Map(),
    waiting: 0,
    changesUntilMs: 0,
    kept: new Map(),
    keptBytes: 0,
    alone: new Map(),
  };
}
