/** Which of a world's upstreams hedge, and when their governors let them. From a chance of its own, so that other worlds stay as they are. */
import type { Plan } from "../faults.ts";
import type { Random } from "../random.ts";

/** Where many calls stall: as often, in a goal that goes on to its end. */
const STALLS = { slow: 0.5, requests: 12, lets: 0.8 };

export interface HedgePlan {
  /** How often a grant lets calls be hedged. */
  readonly lets: number;
  readonly afterMsMax: number;
}

/** Gives some of the upstreams hedging, much more of it than anybody would want; in half of those worlds many calls stall, and most may be open twice. */
export function hedgePlanOf(random: Random, plan: Plan): { readonly hedges: HedgePlan; readonly plan: Plan } {
  const isOn = random.chance(0.3);
  const hedges = { lets: isOn ? 0.3 + 0.7 * random.next() : 0, afterMsMax: random.between(1, 60) };
  if (!isOn) return { hedges, plan };
  // Takes no chance of its own, so that the others of these worlds stay as they were.
  const stalls = hedges.afterMsMax % 2 === 1;
  const upstreams = plan.upstreams.map((upstream) => {
    if (!random.chance(0.8)) return upstream;
    const hedge = { quantile: 0.95, budgetPercent: random.between(5, 50) * (stalls ? 4 : 1) };
    return { ...upstream, hedge, ...(stalls && { idempotency: "key" as const }) };
  });
  if (!stalls) return { hedges, plan: { ...plan, upstreams } };
  const { slow, requests, lets } = STALLS;
  return { hedges: { ...hedges, lets }, plan: { ...plan, upstreams, rule: {}, requests, faults: { ...plan.faults, slow } } };
}
