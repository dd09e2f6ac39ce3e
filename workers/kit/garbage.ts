/**
 * When to collect garbage, where somebody may decide that: on the local server,
 * which exposes V8's collector. A call leaves objects of the platform behind
 * that weigh little in V8's heap and much outside of it, and V8, which counts
 * only the heap, lets them gather: one collection of what 15,000 calls left
 * stopped everything for 400 ms. Collected early each takes as long a call, and
 * the stops are short (docs/decisions/0010).
 */
import { GARBAGE_CALLS, GARBAGE_TIME_SHARE } from "../../shared/limits.ts";

export class Garbage {
  readonly #collect: () => void;
  readonly #now: () => number;
  #calls = 0;
  #notBeforeMs = 0;

  /** `now` counts milliseconds and goes on while `collect` works, as it does on a local workerd. */
  constructor(collect: () => void, now: () => number = Date.now) {
    this.#collect = collect;
    this.#now = now;
  }

  /** A call begins. After many it collects, but where the heap is large, and that takes long, less often. */
  called(): void {
    if (++this.#calls < GARBAGE_CALLS) return;
    const startedAtMs = this.#now();
    if (startedAtMs < this.#notBeforeMs) return;
    this.#calls = 0;
    this.#collect();
    const endedAtMs = this.#now();
    this.#notBeforeMs = endedAtMs + (endedAtMs - startedAtMs) / GARBAGE_TIME_SHARE;
  }
}

const collector = (globalThis as { readonly gc?: () => void }).gc;

/** Of this isolate; null where V8 decides alone. */
export const garbage = collector === undefined ? null : new Garbage(() => collector());
