/** What goals and shards of flights tell one another about tasks that are equal over goals. */

import { FLIGHT_SHARDS } from "../limits-flight.ts";
import { shardOf } from "./lock.ts";

/** What has become of the call that a goal led: its result as JSON, or why there is none for others. */
export type FlightEnd = { readonly key: string } & ({ readonly payload: string } | { readonly how: "failed" | "left" | "alone" });

/** Said again, it changes nothing. */
export interface FlightMessage {
  readonly goalId: string;
  readonly shard: number;
  /** Keys of what it leads on. What it does not know that it leads it does not name, and others lead in time. */
  readonly renews: readonly string[];
  readonly ends: readonly FlightEnd[];
  /** Keys of what it has tasks for. What the answer does not name is waited for. */
  readonly asks: readonly string[];
}

export interface GoalFlightNews {
  /** Keys of the calls that the goal makes, for everybody. */
  readonly leads: readonly string[];
  readonly answers: readonly { readonly key: string; readonly payload: string }[];
  /** Keys of the calls that everybody makes for itself. */
  readonly alone: readonly string[];
}

/** The shard where calls meet that read the same, or are the same. */
export const flightShardOf = (name: string): number => shardOf(name, FLIGHT_SHARDS);

/** Keys of calls that read one resource begin with its name, so that a write to it finds them all. */
const prefixOf = (resource: string): string => `${resource}.`;
export const readKeyOf = (resource: string, call: string): string => prefixOf(resource) + call;
export const reads = (key: string, resource: string): boolean => key.startsWith(prefixOf(resource));
