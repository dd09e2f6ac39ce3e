/** When the answer to a call goes out: those who were on their way have joined, and it waits for nobody else. */
import { expect, test } from "vitest";
import { type Flight, newFlight } from "../../workers/edge/coalesce/flights.ts";
import { delay } from "./executor-kit.ts";

const CALL_MS = 50;

/** A flight whose call has taken a while, and that so many wait for. */
async function flightWith(key: string, waiting: number): Promise<Flight> {
  const flight = newFlight({ key, resource: null, untilMs: Date.now() + 60_000, authority: "root" });
  flight.callBegins();
  for (let i = 0; i < waiting; i++) void flight.follow(0);
  await delay(CALL_MS);
  return flight;
}

/** Somebody joins in each turn of the isolate, so many turns long. */
function herdOf(flight: Flight, turns: number): { joined: number } {
  const herd = { joined: 0 };
  const next = (): void => {
    if (herd.joined === turns) return;
    herd.joined++;
    void flight.follow(0);
    setTimeout(next, 0);
  };
  setTimeout(next, 0);
  return herd;
}

test("where nobody waits for it an answer is not held back", async () => {
  const flight = await flightWith("lonely", 0);
  const herd = herdOf(flight, 1);
  await flight.gathered();
  expect(herd.joined).toBe(0);
});

test("an answer goes out when the whole of a herd has joined", async () => {
  const flight = await flightWith("herd", 3);
  const herd = herdOf(flight, 10);
  await flight.gathered();
  expect(herd.joined).toBe(10);
});

test("where a herd has no end an answer is held back no longer than its call took", async () => {
  const flight = await flightWith("endless", 3);
  const heldAtMs = Date.now();
  const herd = herdOf(flight, 100_000);
  await flight.gathered();
  const heldMs = Date.now() - heldAtMs;
  herd.joined = 100_000;
  expect(heldMs).toBeGreaterThanOrEqual(CALL_MS - 5);
  expect(heldMs).toBeLessThan(20 * CALL_MS);
});
