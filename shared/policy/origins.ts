/** Which origin of an upstream gets the next call. Chance comes in as a seed. */
import { chance } from "./backoff.ts";

export interface OriginLoad {
  /** Calls open there. */
  readonly open: number;
  /** What a call takes, about; 0 while unknown. */
  readonly latencyMs: number;
}

/**
 * The better of two random origins (Mitzenmacher, 2001), by calls open times
 * duration: equal numbers open would starve a fast origin beside a slow one.
 * `count` of the origins are in use, of them those at the places `usable`;
 * null, or none that exists, means all.
 */
export function chooseOrigin(origins: readonly OriginLoad[], count: number, usable: readonly number[] | null, seed: number): number {
  if (count === 1) return 0;
  const places = usable?.filter((place) => place < count) ?? [];
  const at = (n: number): number => (places.length === 0 ? n : places[n]!);
  const among = places.length === 0 ? count : places.length;
  const first = at(Math.floor(chance(seed, 1, 1) * among));
  if (among === 1) return first;
  const second = at((Math.floor(chance(seed, 1, 1) * among) + 1 + Math.floor(chance(seed, 2, 2) * (among - 1))) % among);
  return loadOf(origins[second]!) < loadOf(origins[first]!) ? second : first;
}

const loadOf = ({ open, latencyMs }: OriginLoad): number => (open + 1) * Math.max(latencyMs, 1);
