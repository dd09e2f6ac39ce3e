/**
 * When the next commit is due. Results that come fast are gathered for a turn;
 * a burst of small commits is free; a long stream of small ones is slowed to a
 * few a second, because each is a row that somebody pays for.
 */
import { COMMIT_BURST, COMMIT_RESULTS_MIN, COMMITS_PER_SECOND, TURN_MS } from "../../shared/limits.ts";

/** A token bucket on the caller's clock. */
export class Pace {
  #tokens = COMMIT_BURST;
  #atMs = 0;

  /** How long to gather before a commit; `waiting` results are there already. */
  delayMs(nowMs: number, waiting: number, running: number): number {
    this.#refill(nowMs);
    if (waiting >= COMMIT_RESULTS_MIN) return running > waiting ? TURN_MS : 0;
    if (this.#tokens >= 1) return running > COMMIT_RESULTS_MIN ? TURN_MS : 0;
    return Math.ceil(((1 - this.#tokens) * 1_000) / COMMITS_PER_SECOND);
  }

  /** A commit with this many results was made. */
  spend(nowMs: number, results: number): void {
    this.#refill(nowMs);
    if (results < COMMIT_RESULTS_MIN) this.#tokens = Math.max(0, this.#tokens - 1);
  }

  #refill(nowMs: number): void {
    if (nowMs > this.#atMs) this.#tokens = Math.min(COMMIT_BURST, this.#tokens + ((nowMs - this.#atMs) * COMMITS_PER_SECOND) / 1_000);
    this.#atMs = Math.max(this.#atMs, nowMs);
  }
}
