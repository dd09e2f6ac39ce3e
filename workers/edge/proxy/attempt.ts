/**
 * One try of a proxied call: a permit, the call, its answer's head, and the
 * permit's return when the body has passed.
 */
import { type CallEnd, LEASE_ENDED_STATUS, NOT_SENT } from "../../../shared/policy/outcome.ts";
import { ABORT_MS, IDEMPOTENT_ANSWER_BYTES_MAX } from "../../../shared/limits.ts";
import { concatBytes } from "../../../shared/bytes.ts";
import type { WholeAnswer } from "../../../shared/rpc-flight.ts";
import type { Opening, PassRpc } from "../../../shared/rpc.ts";
import type { Network } from "../../kit/network.ts";
import { retryAfterMsOf } from "../../kit/retry-after.ts";
import { whenLeft } from "../left.ts";
import { addRateLimit, requestHeaders, responseHeaders } from "./headers.ts";
import { Leash } from "./leash.ts";
import { pipe, type Tail } from "./pipe.ts";
import { UsageReader } from "./usage.ts";

const TIMED_OUT = "timed out";
const LEASE_ENDED = "the permit ended";
const BEATEN = "another try was better";
const LEFT = "the caller has gone";
export const NO_BODY_STATUSES: ReadonlySet<number> = new Set([204, 205, 304]);

/** The call as the caller made it. */
export interface ProxyCall {
  readonly upstream: string;
  readonly method: string;
  /** Path and query. */
  readonly path: string;
  readonly headers: Headers;
  readonly body: ReadableStream<Uint8Array> | Uint8Array | null;
  /** Its answer is kept for those who call with the same key. */
  readonly isKeyed: boolean;
  /** Hears of its answer for those who make the same call; null where nobody does. */
  readonly witness: Witness | null;
}

/** Who hears of an answer as it passes. After the word that nobody else may have it, nothing more is said. */
export interface Witness {
  /** The call has its permit. False: its answer is of no interest. */
  opened(opening: Opening): boolean;
  /** Whether the body is to be kept as it passes. No caller sees the answer before that is known. */
  head(status: number, headers: Headers): Promise<boolean>;
  /** Whether it should go on without its caller. */
  isWanted(): boolean;
  tooLarge(): void;
  whole(answer: WholeAnswer): void;
  broke(): void;
}

export interface Surroundings {
  readonly network: Network;
  /** The caller has gone. */
  readonly left: AbortSignal;
  readonly waitUntil: (work: Promise<unknown>) => void;
}

/** A call that has a permit. */
export class Attempt {
  readonly #around: Surroundings;
  readonly #call: ProxyCall;
  readonly #pass: PassRpc;
  readonly opening: Opening;
  /** Null from when it has been told that nobody else may have the answer. */
  readonly witness: Witness | null;
  readonly #abort = new AbortController();
  readonly #leash: Leash | null;
  #startedAtMs = 0;
  #headMs = 0;
  #hasEnded = false;

  /** `askedAtMs`: when the permit was asked for. `first`: the try that this one is made beside. */
  constructor(around: Surroundings, call: ProxyCall, pass: PassRpc, opening: Opening, askedAtMs: number, first?: Attempt) {
    this.#around = around;
    this.#call = call;
    this.#pass = pass;
    this.opening = opening;
    const isHeard = first === undefined ? call.witness?.opened(opening) === true : first.witness !== null;
    this.witness = isHeard ? call.witness : null;
    const { permitMs } = opening;
    this.#leash = permitMs === null ? null : new Leash(pass, askedAtMs, permitMs, () => this.#abort.abort(LEASE_ENDED));
  }

  /** How much longer it may take. */
  get leftMs(): number {
    return this.#startedAtMs + this.opening.timeoutMs - Date.now();
  }

  /** Whether the permit is good. One that came too late is given back unused. */
  async hasPermit(): Promise<boolean> {
    if (this.#leash === null || (await this.#leash.take())) return true;
    await this.end(NOT_SENT);
    return false;
  }

  /** The answer's head, with its body still to come; or how the call failed before it. */
  async send(timeoutMs = this.opening.timeoutMs): Promise<Response | CallEnd> {
    const { method, path, headers, body } = this.#call;
    const { origin, headers: own } = this.opening;
    const init: RequestInit = {
      method,
      headers: requestHeaders(headers, own, this.#isMetered),
      redirect: "manual",
      signal: this.#abort.signal,
      encodeResponseBody: "manual",
      ...(body === null ? {} : { body }),
    };
    const timer = setTimeout(() => this.#abort.abort(TIMED_OUT), timeoutMs);
    this.#startedAtMs = Date.now();
    try {
      const response = await this.#around.network.fetch(origin + path, init);
      this.#headMs = Date.now() - this.#startedAtMs;
      return response;
    } catch {
      return this.#failed();
    } finally {
      clearTimeout(timer);
    }
  }

  /** The answer is not passed on: another try is made. */
  async drop(response: Response): Promise<void> {
    await response.body?.cancel().catch(() => undefined);
    await this.end(this.#endOf(response));
  }

  /** Another try was better. This one is charged as a call that may have had its effect, and says nothing of its upstream. */
  async cutOff(sending: Promise<Response | CallEnd>): Promise<void> {
    this.#abort.abort(BEATEN);
    const answer = await sending;
    if (answer instanceof Response) await answer.body?.cancel().catch(() => undefined);
    // It counts as open until the upstream has noticed.
    if (this.opening.permitMs !== null) await new Promise((resolve) => setTimeout(resolve, ABORT_MS));
    this.#leash?.release();
    letGo(this.#pass);
  }

  /** The call has ended, and its permit is free. */
  async end(end: CallEnd, answer?: WholeAnswer | null): Promise<void> {
    if (this.#hasEnded) return;
    this.#hasEnded = true;
    this.#leash?.release();
    // A gate that has gone holds nothing any more.
    await this.#pass.done(end, answer).catch(() => undefined);
    letGo(this.#pass);
  }

  /** The answer on its way to the caller. The permit goes back when the body has passed. */
  async pass(response: Response): Promise<Response> {
    const { status, statusText } = response;
    const headers = responseHeaders(response.headers);
    const shown = new Headers(headers);
    addRateLimit(shown, this.#call.upstream, this.opening);
    const body = this.#call.method === "HEAD" || NO_BODY_STATUSES.has(status) ? null : response.body;
    const { witness } = this;
    const isWitnessed = (await witness?.head(status, headers)) === true;
    const keeper = isWitnessed || (this.#call.isKeyed && isKept(status)) ? new Keeper(status, headers, () => witness?.tooLarge()) : null;
    if (body === null) {
      this.#around.waitUntil(this.#passed(response, keeper));
      return new Response(null, { status, statusText, headers: shown });
    }
    const length = response.headers.get("content-length");
    const { tokensPointer, costPointer = null } = this.opening;
    const pointers = { tokens: tokensPointer, costMicros: costPointer };
    const usage = this.#isMetered ? new UsageReader(pointers, response.headers.get("content-type") ?? "") : null;
    const isTailWanted = (): boolean => !isWitnessed || witness?.isWanted() === true;
    const readers = { watch: usage?.see ?? null, tail: keeper?.tail ?? null, isTailWanted };
    this.#endWithCaller(keeper, isTailWanted);
    const { readable, ended, taken } = pipe(body, length === null ? null : Number(length), readers);
    const finished = ended.then(
      () => this.#passed(response, keeper, usage?.usage()),
      () => this.#brokeOff(response, keeper),
    );
    this.#around.waitUntil(Promise.allSettled([finished, taken]));
    return new Response(readable, { status, statusText, headers: shown, encodeBody: "manual" });
  }

  /** Where the upstream is silent, nothing else shows that the caller has gone. Whoever else wants the answer has the call's time for each piece of it. */
  #endWithCaller(keeper: Keeper | null, isTailWanted: () => boolean): void {
    const { left } = this.#around;
    let seen = -1;
    const look = (): void => {
      if (this.#hasEnded) return;
      const size = keeper?.size ?? 0;
      if (keeper === null || !isTailWanted() || size === seen) return this.#abort.abort(LEFT);
      seen = size;
      setTimeout(look, this.opening.timeoutMs);
    };
    whenLeft(left, look);
  }

  /** The whole answer has come. */
  #passed(response: Response, keeper: Keeper | null, usage: Partial<CallEnd> = {}): Promise<void> {
    const answer = keeper === null ? undefined : keeper.answer;
    if (this.#call.isKeyed) return this.end({ ...this.#endOf(response), ...usage }, answer);
    if (answer !== null && answer !== undefined) this.witness?.whole(answer);
    return this.end({ ...this.#endOf(response), ...usage });
  }

  /** The head came, so the upstream is well; what broke off says nothing more of it. */
  #brokeOff(response: Response, keeper: Keeper | null): Promise<void> {
    if (keeper !== null && keeper.answer !== null) this.witness?.broke();
    const isInDoubt = this.#call.isKeyed && keeper !== null;
    return this.end({ ...this.#endOf(response), ...(isInDoubt && { outcome: "broken", status: LEASE_ENDED_STATUS }) });
  }

  /** The answer is looked at for what it says that it used. */
  get #isMetered(): boolean {
    return this.opening.tokensPointer !== null || (this.opening.costPointer ?? null) !== null;
  }

  #endOf({ status, headers }: Response): CallEnd {
    return { outcome: "answered", status, ms: this.#headMs, retryAfterMs: retryAfterMsOf(headers.get("retry-after"), Date.now()) };
  }

  #failed(): CallEnd {
    const { aborted, reason } = this.#abort.signal;
    const ms = Date.now() - this.#startedAtMs;
    if (aborted && reason === TIMED_OUT) return { outcome: "timeout", status: 0, ms, retryAfterMs: 0 };
    return { outcome: "broken", status: aborted ? LEASE_ENDED_STATUS : 0, ms, retryAfterMs: 0 };
  }
}

/** Tells the gate that nothing more will be said. */
export function letGo(pass: PassRpc): void {
  (pass as Partial<Disposable>)[Symbol.dispose]?.();
}

/** What may come out otherwise the next time is not the answer for good. */
const isKept = (status: number): boolean => status < 500 && status !== 429;

/** Keeps an answer while it passes, up to the limit. */
class Keeper {
  readonly #status: number;
  readonly #headers: readonly [string, string][];
  readonly #chunks: Uint8Array[] = [];
  readonly #overflown: () => void;
  #size = 0;

  constructor(status: number, headers: Headers, overflown: () => void) {
    this.#status = status;
    this.#headers = [...headers];
    this.#overflown = overflown;
  }

  readonly tail: Tail = (chunk) => {
    this.#size += chunk.byteLength;
    const hasRoom = this.#size <= IDEMPOTENT_ANSWER_BYTES_MAX;
    if (hasRoom) this.#chunks.push(chunk);
    else this.#overflown();
    return hasRoom;
  };

  /** Bytes that have come so far. */
  get size(): number {
    return this.#size;
  }

  /** Null where there was too much of it. */
  get answer(): WholeAnswer | null {
    if (this.#size > IDEMPOTENT_ANSWER_BYTES_MAX) return null;
    return { status: this.#status, headers: this.#headers, body: concatBytes(this.#chunks) };
  }
}
