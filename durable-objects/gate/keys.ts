/**
 * Calls with an `Idempotency-Key`: the same key meets itself here, and the call
 * is made once. What is sent is written down first, so that a crash leaves no
 * doubt about which calls are in doubt.
 */
import { type Failure, failure } from "../../shared/errors.ts";
import { IDEMPOTENT_ANSWER_BYTES_MAX, IDEMPOTENT_ANSWER_MS } from "../../shared/limits.ts";
import type { CallEnd } from "../../shared/policy/outcome.ts";
import { err, ok } from "../../shared/result.ts";
import type { WholeAnswer } from "../../shared/rpc-flight.ts";
import type { Answer, KeyedCall } from "../../shared/rpc.ts";
import type { GateStore, KeptCall } from "./store.ts";

const RETRY_AFTER_MS = 1_000;

interface Claimed {
  readonly fingerprint: string;
  /** It has been written down, and may have been sent. */
  isSent: boolean;
  /** Calls with the same key that wait for this one's end. */
  readonly followers: Set<() => void>;
}

const reused = (): Failure => failure("idempotency_key_reused", "this Idempotency-Key was used for a different request; use a new key");

const tooLarge = (): Failure =>
  failure(
    "conflict",
    `the call with this Idempotency-Key was made, and its answer is not kept because it has more than ${IDEMPOTENT_ANSWER_BYTES_MAX} bytes; use a new key to call again`,
  );

const unknown = (): Failure =>
  failure(
    "outcome_unknown",
    "the call with this Idempotency-Key may have had its effect; look at the upstream, and call again with a new key",
  );

const busy = (): Failure =>
  failure("temporary_reduced_capacity", "the first call with this Idempotency-Key is still running; ask again", {
    retryAfterMs: RETRY_AFTER_MS,
  });

export class Keys {
  readonly #store: GateStore;
  readonly #kept: () => void;
  /** Keys whose call waits or runs in this life of the gate. */
  readonly #claimed = new Map<string, Claimed>();

  /** `kept` is called after something was written that the alarm has to delete. */
  constructor(store: GateStore, kept: () => void) {
    this.#store = store;
    this.#kept = kept;
  }

  /** Null: the key is the caller's, who must release it. Otherwise the answer that it has, or why there is none. */
  async claim(keyed: KeyedCall, untilMs: number): Promise<Answer<WholeAnswer | null>> {
    for (;;) {
      const first = this.#claimed.get(keyed.key);
      if (first === undefined) return this.#look(keyed);
      if (first.fingerprint !== keyed.fingerprint) return err(reused());
      if (!(await ended(first, untilMs))) return err(busy());
    }
  }

  #look(keyed: KeyedCall): Answer<WholeAnswer | null> {
    const nowMs = Date.now();
    const kept = this.#store.find(keyed.key);
    if (kept !== null && kept.expiresAtMs > nowMs) {
      if (kept.fingerprint !== keyed.fingerprint) return err(reused());
      if (kept.state === "answered") return ok(this.#store.answer(keyed.key));
      if (kept.state === "too_large") return err(tooLarge());
      if (kept.state === "unknown" || !isFree(kept)) return err(unknown());
    }
    this.#claimed.set(keyed.key, { fingerprint: keyed.fingerprint, isSent: false, followers: new Set() });
    return ok(null);
  }

  /** The call is about to be sent. */
  begin(keyed: KeyedCall): void {
    this.#claimed.get(keyed.key)!.isSent = true;
    this.#store.put(keyed, "running", null, Date.now() + IDEMPOTENT_ANSWER_MS);
    this.#kept();
  }

  /** The call has ended, or its caller has gone (null). What the key means from now on is decided here. */
  release(keyed: KeyedCall, end: CallEnd | null, answer: WholeAnswer | null | undefined): void {
    const claimed = this.#claimed.get(keyed.key);
    if (claimed === undefined) return;
    this.#claimed.delete(keyed.key);
    if (claimed.isSent) this.#settle(keyed, end, answer);
    for (const go of claimed.followers) go();
  }

  #settle(keyed: KeyedCall, end: CallEnd | null, answer: WholeAnswer | null | undefined): void {
    const untilMs = Date.now() + IDEMPOTENT_ANSWER_MS;
    if (answer !== undefined) this.#store.put(keyed, answer === null ? "too_large" : "answered", answer, untilMs);
    else if (isInDoubt(end) && !keyed.isRepeatable) this.#store.put(keyed, "unknown", null, untilMs);
    else this.#store.remove(keyed.key);
  }
}

/** An earlier life of the gate wrote it down, and did not see its end. */
const isFree = ({ state, isRepeatable }: KeptCall): boolean => state === "running" && isRepeatable;

/** Whether the call may have had an effect that nobody heard of. */
const isInDoubt = (end: CallEnd | null): boolean => end === null || end.outcome === "broken" || end.outcome === "timeout";

/** Waits for the end of the call that has the key. False when the patience ends first. */
function ended({ followers }: Claimed, untilMs: number): Promise<boolean> {
  return new Promise((resolve) => {
    const go = (): void => {
      clearTimeout(timer);
      resolve(true);
    };
    const timer = setTimeout(() => {
      followers.delete(go);
      resolve(false);
    }, untilMs - Date.now());
    followers.add(go);
  });
}
