/**
 * Full jitter: U(0, min(cap, base · 2ⁿ)), as in "Exponential Backoff And
 * Jitter" (M. Brooker, AWS Architecture Blog, 2015). Chance comes in as a seed,
 * so that a decision can be replayed.
 */
import { assert } from "../assert.ts";
import { RETRY_BASE_MS, RETRY_CAP_MS } from "../limits.ts";

/** A number in [0, 1) from a seed and two integers: the finaliser of MurmurHash3 (A. Appleby). */
export function chance(seed: number, a: number, b: number): number {
  let h = Math.imul(seed ^ Math.imul(a, 0x9e3779b1), 0x85ebca6b) ^ Math.imul(b + 1, 0xc2b2ae35);
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return ((h ^ (h >>> 16)) >>> 0) / 2 ** 32;
}

/** How long to wait after the `failures`-th failure (1 is the first). `chance01` is in [0, 1). */
export function backoffMs(failures: number, chance01: number): number {
  assert(failures >= 1 && chance01 >= 0 && chance01 < 1, "backoff takes a count from 1 and a chance in [0, 1)");
  const ceiling = Math.min(RETRY_CAP_MS, RETRY_BASE_MS * 2 ** Math.min(failures - 1, 30));
  return Math.floor(chance01 * ceiling);
}
