/**
 * Counts the distinct dynamic Workers in flight, of which the platform takes
 * 4 in a request of a Worker and 10 in a Durable Object; workerd on a laptop
 * takes any number. Invocations of the same Worker count as one. What goes
 * beyond waits, first come, first served: once somebody waits nobody passes,
 * so that a busy Worker cannot keep its place for ever.
 */
import { assert } from "../../../shared/assert.ts";

interface Waiter {
  readonly id: string;
  readonly go: () => void;
}

export class Slots {
  readonly #max: number;
  readonly #open = new Map<string, number>();
  readonly #waiting: Waiter[] = [];

  constructor(max: number) {
    this.#max = max;
  }

  /** Distinct Workers in flight. */
  get inFlight(): number {
    return this.#open.size;
  }

  /** Takes a place for an invocation of `id`. Rejects with the signal's reason when it is aborted first. */
  async enter(id: string, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    if (this.#waiting.length === 0 && this.#fits(id)) return this.#take(id);
    await new Promise<void>((resolve, reject) => {
      const waiter: Waiter = {
        id,
        go: () => {
          signal.removeEventListener("abort", leave);
          resolve();
        },
      };
      const leave = (): void => {
        this.#waiting.splice(this.#waiting.indexOf(waiter), 1);
        reject(signal.reason as Error);
        // Those behind it may have waited for nothing but their turn.
        this.#admit();
      };
      signal.addEventListener("abort", leave, { once: true });
      this.#waiting.push(waiter);
    });
  }

  leave(id: string): void {
    const left = (this.#open.get(id) ?? 0) - 1;
    assert(left >= 0, "only who entered can leave");
    if (left === 0) this.#open.delete(id);
    else this.#open.set(id, left);
    this.#admit();
  }

  #fits(id: string): boolean {
    return this.#open.has(id) || this.#open.size < this.#max;
  }

  #take(id: string): void {
    this.#open.set(id, (this.#open.get(id) ?? 0) + 1);
    assert(this.#open.size <= this.#max, "no more distinct dynamic Workers than the platform takes");
  }

  #admit(): void {
    for (let next = this.#waiting[0]; next !== undefined && this.#fits(next.id); next = this.#waiting[0]) {
      this.#waiting.shift();
      this.#take(next.id);
      next.go();
    }
  }
}
