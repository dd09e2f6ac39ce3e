/**
 * Goals that have ended in this isolate. What one object tells another waits
 * its turn behind all that is under way, which on one machine is everything;
 * here executors see at once that a goal, or one above it, wants nothing more.
 * Only a hint: orders and aborts say the same wherever the executor is.
 */
const REMEMBERED_MAX = 10_000;

const ended = new Set<string>();

/** Where executors are in other processes: tells these. */
let pass: (goalId: string) => void = () => undefined;

export function passOn(to: (goalId: string) => void): void {
  pass = to;
}

/** The goal has ended, durably: an end is never taken back. */
export function noteEnded(goalId: string): void {
  if (ended.has(goalId)) return;
  if (ended.size >= REMEMBERED_MAX) ended.delete(ended.values().next().value!);
  ended.add(goalId);
  pass(goalId);
}

/** Whether one of the goals is known to have ended. */
export function hasEnded(goalIds: readonly string[]): boolean {
  return ended.size > 0 && goalIds.some((goalId) => ended.has(goalId));
}
