/**
 * The end from outside of something that runs, for whatever it has open. As
 * an `AbortSignal`, but without the platform's objects, of which a run that
 * nobody ends needs none.
 */
export class Cutoff {
  readonly #hearing = new Set<(reason: unknown) => void>();
  #controller: AbortController | null = null;
  isOver = false;
  reason: unknown = null;

  /** For what takes nothing else. */
  get signal(): AbortSignal {
    if (this.#controller === null) {
      this.#controller = new AbortController();
      if (this.isOver) this.#controller.abort(this.reason);
    }
    return this.#controller.signal;
  }

  /** `hear` is called when it ends, unless `forget` was called before. */
  watch(hear: (reason: unknown) => void): void {
    this.#hearing.add(hear);
  }

  forget(hear: (reason: unknown) => void): void {
    this.#hearing.delete(hear);
  }

  end(reason: unknown): void {
    if (this.isOver) return;
    this.isOver = true;
    this.reason = reason;
    this.#controller?.abort(reason);
    for (const hear of this.#hearing) hear(reason);
    this.#hearing.clear();
  }
}
