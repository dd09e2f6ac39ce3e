/** The bounds of equal calls in flight: a part of `limits.ts`, as what is asserted about them. */
import { assert } from "./assert.ts";
import { PLATFORM_RPC_BYTES_MAX } from "./limits.ts";

/** Objects that a tenant's flights are spread over, by their keys. */
export const FLIGHT_SHARDS = 16;
/** A leader that says nothing for so long is taken to be gone. */
export const FLIGHT_LEASE_MS = 4_000;
/** After so many failures in a row nobody waits for another one. */
export const FLIGHT_FAILURES_MAX = 3;
/** Larger answers are neither shared nor kept. */
export const FLIGHT_ANSWER_BYTES_MAX = 1_048_576;
/** An answer is held back for so long at most while a herd comes in. */
export const FLIGHT_GATHER_MS_MAX = 1_000;
/** Fresh answers that one shard keeps, in all. */
export const FLIGHT_KEPT_BYTES_MAX = 16_777_216;
export const FLIGHT_FRESH_MS_MAX = 3_600_000;
/** So long after an answer that was for one caller alone, calls like it do not wait for one another. */
export const FLIGHT_ALONE_MS = 120_000;
/** Flights of one shard, and who waits in them. Beyond it everybody makes a call of its own. */
export const FLIGHTS_MAX = 10_000;
export const FLIGHT_WAITING_MAX = 20_000;
/** How often a leader shows that it is there, to its isolate and its shard. Thousands may wait for permits, and each of them does. */
export const FLIGHT_BEAT_MS = 1_000;
/** Larger bodies of calls that ask to be coalesced are passed on as they are. */
export const FLIGHT_BODY_BYTES_MAX = 1_048_576;
/** As FLIGHT_LEASE_MS, for goals; what they lead and wait for they say again three times as often. */
export const FLIGHT_GOAL_LEASE_MS = 15_000;
/** A longer result of a task is not told to other goals, which make a call of their own. */
export const FLIGHT_PAYLOAD_CHARS_MAX = 65_536;
/** Keys, and characters of results, in one message between a goal and a shard. */
export const FLIGHT_KEYS_PER_MESSAGE_MAX = 1_000;
export const FLIGHT_MESSAGE_CHARS_MAX = 4_000_000;

assert(4 * FLIGHT_BEAT_MS <= FLIGHT_LEASE_MS, "a leader must be heard of well before it is taken to be gone");
assert(FLIGHT_ANSWER_BYTES_MAX < PLATFORM_RPC_BYTES_MAX, "an answer that is shared must fit one RPC message");
assert(FLIGHT_MESSAGE_CHARS_MAX * 3 < PLATFORM_RPC_BYTES_MAX, "a message with results must fit one RPC message");
