/** Starts under a rate, by GCRA (ITU-T I.371) with a burst of one slice. */
import { RATE_SLICE_MS } from "../../../shared/limits.ts";
import type { Governor } from "./state.ts";

const rateOf = ({ upstream }: Governor): number | null => upstream?.ratePerSecond ?? null;

/** Calls that may start now; null where there is no rate. */
export function rateRoom(governor: Governor, nowMs: number): number | null {
  const rate = rateOf(governor);
  if (rate === null) return null;
  const intervalMs = 1_000 / rate;
  const burstMs = Math.max(RATE_SLICE_MS, intervalMs);
  return Math.max(0, Math.floor((nowMs + burstMs - Math.max(governor.arrivalMs, nowMs)) / intervalMs));
}

/** `count` starts are given; a negative one gives back what was not used. */
export function spendRate(governor: Governor, count: number, nowMs: number): void {
  const rate = rateOf(governor);
  if (rate === null) return;
  const from = count > 0 ? Math.max(governor.arrivalMs, nowMs) : governor.arrivalMs;
  governor.arrivalMs = from + (count * 1_000) / rate;
}

/** When the rate allows the next start; 0 where there is no rate. */
export function rateOpensAtMs(governor: Governor): number {
  const rate = rateOf(governor);
  if (rate === null) return 0;
  const intervalMs = 1_000 / rate;
  return governor.arrivalMs + intervalMs - Math.max(RATE_SLICE_MS, intervalMs);
}
