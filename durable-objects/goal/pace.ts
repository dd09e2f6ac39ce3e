/**
 * When the next commit is due. Each commit is a row that somebody pays for, so
 * commits draw on a token bucket: a burst of small ones is immediate, results
 * earn the commits that carry them, and a long trickle is slowed to a few a
 * second. Commits are never closer together than a turn.
 *
 *   results  xx  x xxx  x          x                x x
 *   commits  |---| |----|          |                | |
 *            at once, then a turn apart             at once again
 */
import { COMMIT_BURST, COMMITS_PER_SECOND, RESULTS_PER_COMMIT, TURN_MS } from "../../shared/limits.ts";

/** A token bucket on the caller's clock. */
export class Pace {
  #tokens = COMMIT_BURST;
  #refilledAtMs = 0;
  #committedAtMs = 0;

  /** How long to gather before a commit that would carry `waiting` results. */
  delayMs(nowMs: number, waiting: number): number {
    this.#refill(nowMs);
    const missing = 1 - this.#tokens - waiting / RESULTS_PER_COMMIT;
    const earnedInMs = missing <= 0 ? 0 : Math.ceil((missing * 1_000) / COMMITS_PER_SECOND);
    return Math.max(earnedInMs, this.#committedAtMs + TURN_MS - nowMs, 0);
  }

  /** A commit with this many results was made. */
  spend(nowMs: number, results: number): void {
    this.#refill(nowMs);
    this.#committedAtMs = nowMs;
    this.#tokens = Math.min(COMMIT_BURST, Math.max(0, this.#tokens - 1 + results / RESULTS_PER_COMMIT));
  }

  #refill(nowMs: number): void {
    const passedMs = Math.max(0, nowMs - this.#refilledAtMs);
    this.#tokens = Math.min(COMMIT_BURST, this.#tokens + (passedMs * COMMITS_PER_SECOND) / 1_000);
    this.#refilledAtMs += passedMs;
  }
}
