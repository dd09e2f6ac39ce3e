/**
 * What calls are cut off with. A cord serves one call after another until it
 * is pulled: it is an object of the platform, and one a call is a cost.
 */
import { Watch } from "../watch.ts";

export interface Cord {
  readonly controller: AbortController;
  deadlineAtMs: number;
}

export class Cords {
  readonly #reason: string;
  readonly #free: Cord[] = [];
  readonly #busy = new Set<Cord>();
  readonly #watch = new Watch(() => this.#look());

  /** `reason` is what a call hears whose time is over. */
  constructor(reason: string) {
    this.#reason = reason;
  }

  /** For one call, which is cut off after so long. */
  take(timeoutMs: number): Cord {
    const cord = this.#free.pop() ?? { controller: new AbortController(), deadlineAtMs: 0 };
    cord.deadlineAtMs = Date.now() + timeoutMs;
    this.#busy.add(cord);
    this.#watch.by(cord.deadlineAtMs);
    return cord;
  }

  /** Its call has ended. */
  give(cord: Cord): void {
    this.#busy.delete(cord);
    if (!cord.controller.signal.aborted) this.#free.push(cord);
  }

  /** No call follows. */
  end(): void {
    this.#watch.end();
  }

  #look(): void {
    const nowMs = Date.now();
    for (const { controller, deadlineAtMs } of this.#busy) {
      if (deadlineAtMs > nowMs) this.#watch.by(deadlineAtMs);
      else controller.abort(this.#reason);
    }
  }
}
