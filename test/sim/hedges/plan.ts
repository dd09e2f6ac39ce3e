/** Which of a world's upstreams hedge, and when their governors let them. From a chance of its own, so that other worlds stay as they are. */
import type { Upstream } from "../../../shared/protocol/upstream.ts";
import type { Random } from "../random.ts";

export interface HedgePlan {
  /** How often a grant lets calls be hedged. */
  readonly lets: number;
  readonly afterMsMax: number;
}

/** Gives some of the upstreams hedging: much more of it than anybody would want. */
export function hedgePlanOf(random: Random, upstreams: Upstream[]): HedgePlan {
  const isOn = random.chance(0.3);
  const plan = { lets: isOn ? 0.3 + 0.7 * random.next() : 0, afterMsMax: random.between(1, 60) };
  if (!isOn) return plan;
  upstreams.forEach((upstream, i) => {
    if (random.chance(0.8)) upstreams[i] = { ...upstream, hedge: { quantile: 0.95, budgetPercent: random.between(5, 50) } };
  });
  return plan;
}
