/**
 * What a batch of functions has borrowed of its goal's gate, and its talk with
 * it: one message a tick for all upstreams, one more when something has ended,
 * and none a call. A gate that is lost is found again; what was borrowed of it
 * is worth nothing then, and what it had paid for is charged.
 */
import { failure } from "../../../shared/errors.ts";
import { HAND_NEWS_MS, HAND_TRIES_MAX } from "../../../shared/limits.ts";
import type { HandNews, HandRequest, HandRpc, HandsRpc } from "../../../shared/rpc-functions.ts";
import { Slice } from "./slice.ts";

const RETRY_MS = 50;

export class Hand {
  readonly #gate: () => HandsRpc;
  readonly #request: HandRequest;
  readonly #runs: number;
  readonly #slices = new Map<string, Slice>();
  readonly #origins = new Map<string, Promise<string | null>>();
  #stub: Promise<HandRpc> | null = null;
  #timer: number | null = null;
  #timerAtMs = Number.POSITIVE_INFINITY;
  #open = 0;
  #failures = 0;
  #isOver = false;

  /** It serves so many runs. */
  constructor(gate: () => HandsRpc, request: HandRequest, runs: number) {
    this.#gate = gate;
    this.#runs = runs;
    this.#request = request;
  }

  sliceOf(upstream: string): Slice {
    let slice = this.#slices.get(upstream);
    if (slice === undefined) this.#slices.set(upstream, (slice = new Slice(upstream, this.#runs, (inMs) => this.#schedule(inMs))));
    return slice;
  }

  /** The upstream that has the origin; null for none. Asked for once. */
  upstreamAt(origin: string): Promise<string | null> {
    let found = this.#origins.get(origin);
    if (found === undefined) {
      found = this.#connect().then((stub) => stub.find(origin));
      this.#origins.set(origin, found);
      found.then(
        (name) => name === null && this.#origins.delete(origin),
        () => this.#origins.delete(origin),
      );
    }
    return found;
  }

  /** Gives everything back. Never rejects. */
  async end(): Promise<void> {
    this.#isOver = true;
    clearTimeout(this.#timer);
    if (this.#stub === null) return;
    let stub: HandRpc | null = null;
    try {
      stub = await this.#stub;
      await stub.close([...this.#slices.values()].flatMap((slice) => slice.last() ?? []));
    } catch {
      // A gate that is gone has nothing that could be given back.
    } finally {
      (stub as Partial<Disposable> | null)?.[Symbol.dispose]?.();
    }
  }

  #connect(): Promise<HandRpc> {
    this.#stub ??= this.#gate().hand(this.#request);
    return this.#stub;
  }

  #schedule(inMs: number): void {
    const atMs = Date.now() + inMs;
    if (this.#isOver || atMs >= this.#timerAtMs) return;
    clearTimeout(this.#timer);
    this.#timerAtMs = atMs;
    this.#timer = setTimeout(() => void this.#exchange(), inMs);
  }

  async #exchange(): Promise<void> {
    this.#timerAtMs = Number.POSITIVE_INFINITY;
    const askedAtMs = Date.now();
    const asks = [...this.#slices.values()].flatMap((slice) => slice.ask(askedAtMs) ?? []);
    const isWaiting = (): boolean => [...this.#slices.values()].some((slice) => slice.isWaiting);
    if (asks.length === 0 && (this.#open > 0 || !isWaiting())) return this.#rest();
    this.#open++;
    const stub = this.#connect();
    try {
      const news = await (await stub).exchange(asks);
      this.#open--;
      this.#failures = 0;
      this.#hear(news, askedAtMs);
      // Somebody has to be on the line for what is still to come.
      if (this.#open === 0 && isWaiting()) this.#schedule(0);
    } catch (error) {
      this.#open--;
      if (stub === this.#stub) this.#lose(error);
    }
    this.#rest();
  }

  /** What nobody uses for a moment is given back. */
  #rest(): void {
    if ([...this.#slices.values()].some((slice) => slice.isHolding)) this.#schedule(HAND_NEWS_MS);
  }

  #hear(news: readonly HandNews[], askedAtMs: number): void {
    for (const one of news) this.#slices.get(one.upstream)?.hear(one, askedAtMs);
  }

  #lose(error: unknown): void {
    this.#stub = null;
    this.#failures++;
    const isHopeless = this.#failures >= HAND_TRIES_MAX;
    if (isHopeless) console.warn(`the gate of ${this.#request.goalId} is out of reach: ${String(error)}`);
    const fault = failure("temporary_reduced_capacity", "the goal's gate is out of reach, so the call cannot be admitted");
    for (const slice of this.#slices.values()) slice.lose(isHopeless ? fault : null);
    if (!isHopeless) this.#schedule(RETRY_MS * this.#failures);
    else this.#failures = 0;
  }
}
