/**
 * Calls that this isolate has under way, by what makes them equal. One request
 * leads; the others wait in their own requests for what it finds, so that none
 * depends on another's caller. A request can end without a word, so a leader
 * shows that it is there, and those who wait look.
 */
import type { Failure } from "../../../shared/errors.ts";
import { FLIGHT_BEAT_MS } from "../../../shared/limits-flight.ts";
import type { WholeAnswer } from "../../../shared/rpc-flight.ts";

export type Outcome =
  /** `ageMs`: since when it is kept; null where it came just now. */
  | { readonly kind: "answer"; readonly answer: WholeAnswer; readonly headers: Headers; readonly ageMs: number | null }
  /** Everybody makes a call of its own. */
  | { readonly kind: "alone" }
  /** The call came to nothing, and somebody else should try. */
  | { readonly kind: "failed" };

/** `late`: it has no permit when the caller's patience ends. `gone`: nobody makes the call any more. */
interface Left {
  readonly kind: "late" | "gone";
}

/** A leader that has not been seen for so long is gone. */
const SILENT_MS = 4 * FLIGHT_BEAT_MS;
/** Whoever looks is late as well, so what it sees is old. */
const LATE_MS = FLIGHT_BEAT_MS / 2;

export interface Admission {
  readonly atMs: number;
  readonly asked: Promise<{ readonly refusal: Failure | null }>;
  /** What came of it: to wait for what belongs to another request costs more than to look. */
  verdict?: Failure | null;
}

export class Flight {
  /** What its call reads, so that a write ends it; null where it is not known to read only. */
  readonly resource: string | null;
  readonly #outcome = Promise.withResolvers<Outcome>();
  readonly #company = Promise.withResolvers<void>();
  /** By who asks: whether it may have the answer. */
  readonly admitted = new Map<string, Admission>();
  #seenAtMs = Date.now();
  hasCompany = false;
  /** The call has its permit: from then on it is only waited for. */
  isCalling = false;

  constructor(resource: string | null) {
    this.resource = resource;
  }

  get outcome(): Promise<Outcome> {
    return this.#outcome.promise;
  }

  /** Resolves when somebody waits for the leader. */
  get company(): Promise<void> {
    return this.#company.promise;
  }

  get isSilent(): boolean {
    return Date.now() - this.#seenAtMs > SILENT_MS;
  }

  /** The leader is there. */
  beat(): void {
    this.#seenAtMs = Date.now();
  }

  land(outcome: Outcome): void {
    this.#outcome.resolve(outcome);
  }

  /** What comes of it. */
  async follow(untilMs: number): Promise<Outcome | Left> {
    try {
      // What belongs to a request that has ended throws when it is waited for, and complains when it is told something.
      if (!this.hasCompany) {
        const known = await Promise.race([this.outcome, Promise.resolve(null)]);
        if (known !== null) return known;
        this.hasCompany = true;
        this.#company.resolve();
      }
      return await this.#wait(untilMs);
    } catch {
      return { kind: "gone" };
    }
  }

  async #wait(untilMs: number): Promise<Outcome | Left> {
    for (;;) {
      const nowMs = Date.now();
      const isOver = nowMs >= untilMs;
      if (isOver && !this.isCalling) return { kind: "late" };
      const wakeAtMs = isOver ? nowMs + SILENT_MS : Math.min(untilMs, nowMs + SILENT_MS);
      const outcome = await within(this.outcome, wakeAtMs - nowMs);
      if (outcome !== null) return outcome;
      // Where this is late itself, the leader may be about to show itself.
      if (this.isSilent && Date.now() < wakeAtMs + LATE_MS) return { kind: "gone" };
    }
  }
}

/** Null where it takes longer. */
export async function within<T>(work: Promise<T>, ms: number): Promise<T | null> {
  let timer: number | null = null;
  const late = new Promise<null>((resolve) => (timer = setTimeout(resolve, ms, null)));
  const first = await Promise.race([work, late]);
  clearTimeout(timer);
  return first;
}

const flights = new Map<string, Flight>();

export const flightOf = (key: string): Flight | undefined => flights.get(key);

/** A new flight, which its maker leads. */
export function newFlight(key: string, resource: string | null): Flight {
  const flight = new Flight(resource);
  // One whose request ended alone has nobody to take it away.
  for (const [old, { isSilent }] of flights) {
    if (!isSilent) break;
    flights.delete(old);
  }
  flights.set(key, flight);
  return flight;
}

export function landFlight(key: string, flight: Flight, outcome: Outcome): void {
  forgetFlight(key, flight);
  flight.land(outcome);
}

/** Nobody joins it any more. */
export function forgetFlight(key: string, flight: Flight): void {
  if (flights.get(key) === flight) flights.delete(key);
}

/** A write has been answered: nobody joins calls any more that may have read what was before. */
export function forgetReadsOf(resource: string): void {
  for (const [key, flight] of flights) if (flight.resource === resource) flights.delete(key);
}
