/** Leaders of one isolate: one message speaks for all that have a seat at a shard, and for none that is gone. */
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { FLIGHT_BEAT_MS } from "../../shared/limits-flight.ts";
import type { FlightRpc } from "../../shared/rpc-flight.ts";
import { leaveSeat, seatName, speakFor, takeSeat } from "../../workers/edge/coalesce/beats.ts";
import { type Flight, flightOf, newFlight } from "../../workers/edge/coalesce/flights.ts";

const SHARD = 3;

beforeEach(() => vi.useFakeTimers());
afterEach(() => vi.useRealTimers());

const flightWith = (key: string): Flight => newFlight({ key, resource: null, untilMs: 60_000, authority: "root" });

/** A shard that takes those for gone that it is told of as `lost`. */
function shardThat(lost: readonly string[] = []): { readonly rpc: FlightRpc; readonly heard: (readonly string[])[] } {
  const heard: (readonly string[])[] = [];
  const renew = async (seats: readonly string[]): Promise<string[]> => {
    heard.push(seats);
    return seats.filter((seat) => lost.includes(seat));
  };
  return { rpc: { renew } as unknown as FlightRpc, heard };
}

function seated(key: string): { readonly flight: Flight; readonly seat: string } {
  const [flight, seat] = [flightWith(key), seatName()];
  takeSeat(SHARD, seat, flight);
  return { flight, seat };
}

test("the first whose time has come speaks for all seats of its shard, and the others need not", async () => {
  const [a, b] = [seated("a"), seated("b")];
  const { rpc, heard } = shardThat();
  vi.advanceTimersByTime(FLIGHT_BEAT_MS);
  for (const { flight } of [a, b]) {
    flight.beat();
    await speakFor(SHARD, () => rpc);
  }
  expect(heard).toEqual([[a.seat, b.seat]]);
  vi.advanceTimersByTime(FLIGHT_BEAT_MS);
  leaveSeat(SHARD, a.seat);
  await speakFor(SHARD, () => rpc);
  expect(heard.at(-1)).toEqual([b.seat]);
  leaveSeat(SHARD, b.seat);
});

test("nobody speaks for a leader that is not heard of any more", async () => {
  const [gone, there] = [seated("gone"), seated("there")];
  const { rpc, heard } = shardThat();
  for (let beats = 0; beats < 6; beats++) {
    vi.advanceTimersByTime(FLIGHT_BEAT_MS);
    there.flight.beat();
    await speakFor(SHARD, () => rpc);
  }
  expect(heard[0]).toEqual([gone.seat, there.seat]);
  expect(heard.at(-1)).toEqual([there.seat]);
  leaveSeat(SHARD, there.seat);
});

test("a call that nobody should join any more over all isolates is joined by nobody here", async () => {
  const [kept, lost] = [seated("kept"), seated("lost")];
  const { rpc } = shardThat([lost.seat]);
  vi.advanceTimersByTime(FLIGHT_BEAT_MS);
  await speakFor(SHARD, () => rpc);
  expect([flightOf("kept"), flightOf("lost")]).toEqual([kept.flight, undefined]);
});
