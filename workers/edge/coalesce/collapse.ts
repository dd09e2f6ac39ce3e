/**
 * One of many equal calls, from its key to its answer. In this isolate the
 * first leads, and asks the shard of flights whether it leads over all
 * isolates too. Those who wait hold no permit and pay nothing: whoever calls
 * does. What one may not see, its own permissions say, not the leader's.
 */
import { type Failure, failure } from "../../../shared/errors.ts";
import { FLIGHT_BEAT_MS, FLIGHT_FAILURES_MAX } from "../../../shared/limits-flight.ts";
import { readKeyOf } from "../../../shared/protocol/flight.ts";
import type { FlightNews, FlightRpc, SeatRpc, WholeAnswer } from "../../../shared/rpc-flight.ts";
import { NO_BODY_STATUSES, type Witness } from "../proxy/attempt.ts";
import { problem } from "../reply.ts";
import { type Admission, type Flight, flightOf, forgetFlight, landFlight, newFlight, type Outcome, within } from "./flights.ts";
import { hashOf } from "./key.ts";
import { ageSecondsOf, sharingOf } from "./sharing.ts";

/** A refusal is not asked for again within so long. */
const ADMITTED_MS = 1_000;
const BEATS_A_RENEWAL = 4;

export interface Collapsing {
  readonly key: string;
  readonly method: string;
  /** What it reads; null for a call that may write. */
  readonly resource: () => string | null;
  readonly shard: (name: string) => FlightRpc;
  readonly waitUntil: (work: Promise<unknown>) => void;
  /** Until when the caller waits for a permit. */
  readonly untilMs: number;
  /** Whom the answer is for, as far as permissions go. */
  readonly authority: string;
  readonly refusal: () => Promise<Failure | null>;
  /** Makes the call. Without a witness nobody else hears of it. */
  readonly make: (witness: Witness | null) => Promise<Response>;
  /** Answers a call that got no permit in time. */
  readonly refused: (fault: Failure) => Response | Promise<Response>;
}

/** Where the isolate's leader is among those of all isolates; no seat as long as it has none. */
interface Place {
  seat: SeatRpc | null;
}

export async function collapse(one: Collapsing): Promise<Response> {
  for (let failures = 0; failures < FLIGHT_FAILURES_MAX;) {
    const flight = flightOf(one.key);
    if (flight === undefined) return lead(one, newFlight(one.key, one.resource()));
    // Both at once: what it may see is known by the time that there is something to see.
    const [refusal, outcome] = await Promise.all([refusalOf(one, flight), flight.follow(one.untilMs)]);
    if (refusal !== null) return problem(refusal);
    if (outcome.kind === "answer") return shared(one, outcome);
    if (outcome.kind === "late") return one.refused(late());
    if (outcome.kind === "alone") break;
    if (outcome.kind === "failed") failures++;
    else forgetFlight(one.key, flight);
  }
  return one.make(null);
}

const late = (): Failure =>
  failure(
    "temporary_reduced_capacity",
    "an equal call has no permit yet, and this one waited as long as it was let; Prefer: wait=n says how long",
  );

/** Asked once for all callers with the same authority that come together. */
async function refusalOf({ authority, refusal }: Collapsing, flight: Flight): Promise<Failure | null> {
  const nowMs = Date.now();
  const known = flight.admitted.get(authority);
  if (known !== undefined && nowMs - known.atMs < ADMITTED_MS) {
    if (known.verdict !== undefined) return known.verdict;
    // Whoever asked may go before there is an answer.
    const theirs = await within(known.asked, ADMITTED_MS).catch(() => null);
    if (theirs !== null) return theirs.refusal;
  }
  const admission: Admission = { atMs: nowMs, asked: refusal().then((found) => ({ refusal: found })) };
  flight.admitted.set(authority, admission);
  admission.verdict = (await admission.asked).refusal;
  return admission.verdict;
}

/** The isolate's own leader. */
async function lead(one: Collapsing, flight: Flight): Promise<Response> {
  const { key, waitUntil } = one;
  const place: Place = { seat: null };
  let beats = 0;
  const beating = setInterval(() => {
    flight.beat();
    if (++beats % BEATS_A_RENEWAL === 0) void renew(key, flight, place);
  }, FLIGHT_BEAT_MS);
  const land = (outcome: Outcome): void => {
    clearInterval(beating);
    landFlight(key, flight, outcome);
  };
  // Once somebody waits for it, the call goes on without its own caller.
  void flight.company.then(() => waitUntil(flight.outcome));
  try {
    const news = await join(one, flight, place);
    if (news.kind === "lead") return await makeCall(one, flight, place.seat, land);
    letGo(place.seat);
    if (news.kind === "alone") {
      land(news);
      return await one.make(null);
    }
    const outcome = { ...news, headers: new Headers(news.answer.headers as [string, string][]) };
    land(outcome);
    const refusal = await one.refusal();
    return refusal === null ? shared(one, outcome) : problem(refusal);
  } catch (error) {
    land({ kind: "failed" });
    throw error;
  }
}

/** Its place among all isolates. A shard that is lost while it is asked cannot stop a call. */
async function join({ key, shard }: Collapsing, { resource }: Flight, place: Place): Promise<FlightNews> {
  const [hash, name] = await Promise.all([hashOf(key), resource === null ? null : hashOf(resource)]);
  try {
    const joining = shard(name ?? hash).join(name === null ? hash : readKeyOf(name, hash));
    // One message asks for the place and waits.
    const seated = joining.then((seat) => (place.seat = seat));
    const [, news] = await Promise.all([seated, (joining as unknown as SeatRpc).turn()]);
    return news;
  } catch (error) {
    console.warn(`a shard of flights did not answer: ${String(error)}`);
    place.seat = null;
    return { kind: "lead" };
  }
}

/** Shows that it is there. Where it is too late to be joined over all isolates, it is here too. */
async function renew(key: string, flight: Flight, { seat }: Place): Promise<void> {
  // A shard that has gone holds nothing any more.
  if ((await seat?.renew().catch(() => undefined)) === false) forgetFlight(key, flight);
}

/** Tells the shard that nothing more will be said. */
function letGo(seat: SeatRpc | null): void {
  (seat as Partial<Disposable> | null)?.[Symbol.dispose]?.();
}

async function makeCall(one: Collapsing, flight: Flight, seat: SeatRpc | null, land: (outcome: Outcome) => void): Promise<Response> {
  let hasHead = false;
  let isAwaited: Promise<boolean> = Promise.resolve(false);
  const end = (how: "failed" | "alone"): void => {
    land({ kind: how });
    if (seat !== null) one.waitUntil(closing(seat, seat.end(how)));
  };
  const witness: Witness = {
    opened: ({ isUnshared }) => {
      flight.isCalling = true;
      flight.admitted.set(one.authority, { atMs: Date.now(), asked: Promise.resolve({ refusal: null }), verdict: null });
      if (isUnshared === true) end("alone");
      return isUnshared !== true;
    },
    head: (status, headers) => {
      hasHead = true;
      const sharing = sharingOf(one.method, status, headers, Date.now());
      if (sharing.kind !== "shared") {
        end(sharing.kind);
        return false;
      }
      // Its caller is about to see it, and what is asked from then on must not be answered by it.
      forgetFlight(one.key, flight);
      if (seat !== null) isAwaited = seat.landed(sharing.freshMs).catch(() => false);
      return true;
    },
    isWanted: () => flight.hasCompany,
    tooLarge: () => end("alone"),
    whole: (answer) => {
      land({ kind: "answer", answer, headers: new Headers(answer.headers as [string, string][]), ageMs: null });
      if (seat !== null) one.waitUntil(closing(seat, give(seat, answer, isAwaited)));
    },
    broke: () => end("failed"),
  };
  const response = await one.make(witness);
  if (hasHead) response.headers.append("cache-status", "drover; fwd=miss");
  else end("failed");
  return response;
}

/** A body crosses to the shard only where somebody wants it. */
async function give(seat: SeatRpc, answer: WholeAnswer, isAwaited: Promise<boolean>): Promise<void> {
  if (await isAwaited) await seat.give(answer);
}

/** A shard that has gone waits for nothing. */
async function closing(seat: SeatRpc, said: Promise<void>): Promise<void> {
  await said.catch(() => undefined);
  letGo(seat);
}

/** Somebody else's answer. */
function shared({ method }: Collapsing, { answer, headers, ageMs }: Extract<Outcome, { kind: "answer" }>): Response {
  const { status, body } = answer;
  const own = new Headers(headers);
  own.append("cache-status", ageMs === null ? "drover; collapsed" : "drover; hit");
  if (ageMs !== null) own.set("age", String(ageSecondsOf(headers) + Math.floor(ageMs / 1_000)));
  const isEmpty = method === "HEAD" || NO_BODY_STATUSES.has(status);
  return new Response(isEmpty ? null : body, { status, headers: own, encodeBody: "manual" });
}
