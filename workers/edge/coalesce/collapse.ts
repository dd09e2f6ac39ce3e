/**
 * One of many equal calls, from its key to its answer. In this isolate the
 * first leads, and asks the shard of flights whether it leads over all
 * isolates too. Those who wait hold no permit and pay nothing: whoever calls
 * does. What one may not see, its own permissions say, not the leader's.
 */
import { type Failure, failure } from "../../../shared/errors.ts";
import { FLIGHT_BEAT_MS, FLIGHT_FAILURES_MAX } from "../../../shared/limits-flight.ts";
import { flightShardOf, readKeyOf } from "../../../shared/protocol/flight.ts";
import type { FlightNews, FlightRpc, SeatRpc, WholeAnswer } from "../../../shared/rpc-flight.ts";
import type { Witness } from "../proxy/attempt.ts";
import { whenLeft } from "../left.ts";
import { problem } from "../reply.ts";
import { responseOf, sharedAnswer } from "./answer.ts";
import { leaveSeat, seatName, speakFor, takeSeat } from "./beats.ts";
import { type Flight, flightOf, forgetFlight, landFlight, newFlight, type Outcome } from "./flights.ts";
import { hashOf } from "./key.ts";
import { sharingOf } from "./sharing.ts";
import { type Waiting, waitFor } from "./waiting.ts";

export interface Collapsing {
  readonly key: string;
  readonly method: string;
  /** What it reads; null for a call that may write. */
  readonly resource: () => string | null;
  readonly shard: (number: number) => FlightRpc;
  readonly waitUntil: (work: Promise<unknown>) => void;
  /** The caller has gone. */
  readonly left: AbortSignal;
  /** Until when the caller waits for a permit. */
  readonly untilMs: number;
  readonly waiting: Waiting;
  /** Calls that came to nothing while this one waited for them already. */
  readonly failures: number;
  /** Hears of the flight that it is in, its own or another's. */
  readonly joins: (flight: Flight) => void;
  /** Makes the call. Without a witness nobody else hears of it. */
  readonly make: (witness: Witness | null) => Promise<Response>;
  /** Answers a call that got no permit in time. */
  readonly refused: (fault: Failure) => Response | Promise<Response>;
}

/** Where the isolate's leader is among those of all isolates; no seat as long as it has none. */
interface Place {
  seat: SeatRpc | null;
  shard: number;
  name: string;
}

export async function collapse(one: Collapsing): Promise<Response> {
  const { key, untilMs, waiting } = one;
  for (let { failures } = one; failures < FLIGHT_FAILURES_MAX && !one.left.aborted;) {
    const flight = flightOf(key);
    if (flight === undefined) {
      const own = newFlight({ key, resource: one.resource(), untilMs, authority: waiting.authority });
      one.joins(own);
      return lead(one, own);
    }
    one.joins(flight);
    const found = await waitFor(flight, waiting, untilMs);
    if (found instanceof Response) return found;
    if (found === "late") return one.refused(late());
    if (found === "alone") break;
    if (found === "failed") failures++;
    else forgetFlight(flight);
  }
  return one.make(null);
}

const late = (): Failure =>
  failure(
    "temporary_reduced_capacity",
    "an equal call has no permit yet, and this one waited as long as it was let; Prefer: wait=n says how long",
  );

/** The isolate's own leader. */
async function lead(one: Collapsing, flight: Flight): Promise<Response> {
  const { method, waitUntil, waiting } = one;
  const place: Place = { seat: null, shard: 0, name: "" };
  const beating = setInterval(() => {
    flight.beat();
    if (place.seat === null) return;
    // Whoever was late was taken for gone.
    takeSeat(place.shard, place.name, flight);
    const speaking = speakFor(place.shard, one.shard);
    // The others are told what came of it, though this one ends meanwhile.
    if (speaking !== null) waitUntil(speaking);
  }, FLIGHT_BEAT_MS);
  const land = (outcome: Outcome): void => {
    clearInterval(beating);
    leaveSeat(place.shard, place.name);
    landFlight(flight, outcome);
  };
  // Once somebody waits for it, the call goes on without its own caller.
  void flight.company.then(() => waitUntil(flight.outcome));
  whenLeft(one.left, () => {
    if (!flight.hasCompany) land({ kind: "failed" });
  });
  try {
    const news = await join(one, flight, place);
    if (news.kind === "lead") return await makeCall(one, flight, place.seat, land);
    letGo(place.seat);
    if (news.kind === "alone") {
      land(news);
      return await one.make(null);
    }
    const refusal = await waiting.refusal();
    flight.admissions.leaderHas(refusal);
    const answer = sharedAnswer(method, news.answer, news.ageMs);
    land({ kind: "answer", answer });
    return refusal === null ? responseOf(answer) : problem(refusal);
  } catch (error) {
    land({ kind: "failed" });
    throw error;
  }
}

/** Its place among all isolates. A shard that is lost while it is asked cannot stop a call. */
async function join({ shard }: Collapsing, flight: Flight, place: Place): Promise<FlightNews> {
  const { key, resource } = flight;
  const [hash, name] = await Promise.all([hashOf(key), resource === null ? null : hashOf(resource)]);
  place.shard = flightShardOf(name ?? hash);
  place.name = seatName();
  try {
    const joining = shard(place.shard).join(name === null ? hash : readKeyOf(name, hash), place.name);
    // One message asks for the place and waits.
    const seated = joining.then((seat) => {
      place.seat = seat;
      takeSeat(place.shard, place.name, flight);
    });
    const [, news] = await Promise.all([seated, (joining as unknown as SeatRpc).turn()]);
    return news;
  } catch (error) {
    console.warn(`a shard of flights did not answer: ${String(error)}`);
    place.seat = null;
    return { kind: "lead" };
  }
}

/** Tells the shard that nothing more will be said. */
function letGo(seat: SeatRpc | null): void {
  (seat as Partial<Disposable> | null)?.[Symbol.dispose]?.();
}

async function makeCall(one: Collapsing, flight: Flight, seat: SeatRpc | null, land: (outcome: Outcome) => void): Promise<Response> {
  let hasHead = false;
  let isAwaited: Promise<boolean> = Promise.resolve(false);
  const end = (how: "failed" | "alone"): void => {
    const hasLeft = one.left.aborted && !flight.isAwaited;
    land({ kind: how });
    // That its caller went away is no failure of its call.
    if (hasLeft) letGo(seat);
    else if (seat !== null) one.waitUntil(closing(seat, seat.end(how)));
  };
  const witness: Witness = {
    opened: ({ isUnshared }) => {
      flight.callBegins();
      flight.admissions.leaderHas(null);
      if (isUnshared === true) end("alone");
      return isUnshared !== true;
    },
    head: async (status, headers) => {
      hasHead = true;
      const sharing = sharingOf(one.method, status, headers, Date.now());
      if (sharing.kind !== "shared") {
        end(sharing.kind);
        return false;
      }
      const heldMs = await flight.gathered();
      // Its caller is about to see it, and what is asked from then on must not be answered by it.
      forgetFlight(flight);
      if (seat !== null) isAwaited = seat.landed(Math.max(0, sharing.freshMs - heldMs)).catch(() => false);
      return true;
    },
    isWanted: () => flight.isAwaited,
    tooLarge: () => end("alone"),
    whole: (answer) => {
      land({ kind: "answer", answer: sharedAnswer(one.method, answer, null) });
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
