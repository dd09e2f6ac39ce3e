/** Two states compared: what must survive is the same in both, and where it is not, the difference can be shown. */
import { COLUMN_NAMES, type Columns } from "../../durable-objects/goal/core/columns.ts";
import { toSnapshot } from "../../durable-objects/goal/core/snapshot.ts";
import type { GoalState } from "../../durable-objects/goal/core/state.ts";

/** Everything that must survive, as text. Timers are not in it: they follow from the columns, and stale ones do no harm. */
function durableText(state: GoalState): string {
  const { meta, columns } = toSnapshot(state);
  return JSON.stringify([meta, Object.entries(columns).map(([name, column]) => [name, [...column]])]);
}

/** Columns are compared as bytes: worlds do this so often that making them text took half of their time. */
export function isDurablyEqual(a: GoalState, b: GoalState): boolean {
  const [one, other] = [toSnapshot(a), toSnapshot(b)];
  const isColumnEqual = (name: keyof Columns): boolean => bytesOf(one.columns[name]).equals(bytesOf(other.columns[name]));
  return JSON.stringify(one.meta) === JSON.stringify(other.meta) && COLUMN_NAMES.every(isColumnEqual);
}

const bytesOf = ({ buffer, byteOffset, byteLength }: Columns[keyof Columns]): Buffer => Buffer.from(buffer, byteOffset, byteLength);

/** Where two states that are not equal differ first. */
export function firstDifference(disk: GoalState, memory: GoalState): string {
  const [a, b] = [durableText(disk), durableText(memory)];
  let at = 0;
  while (at < a.length && a[at] === b[at]) at++;
  return `disk …${a.slice(Math.max(0, at - 120), at + 60)}… memory …${b.slice(at, at + 60)}…`;
}
