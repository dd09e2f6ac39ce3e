/**
 * Whether origins can be reached, from what calls met (passive health). An
 * origin that failed a few times in a row rests. While others work, it is
 * tried again after its rest; while none does, the circuit is open: nothing is
 * sent but a probe now and then.
 */
import { CIRCUIT_FAILURES, ORIGIN_REST_MS, ORIGIN_REST_MS_MAX } from "../../../shared/limits.ts";
import type { OriginSample } from "../../../shared/protocol/admission.ts";

/** Refusals alone open the circuit only after nothing good came for so long, or twice a call's duration. */
const REFUSED_FOR_MS = 50;

interface OriginHealth {
  /** Failures since the last answer. */
  unavailable: number;
  refused: number;
  reachedAtMs: number;
  /** 0: it may be called. */
  restUntilMs: number;
  restMs: number;
}

export interface Health {
  origins: OriginHealth[];
  probedAtMs: number;
  /** The origin that is probed next. */
  next: number;
  isOpen: boolean;
  /** The limit when the circuit opened. */
  limitThen: number;
  /** Calls that may have been open then, and may hang. */
  boundThen: number;
}

export function newHealth(): Health {
  return { origins: [], probedAtMs: 0, next: 0, isOpen: false, limitThen: 0, boundThen: 0 };
}

const newOrigin = (): OriginHealth => ({ unavailable: 0, refused: 0, reachedAtMs: 0, restUntilMs: 0, restMs: 0 });

/** Other origins, another history. */
export function setOrigins(health: Health, count: number): void {
  health.origins = Array.from({ length: count }, newOrigin);
  health.isOpen = false;
}

/** Takes what a report says. Whether the circuit opened or closed. */
export function note(health: Health, samples: readonly OriginSample[], meanMs: number, nowMs: number): "opened" | "closed" | null {
  samples.forEach((sample, place) => {
    const origin = health.origins[place];
    if (origin !== undefined) noteOrigin(origin, sample, meanMs, nowMs);
  });
  const isOpen = health.origins.length > 0 && health.origins.every(({ restUntilMs }) => restUntilMs > 0);
  if (isOpen === health.isOpen) return null;
  health.isOpen = isOpen;
  return isOpen ? "opened" : "closed";
}

function noteOrigin(origin: OriginHealth, { reached, unavailable, refused }: OriginSample, meanMs: number, nowMs: number): void {
  if (reached > 0) {
    Object.assign(origin, newOrigin(), { reachedAtMs: nowMs });
    return;
  }
  origin.unavailable += unavailable;
  origin.refused += refused;
  if (unavailable + refused === 0 || origin.restUntilMs > 0) return;
  const isSilent = nowMs - origin.reachedAtMs >= Math.max(REFUSED_FOR_MS, 2 * meanMs);
  const isDown = origin.unavailable >= CIRCUIT_FAILURES || (origin.unavailable + origin.refused >= CIRCUIT_FAILURES && isSilent);
  if (!isDown) return;
  origin.restMs = Math.min(ORIGIN_REST_MS_MAX, origin.restMs === 0 ? ORIGIN_REST_MS : origin.restMs * 2);
  origin.restUntilMs = nowMs + origin.restMs;
}

/** Lets origins that have rested be tried, as long as others work: one more failure, and they rest longer. */
export function wakeOrigins(health: Health, nowMs: number): void {
  if (health.isOpen) return;
  for (const origin of health.origins) {
    if (origin.restUntilMs === 0 || origin.restUntilMs > nowMs) continue;
    origin.restUntilMs = 0;
    origin.unavailable = CIRCUIT_FAILURES - 1;
    origin.refused = 0;
  }
}

/** Failures that nothing good has followed, at the origin that fares best. */
export function failuresInARow(health: Health): number {
  if (health.origins.length === 0) return 0;
  const rows = health.origins.map(({ unavailable, refused, restUntilMs }) =>
    restUntilMs > 0 ? Number.MAX_SAFE_INTEGER : unavailable + refused,
  );
  return Math.min(...rows);
}

/** Places of the origins that may be called; null for all of them. */
export function usable(health: Health): readonly number[] | null {
  const places = health.origins.flatMap(({ restUntilMs }, place) => (restUntilMs === 0 ? [place] : []));
  return places.length === health.origins.length ? null : places;
}

/** The origin to probe, and the next one after it. */
export function nextProbe(health: Health, nowMs: number): number {
  const place = health.next % Math.max(1, health.origins.length);
  health.next = place + 1;
  health.probedAtMs = nowMs;
  return place;
}
