/**
 * Calls that this isolate has under way, by what makes them equal. One request
 * leads; the others wait in their own requests for what it finds. A leader whose
 * caller goes away says so, and where its request ends in any other manner the
 * runtime rejects what they wait for; so none depends on another's caller, and
 * none needs a timer.
 */
import { FLIGHT_BEAT_MS, FLIGHT_GATHER_MS_MAX } from "../../../shared/limits-flight.ts";
import { Admissions } from "./admissions.ts";
import type { SharedAnswer } from "./answer.ts";
import { within } from "../../kit/within.ts";

export type Outcome =
  | { readonly kind: "answer"; readonly answer: SharedAnswer }
  /** Everybody makes a call of its own. */
  | { readonly kind: "alone" }
  /** The call came to nothing, and somebody else should try. */
  | { readonly kind: "failed" };

/** `late`: it has no permit when the caller's patience ends. `gone`: nobody makes the call any more. */
export interface Left {
  readonly kind: "late" | "gone";
}

/** A leader that has not been seen for so long is gone. */
const SILENT_MS = 4 * FLIGHT_BEAT_MS;

export interface FlightSpec {
  readonly key: string;
  /** What its call reads, so that a write ends it; null where it is not known to read only. */
  readonly resource: string | null;
  /** Until when its leader waits for a permit. */
  readonly untilMs: number;
  /** Of its leader. */
  readonly authority: string;
}

export class Flight {
  readonly key: string;
  readonly resource: string | null;
  readonly untilMs: number;
  readonly admissions: Admissions;
  readonly #outcome = Promise.withResolvers<Outcome>();
  readonly #company = Promise.withResolvers<void>();
  #seenAtMs = Date.now();
  /** When its call got its permit. */
  #calledAtMs: number | null = null;
  /** Those who came to wait, in all. */
  #joined = 0;
  readonly #doors: (() => void)[] = [];
  #hasLanded = false;
  hasCompany = false;

  constructor({ key, resource, untilMs, authority }: FlightSpec) {
    this.key = key;
    this.resource = resource;
    this.untilMs = untilMs;
    this.admissions = new Admissions(authority);
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

  /** The call has its permit: from then on it is only waited for. */
  get isCalling(): boolean {
    return this.#calledAtMs !== null;
  }

  /** Whether somebody waits for it still, as far as one can tell: who waits and goes away says nothing. */
  get isAwaited(): boolean {
    return this.hasCompany && !this.#hasLanded;
  }

  callBegins(): void {
    this.#calledAtMs = Date.now();
  }

  /**
   * Resolves when those have joined who were on their way. A herd comes in over
   * many turns of the isolate, and an answer may come between two of them: it
   * goes out once a turn brings nobody new, after as long as its call took at
   * most. Resolves with how long it was held back, in milliseconds.
   */
  async gathered(): Promise<number> {
    const nowMs = Date.now();
    const untilMs = nowMs + Math.min(FLIGHT_GATHER_MS_MAX, nowMs - (this.#calledAtMs ?? nowMs));
    for (let before = 0; before < this.#joined && Date.now() < untilMs;) {
      before = this.#joined;
      await new Promise((resolve) => setTimeout(resolve, 0));
    }
    return Date.now() - nowMs;
  }

  land(outcome: Outcome): void {
    this.#hasLanded = true;
    this.#outcome.resolve(outcome);
  }

  /** Called when nobody joins any more. */
  onForgotten(close: () => void): void {
    this.#doors.push(close);
  }

  forget(): void {
    for (const close of this.#doors.splice(0)) close();
  }

  /** Whether one so patient need not look at the clock: the leader has no more patience. */
  outlasts(untilMs: number): boolean {
    return this.isCalling || untilMs >= this.untilMs;
  }

  /** What comes of it. */
  async follow(untilMs: number): Promise<Outcome | Left> {
    this.#joined++;
    try {
      // What belongs to a request that has ended complains when it is told something.
      if (!this.hasCompany) {
        const known = await Promise.race([this.outcome, Promise.resolve(null)]);
        if (known !== null) return known;
        this.hasCompany = true;
        this.#company.resolve();
      }
      if (this.outlasts(untilMs)) return await this.outcome;
      const outcome = await within(this.outcome, untilMs - Date.now());
      return outcome ?? (this.isCalling ? await this.outcome : { kind: "late" });
    } catch {
      return { kind: "gone" };
    }
  }
}

const flights = new Map<string, Flight>();

export const flightOf = (key: string): Flight | undefined => flights.get(key);

/** A new flight, which its maker leads. */
export function newFlight(spec: FlightSpec): Flight {
  const flight = new Flight(spec);
  // One whose request ended alone has nobody to take it away.
  for (const old of flights.values()) {
    if (!old.isSilent) break;
    forgetFlight(old);
  }
  flights.set(spec.key, flight);
  return flight;
}

export function landFlight(flight: Flight, outcome: Outcome): void {
  forgetFlight(flight);
  flight.land(outcome);
}

/** Nobody joins it any more. */
export function forgetFlight(flight: Flight): void {
  if (flights.get(flight.key) !== flight) return;
  flights.delete(flight.key);
  flight.forget();
}

/** A write has been answered: nobody joins calls any more that may have read what was before. */
export function forgetReadsOf(resource: string): void {
  for (const flight of flights.values()) if (flight.resource === resource) forgetFlight(flight);
}

export function forgetAllReads(): void {
  for (const flight of flights.values()) forgetFlight(flight);
}
