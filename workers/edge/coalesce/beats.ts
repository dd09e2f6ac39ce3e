/**
 * How leaders of this isolate show their shards that they are there. Thousands
 * may wait for permits at once, so the first whose time has come speaks for all
 * that have a seat at its shard. Whether a leader is there still its own
 * request says: one that has ended beats no more.
 */
import { FLIGHT_BEAT_MS } from "../../../shared/limits-flight.ts";
import type { FlightRpc } from "../../../shared/rpc-flight.ts";
import { type Flight, forgetFlight } from "./flights.ts";

interface Shard {
  saidAtMs: number;
  readonly seats: Map<string, Flight>;
}

const shards = new Map<number, Shard>();
/** Nothing may be random before the first request. */
let isolate = "";
let named = 0;

/** A name for a seat, which no other isolate gives. */
export function seatName(): string {
  isolate ||= crypto.randomUUID();
  return `${isolate}-${++named}`;
}

/** The flight's leader has this seat now. */
export function takeSeat(shard: number, seat: string, flight: Flight): void {
  const one = shards.get(shard);
  if (one === undefined) {
    shards.set(shard, { saidAtMs: Date.now(), seats: new Map([[seat, flight]]) });
    return;
  }
  // One whose request ended alone has nobody to take it away.
  for (const [old, { isSilent }] of one.seats) {
    if (!isSilent) break;
    one.seats.delete(old);
  }
  one.seats.set(seat, flight);
}

export function leaveSeat(shard: number, seat: string): void {
  const one = shards.get(shard);
  one?.seats.delete(seat);
  if (one?.seats.size === 0) shards.delete(shard);
}

/**
 * Says for all seats at the shard that they are taken; null where somebody has
 * just done so. Whoever is too late to be joined over all isolates, is it here
 * too. Never rejects.
 */
export function speakFor(shard: number, rpcOf: (shard: number) => FlightRpc): Promise<void> | null {
  const one = shards.get(shard);
  if (one === undefined || Date.now() - one.saidAtMs < FLIGHT_BEAT_MS / 2) return null;
  for (const [seat, { isSilent }] of one.seats) if (isSilent) one.seats.delete(seat);
  return speak(one, rpcOf(shard));
}

async function speak(shard: Shard, rpc: FlightRpc): Promise<void> {
  const { saidAtMs, seats } = shard;
  shard.saidAtMs = Date.now();
  try {
    for (const seat of await rpc.renew([...seats.keys()])) {
      const flight = seats.get(seat);
      if (flight !== undefined) forgetFlight(flight);
    }
  } catch {
    // A shard that has gone holds nothing any more; where only the message was lost, the next one says it again.
    shard.saidAtMs = saidAtMs;
  }
}
