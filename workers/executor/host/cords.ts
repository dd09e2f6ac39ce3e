/**
 * What calls are cut off with. A cord serves one call after another until it
 * is pulled, and one timer watches all deadlines: both are objects of the
 * platform, and one a call is a cost.
 */
export interface Cord {
  readonly controller: AbortController;
  deadlineAtMs: number;
}

export class Cords {
  readonly #reason: string;
  readonly #free: Cord[] = [];
  readonly #busy = new Set<Cord>();
  #timer: number | null = null;
  #timerAtMs = Infinity;

  /** `reason` is what a call hears whose time is over. */
  constructor(reason: string) {
    this.#reason = reason;
  }

  /** For one call, which is cut off after so long. */
  take(timeoutMs: number): Cord {
    const cord = this.#free.pop() ?? { controller: new AbortController(), deadlineAtMs: 0 };
    cord.deadlineAtMs = Date.now() + timeoutMs;
    this.#busy.add(cord);
    this.#watch(cord.deadlineAtMs);
    return cord;
  }

  /** Its call has ended. */
  give(cord: Cord): void {
    this.#busy.delete(cord);
    if (!cord.controller.signal.aborted) this.#free.push(cord);
  }

  /** No call follows. */
  end(): void {
    clearTimeout(this.#timer);
  }

  /** Deadlines mostly rise, so the timer is seldom moved: it fires at the earliest and looks again. */
  #watch(atMs: number): void {
    if (atMs >= this.#timerAtMs) return;
    clearTimeout(this.#timer);
    this.#timerAtMs = atMs;
    this.#timer = setTimeout(() => this.#look(), atMs - Date.now());
  }

  #look(): void {
    this.#timerAtMs = Infinity;
    const nowMs = Date.now();
    for (const { controller, deadlineAtMs } of this.#busy) {
      if (deadlineAtMs > nowMs) this.#watch(deadlineAtMs);
      else controller.abort(this.#reason);
    }
  }
}
