/**
 * When a task will start, from what is ahead of it at its upstream and what
 * the goal gets done there in a second (Little's law).
 */
import { permitted } from "../../../shared/policy/lease.ts";
import { inUseAt } from "./admission.ts";
import { type GoalState, upstreamNamed } from "./state.ts";

/** What the goal may expect to be done in a second, by upstream: from governors that it has not yet dealt with. */
export type Outlooks = ReadonlyMap<string, number>;

export interface Estimator {
  /** The next place in the upstream's queue, left to whoever comes: tasks ahead, and milliseconds until the start. */
  peek(upstream: number): { readonly position: number; readonly startMs: number };
  /** Takes that place. */
  next(upstream: number): { readonly position: number; readonly startMs: number };
}

/** Estimates for tasks that are queued one after the other from now on. */
export function estimatorOf(state: GoalState, nowMs: number, outlooks: Outlooks): Estimator {
  const ahead = state.upstreams.map(({ queued }) => queued);
  const free = state.upstreams.map((_, upstream) => {
    const lease = state.admissions[upstream]?.lease;
    return lease === undefined ? 0 : Math.max(0, permitted(lease, nowMs) - inUseAt(state, upstream));
  });
  const perSecond = state.upstreams.map(({ name }, upstream) => rateOf(state, upstream, outlooks.get(name) ?? 0));
  const peek: Estimator["peek"] = (upstream) => {
    // A queue that came with the request has nothing in it, and nobody knows the pace of claimers.
    const position = ahead[upstream] ?? 0;
    const behind = Math.max(0, position - (free[upstream] ?? 0));
    const rate = perSecond[upstream] ?? 0;
    return { position, startMs: rate === 0 ? 0 : Math.round((behind * 1_000) / rate) };
  };
  return {
    peek,
    next(upstream) {
      const place = peek(upstream);
      ahead[upstream] = place.position + 1;
      return place;
    },
  };
}

function rateOf({ upstreams, admissions }: GoalState, upstream: number, outlook: number): number {
  const told = admissions[upstream]?.lease.callsPerSecond ?? 0;
  if (told > 0) return told;
  if (outlook > 0) return outlook;
  const { lanes, latencyMs } = upstreams[upstream]!;
  return latencyMs === 0 ? 0 : (Math.max(1, lanes) * 1_000) / latencyMs;
}

/** Tasks that are queued, and when one that came now would start: at the upstream that takes longest. */
export function outlookOf(state: GoalState, nowMs: number): { readonly position: number; readonly startMs: number } {
  const estimator = estimatorOf(state, nowMs, new Map());
  let position = 0;
  let startMs = 0;
  state.upstreams.forEach(({ queued }, upstream) => {
    position += queued;
    if (queued > 0) startMs = Math.max(startMs, estimator.next(upstream).startMs);
  });
  return { position, startMs };
}

/** Names of upstreams among `names` that this goal knows no rate of. */
export function strangersAmong(state: GoalState, names: Iterable<string>): string[] {
  return [...names].filter((name) => {
    const upstream = upstreamNamed(state, name);
    return upstream >= 0 && state.upstreams[upstream]!.config !== null && rateOf(state, upstream, 0) === 0;
  });
}
