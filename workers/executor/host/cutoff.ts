/**
 * The end of a run, for whatever it has open. One listener at the signal for
 * all of it, because a listener a call is a cost.
 */
export class Cutoff {
  readonly #waiting = new Set<(reason: unknown) => void>();
  isOver = false;
  reason: unknown = null;

  constructor(signal: AbortSignal) {
    if (signal.aborted) this.end(signal.reason);
    else signal.addEventListener("abort", () => this.end(signal.reason), { once: true });
  }

  /** `hear` is called when the run ends, unless `forget` was called before. */
  watch(hear: (reason: unknown) => void): void {
    this.#waiting.add(hear);
  }

  forget(hear: (reason: unknown) => void): void {
    this.#waiting.delete(hear);
  }

  end(reason: unknown): void {
    if (this.isOver) return;
    this.isOver = true;
    this.reason = reason;
    for (const hear of this.#waiting) hear(reason);
    this.#waiting.clear();
  }
}
