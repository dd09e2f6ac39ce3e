/**
 * A call that a function makes while it runs: leave for it, the call, and what
 * its end means. What does no harm is tried again within the attempt, as a
 * task's call would be; each try has leave of its own and is charged by itself.
 */
import { concatBytes, hexOf } from "../../../shared/bytes.ts";
import { failure } from "../../../shared/errors.ts";
import { IDEMPOTENT_ANSWER_BYTES_MAX, RESPONSE_BYTES_MAX } from "../../../shared/limits.ts";
import { NOTHING } from "../../../shared/policy/account.ts";
import { backoffMs } from "../../../shared/policy/backoff.ts";
import { type CallEnd, isRefusal, LEASE_ENDED_STATUS, NOT_SENT, UNSENDABLE_STATUS } from "../../../shared/policy/outcome.ts";
import { priceOf } from "../../../shared/policy/price.ts";
import type { HandTerms } from "../../../shared/rpc-functions.ts";
import type { WholeAnswer } from "../../../shared/rpc-flight.ts";
import type { Cutoff } from "../../kit/cutoff.ts";
import { HostError } from "../../sandbox/types.ts";
import type { Claim } from "./leave.ts";
import type { Payment, Purse } from "./purse.ts";
import type { Caller, Tried } from "./send.ts";
import { errorOf, refused } from "./slice.ts";
import { Held, sendRaced } from "./twice.ts";
import type { WantedCall } from "./wanted.ts";

const PATH_SHOWN_CHARS = 200;

const nameOf = ({ method, path, upstream }: WantedCall): string => `${method} ${path.slice(0, PATH_SHOWN_CHARS)} at "${upstream}"`;

/** Makes the call. Answers with JSON text, or throws a `HostError`. `key` is what it is known by, at the upstream too. */
export async function makeCall(caller: Caller, call: WantedCall, key: string): Promise<string> {
  const { slice } = caller;
  // Whether a call has to be remembered depends on its upstream.
  const isHarmless = call.isIdempotent || (await slice.terms()).isKeyed;
  const claim = isHarmless ? null : await claimFor(caller, call, key);
  if (claim !== null && "replay" in claim) return new TextDecoder().decode(claim.replay.body);
  let last: Tried = { end: NOT_SENT, json: null };
  try {
    last = await tryCall(caller, call, key, isHarmless);
    return outcomeOf(call, last, isHarmless);
  } finally {
    if (claim !== null) slice.close(claim, last.end, keptOf(last));
  }
}

/** What is not allowed, or cannot be paid for, leaves no trace. */
async function claimFor(caller: Caller, call: WantedCall, key: string): Promise<Claim> {
  check(caller, call, await caller.slice.terms());
  return caller.slice.claim({ key: `host ${key}`, fingerprint: await fingerprintOf(call), isRepeatable: false }).catch((error: unknown) => {
    throw error instanceof HostError ? unclaimed(call, error) : error;
  });
}

/** Why the key is not to be had, in the handler's words. */
function unclaimed(call: WantedCall, error: HostError): HostError {
  const name = nameOf(call);
  switch (error.code) {
    case "idempotency_key_reused":
      return new HostError(
        "outcome_unknown",
        `an earlier attempt of this run, or an earlier call of it, asked for something else than ${name} by the same key; whether that had its effect is not known here, so nothing is sent. Ask in the same order each time, or give each call a key of its own`,
      );
    case "conflict":
      return new HostError(
        "outcome_unknown",
        `${name} was made by an earlier attempt, and its answer is not kept because it was too large`,
      );
    case "outcome_unknown":
      return new HostError("outcome_unknown", `${name} may have had its effect in an earlier attempt, so it is not sent again`);
    default:
      return error;
  }
}

async function fingerprintOf({ upstream, method, path, headers, body = "" }: WantedCall): Promise<string> {
  const encoder = new TextEncoder();
  const head = encoder.encode(JSON.stringify([upstream, method, path, Object.entries(headers).toSorted(([a], [b]) => (a < b ? -1 : 1))]));
  const rest = typeof body === "string" ? encoder.encode(body) : body;
  return hexOf(new Uint8Array(await crypto.subtle.digest("SHA-256", concatBytes([head, rest]))));
}

/** What the key is answered from now on; undefined where it is free again, or its outcome unknown. */
function keptOf({ end, json }: Tried): WholeAnswer | null | undefined {
  if (end.outcome === "too_large") return null;
  if (end.outcome !== "answered" || isRefusal(end.status) || json === null) return undefined;
  const body = new TextEncoder().encode(json);
  return body.byteLength > IDEMPOTENT_ANSWER_BYTES_MAX ? null : { status: end.status, headers: [], body };
}

function check({ rulesOf }: Caller, { upstream, method, path }: WantedCall, terms: HandTerms): void {
  const verdict = rulesOf(terms)?.call(upstream, method, path) ?? "allowed";
  if (verdict === "allowed") return;
  if (verdict !== "needs approval") throw refused(verdict.detail);
  const what = `${method} ${path.slice(0, PATH_SHOWN_CHARS)} at "${upstream}"`;
  throw refused(
    `${what} needs approval (rule "requireApproval"), and a call of a function cannot wait for it; spawn a task of it, which can`,
  );
}

async function tryCall(caller: Caller, call: WantedCall, key: string, isHarmless: boolean): Promise<Tried> {
  const { slice, cutoff } = caller;
  for (let tries = 1; ; tries++) {
    const payment = caller.purse === null ? null : payFrom(caller.purse, await slice.terms(), call);
    const leave = await slice.take(call.reserve, payment, cutoff).catch((error: unknown) => {
      payment?.settle(NOTHING);
      throw error;
    });
    const { terms } = leave;
    const first = new Held(caller, leave, priceOf(terms, call.reserve), payment);
    let tried: Tried = { end: NOT_SENT, json: null };
    try {
      check(caller, call, terms);
      tried = await sendRaced(caller, call, key, first);
    } finally {
      first.settle(tried.end);
    }
    if (tries >= terms.maxAttempts || !isWorthAnother(tried.end, isHarmless)) return tried;
    const waitMs = Math.max(backoffMs(tries, Math.random()), tried.end.retryAfterMs);
    // One that asks for more time than the run has is passed on as it is.
    if (Date.now() + waitMs >= caller.deadlineAtMs) return tried;
    await pause(waitMs, cutoff);
  }
}

const payFrom = (purse: Purse, terms: HandTerms, { reserve }: WantedCall): Payment => purse.take(terms, priceOf(terms, reserve));

function isWorthAnother({ outcome, status }: CallEnd, isHarmless: boolean): boolean {
  if (outcome === "answered") return isRefusal(status) || (isHarmless && status >= 500);
  if (outcome === "not_sent") return status !== UNSENDABLE_STATUS;
  return outcome === "broken" && isHarmless;
}

function pause(ms: number, cutoff: Cutoff): Promise<void> {
  return new Promise((resolve, reject) => {
    const end = (): void => {
      clearTimeout(timer);
      reject(new HostError("canceled", "the run has ended"));
    };
    const timer = setTimeout(() => {
      cutoff.forget(end);
      resolve();
    }, ms);
    cutoff.watch(end);
  });
}

/** What the handler gets of the last try. */
function outcomeOf(call: WantedCall, { end, json }: Tried, isHarmless: boolean): string {
  const { outcome, status } = end;
  const name = nameOf(call);
  if (outcome === "answered") return json!;
  if (outcome === "too_large")
    throw new HostError("result_too_large", `${name} answered ${status} with more than ${RESPONSE_BYTES_MAX} bytes`);
  if (outcome === "not_sent")
    throw new HostError(
      "upstream_error",
      `${name} was not sent: ${status === UNSENDABLE_STATUS ? "it cannot be" : "no connection could be opened"}`,
    );
  if (!isHarmless)
    throw new HostError(
      "outcome_unknown",
      `${name} was ${outcome === "timeout" ? "not answered in time" : "cut off"}, and may have had its effect`,
    );
  if (outcome === "timeout") throw new HostError("upstream_timeout", `${name} was not answered in full in time`);
  const why =
    status === LEASE_ENDED_STATUS ? "was cut off, because its permit was not renewed in time" : "broke off before the whole answer came";
  throw errorOf(failure("upstream_error", `${name} ${why}`));
}
