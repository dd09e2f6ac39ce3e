/**
 * What becomes of equal calls: `apply(state, nowMs, request)`. The first one
 * leads and makes the call; the others wait for its answer, or for its end.
 * One whose leader is gone, or failed, leads next. What is for one caller alone
 * lets all go at once, so that nobody waits in vain one after the other.
 */
import {
  FLIGHT_ALONE_MS,
  FLIGHT_FAILURES_MAX,
  FLIGHT_KEPT_BYTES_MAX,
  FLIGHT_WAITING_MAX,
  FLIGHTS_MAX,
} from "../../../shared/limits-flight.ts";
import { REGISTRY_AGE_MS_MAX } from "../../../shared/limits.ts";
import { reads } from "../../../shared/protocol/flight.ts";
import { type Flight, type Flights, newFlight } from "./state.ts";

export type Request<P, A> =
  | { readonly kind: "join"; readonly key: string; readonly place: P }
  /** The leader is still there. */
  | { readonly kind: "renew"; readonly key: string; readonly place: P }
  /** The leader's call failed, or its answer is for nobody else. */
  | { readonly kind: "end"; readonly key: string; readonly place: P; readonly how: "failed" | "alone" }
  /** The leader's answer begins to come, and stays fresh for so long. */
  | { readonly kind: "landed"; readonly key: string; readonly place: P; readonly freshMs: number }
  | { readonly kind: "give"; readonly key: string; readonly place: P; readonly answer: A; readonly bytes: number }
  /** Whoever has the place has gone. */
  | { readonly kind: "leave"; readonly key: string; readonly place: P }
  /** A write has changed what calls of this resource read. */
  | { readonly kind: "written"; readonly resource: string }
  /** An upstream is another one now, or none. */
  | { readonly kind: "changed" }
  | { readonly kind: "tick" };

export type What<A> =
  | { readonly kind: "lead" }
  | { readonly kind: "answer"; readonly answer: A; readonly ageMs: number | null }
  | { readonly kind: "alone" };

export interface News<P, A> {
  readonly key: string;
  readonly place: P;
  readonly what: What<A>;
}

export interface Reply<P, A> {
  /** Whom to tell what. */
  readonly news: News<P, A>[];
  /** Whether the leader is one still, whoever waits is waiting still, or an answer is wanted. */
  readonly holds: boolean;
}

export function apply<P, A>(state: Flights<P, A>, nowMs: number, request: Request<P, A>): Reply<P, A> {
  const news: News<P, A>[] = [];
  if (request.kind === "tick") {
    tick(state, nowMs, news);
    return { news, holds: false };
  }
  if (request.kind === "written" || request.kind === "changed") {
    if (request.kind === "changed") state.changesUntilMs = nowMs + REGISTRY_AGE_MS_MAX;
    outdate(state, (key) => request.kind === "changed" || reads(key, request.resource));
    return { news, holds: false };
  }
  if (request.kind === "join") {
    join(state, nowMs, request.key, request.place, news);
    return { news, holds: true };
  }
  const flight = ledBy(state, request.key, request.place);
  if (flight !== undefined) return { news, holds: lead(state, nowMs, flight, request, news) };
  // Whoever was taken to be gone has nothing to say any more.
  if (request.kind === "leave") leaveQueue(state, request.key, request.place);
  return { news, holds: request.kind === "renew" && state.flights.get(request.key)?.waiting.has(request.place) === true };
}

function ledBy<P, A>({ flights, landing }: Flights<P, A>, key: string, place: P): Flight<P> | undefined {
  const flight = flights.get(key);
  return flight?.leader === place ? flight : landing.get(place)?.flight;
}

function leaveQueue<P, A>(state: Flights<P, A>, key: string, place: P): void {
  if (state.flights.get(key)?.waiting.delete(place) === true) state.waiting--;
  for (const { flight } of state.landing.values()) if (flight.waiting.delete(place)) state.waiting--;
}

/** What a leader says. */
function lead<P, A>(
  state: Flights<P, A>,
  nowMs: number,
  flight: Flight<P>,
  request: Exclude<Request<P, A>, { kind: "join" | "written" | "changed" | "tick" }>,
  news: News<P, A>[],
): boolean {
  const { key } = request;
  switch (request.kind) {
    case "renew":
      flight.leaseUntilMs = nowMs + state.leaseMs;
      return !flight.isOutdated;
    case "end":
      if (request.how === "alone") {
        state.alone.delete(key);
        state.alone.set(key, nowMs + FLIGHT_ALONE_MS);
      }
      if (request.how === "failed" && ++flight.failures < FLIGHT_FAILURES_MAX) pass(state, nowMs, key, flight, news);
      else close(state, key, flight, { kind: "alone" }, news);
      return false;
    case "landed":
      flight.freshMs = flight.isOutdated || flight.beganAtMs < state.changesUntilMs ? 0 : request.freshMs;
      flight.landedAtMs = nowMs;
      flight.leaseUntilMs = nowMs + state.leaseMs;
      take(state, key, flight);
      if (flight.waiting.size === 0 && flight.freshMs === 0) return false;
      state.landing.set(request.place, { key, flight });
      return true;
    case "give":
      keep(state, nowMs, key, flight, request.answer, request.bytes);
      close(state, key, flight, { kind: "answer", answer: request.answer, ageMs: null }, news);
      return false;
    case "leave":
      pass(state, nowMs, key, flight, news);
      return false;
  }
}

function join<P, A>(state: Flights<P, A>, nowMs: number, key: string, place: P, news: News<P, A>[]): void {
  const kept = state.kept.get(key);
  if (kept !== undefined && kept.untilMs > nowMs) {
    news.push({ key, place, what: { kind: "answer", answer: kept.answer, ageMs: nowMs - kept.atMs } });
    return;
  }
  const flight = state.flights.get(key);
  if (flight?.leader === place) {
    news.push({ key, place, what: { kind: "lead" } });
    return;
  }
  // Asked again.
  if (flight?.waiting.has(place) === true) return;
  const isFull = flight === undefined ? state.flights.size >= FLIGHTS_MAX : state.waiting >= FLIGHT_WAITING_MAX;
  if (isFull || (state.alone.get(key) ?? 0) > nowMs) {
    news.push({ key, place, what: { kind: "alone" } });
    return;
  }
  if (flight === undefined) {
    state.flights.set(key, newFlight(place, nowMs, nowMs + state.leaseMs));
    news.push({ key, place, what: { kind: "lead" } });
    return;
  }
  flight.waiting.add(place);
  state.waiting++;
  if (flight.leaseUntilMs <= nowMs) pass(state, nowMs, key, flight, news);
}

/** Out of whatever it is in. */
function take<P, A>(state: Flights<P, A>, key: string, flight: Flight<P>): void {
  if (state.flights.get(key) === flight) state.flights.delete(key);
  state.landing.delete(flight.leader);
}

/** The next one leads, or all who wait join those who have come since. */
function pass<P, A>(state: Flights<P, A>, nowMs: number, key: string, flight: Flight<P>, news: News<P, A>[]): void {
  take(state, key, flight);
  const newer = state.flights.get(key);
  if (newer !== undefined) {
    for (const place of flight.waiting) newer.waiting.add(place);
    return;
  }
  const [next] = flight.waiting;
  if (next === undefined) return;
  state.flights.set(key, flight);
  flight.waiting.delete(next);
  state.waiting--;
  flight.leader = next;
  flight.beganAtMs = nowMs;
  flight.isOutdated = false;
  flight.leaseUntilMs = nowMs + state.leaseMs;
  news.push({ key, place: next, what: { kind: "lead" } });
}

/** Everybody who waits hears the same, at once. */
function close<P, A>(state: Flights<P, A>, key: string, flight: Flight<P>, what: What<A>, news: News<P, A>[]): void {
  for (const place of flight.waiting) news.push({ key, place, what });
  state.waiting -= flight.waiting.size;
  take(state, key, flight);
}

/** It is as old as its head, however long its body took. */
function keep<P, A>(state: Flights<P, A>, nowMs: number, key: string, { freshMs, landedAtMs }: Flight<P>, answer: A, bytes: number): void {
  const untilMs = landedAtMs + freshMs;
  if (untilMs <= nowMs) return;
  drop(state, key);
  state.kept.set(key, { answer, bytes, atMs: landedAtMs, untilMs });
  state.keptBytes += bytes;
  for (const oldest of state.kept.keys()) {
    if (state.keptBytes <= FLIGHT_KEPT_BYTES_MAX && state.kept.size <= FLIGHTS_MAX) return;
    drop(state, oldest);
  }
}

function drop<P, A>(state: Flights<P, A>, key: string): void {
  const kept = state.kept.get(key);
  if (kept === undefined) return;
  state.kept.delete(key);
  state.keptBytes -= kept.bytes;
}

/** What is kept goes, what comes from calls that have begun is not kept, and who asks from now on does not wait for it. */
function outdate<P, A>(state: Flights<P, A>, isMeant: (key: string) => boolean): void {
  for (const key of state.kept.keys()) if (isMeant(key)) drop(state, key);
  for (const [key, flight] of state.flights) {
    if (!isMeant(key)) continue;
    state.flights.delete(key);
    state.landing.set(flight.leader, { key, flight });
  }
  for (const { key, flight } of state.landing.values()) {
    if (!isMeant(key)) continue;
    flight.isOutdated = true;
    flight.freshMs = 0;
  }
}

/** What time alone brings about. */
function tick<P, A>(state: Flights<P, A>, nowMs: number, news: News<P, A>[]): void {
  for (const [key, flight] of state.flights) if (flight.leaseUntilMs <= nowMs) pass(state, nowMs, key, flight, news);
  for (const { key, flight } of state.landing.values()) if (flight.leaseUntilMs <= nowMs) pass(state, nowMs, key, flight, news);
  for (const [key, { untilMs }] of state.kept) if (untilMs <= nowMs) drop(state, key);
  for (const [key, untilMs] of state.alone) {
    if (untilMs > nowMs && state.alone.size <= FLIGHTS_MAX) break;
    state.alone.delete(key);
  }
}

/** Whether anything is left that time brings about. */
export function isIdle({ flights, landing, kept, alone }: Flights<unknown, unknown>): boolean {
  return flights.size + landing.size + kept.size + alone.size === 0;
}
