/**
 * Callers that go away before they are answered. Some versions of the runtime
 * end their requests then, and let go of all that these hold; others keep it
 * for as long as a message is under way, and those who wait for a turn wait for
 * the answer to one. So each place that is waited at hears of it.
 */

/** Runs `act` when the caller goes, or at once where it has gone. */
export function whenLeft(left: AbortSignal, act: () => void): void {
  if (left.aborted) act();
  else left.addEventListener("abort", act, { once: true });
}
