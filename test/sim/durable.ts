/** Two states compared as text, so that a difference can be shown. */
import { toSnapshot } from "../../durable-objects/goal/core/snapshot.ts";
import type { GoalState } from "../../durable-objects/goal/core/state.ts";

/** Everything that must survive, as text. Timers are not in it: they follow from the columns, and stale ones do no harm. */
export function durableText(state: GoalState): string {
  const { meta, columns } = toSnapshot(state);
  return JSON.stringify([meta, Object.entries(columns).map(([name, column]) => [name, [...column]])]);
}

export function firstDifference(a: string, b: string): string {
  let at = 0;
  while (a[at] === b[at]) at++;
  return `disk …${a.slice(Math.max(0, at - 120), at + 60)}… memory …${b.slice(at, at + 60)}…`;
}
