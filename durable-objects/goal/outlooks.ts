/** What governors say of upstreams that a goal has not dealt with yet. */
import type { Governors } from "../kit/governors.ts";
import { type Outlooks, strangersAmong } from "./core/estimate.ts";
import type { GoalState } from "./core/state.ts";

/** An estimate is not worth waiting for a second time. */
export async function outlooksOf(governors: Governors, state: GoalState, names: ReadonlySet<string>): Promise<Outlooks> {
  const { weight } = state.goal!.spec;
  const strangers = strangersAmong(state, names);
  return new Map(await Promise.all(strangers.map(async (name) => [name, await governors.outlook(name, weight)] as const)));
}
