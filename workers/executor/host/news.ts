/**
 * What a slice has to tell its gate. Most of it nobody waits for, so it is
 * gathered until it is due, and goes along with whatever is asked before.
 */
import type { HandAsk } from "../../../shared/rpc-functions.ts";

export type Mutable<T> = { -readonly [K in keyof T]: T[K] extends readonly (infer I)[] ? I[] : T[K] };

const newAsk = (upstream: string): Mutable<HandAsk> => ({
  upstream,
  permits: 0,
  calls: 0,
  spare: 0,
  draws: [],
  keys: [],
  ends: [],
  back: [],
  unused: 0,
  undrawn: [],
  closed: [],
});

export class News {
  readonly #upstream: string;
  readonly #stir: (inMs: number) => void;
  #ask: Mutable<HandAsk>;
  /** Infinity where there is nothing to tell. */
  #dueAtMs = Number.POSITIVE_INFINITY;

  /** `stir` asks for a message within so long. */
  constructor(upstream: string, stir: (inMs: number) => void) {
    this.#upstream = upstream;
    this.#stir = stir;
    this.#ask = newAsk(upstream);
  }

  get isEmpty(): boolean {
    return this.#dueAtMs === Number.POSITIVE_INFINITY;
  }

  isDue(nowMs: number): boolean {
    return nowMs >= this.#dueAtMs;
  }

  /** Takes something in that is to be told within so long. */
  note(withinMs: number): Mutable<HandAsk> {
    this.#dueAtMs = Math.min(this.#dueAtMs, Date.now() + withinMs);
    this.#stir(withinMs);
    return this.#ask;
  }

  /** Takes something in for a message that is just being made. */
  add(): Mutable<HandAsk> {
    this.#dueAtMs = 0;
    return this.#ask;
  }

  /** All of it, on its way now. */
  take(): Mutable<HandAsk> {
    const ask = this.#ask;
    this.#ask = newAsk(this.#upstream);
    this.#dueAtMs = Number.POSITIVE_INFINITY;
    return ask;
  }
}
