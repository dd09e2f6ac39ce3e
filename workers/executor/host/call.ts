/**
 * A call that a function makes while it runs: leave for it, the call, and what
 * its end means. What does no harm is tried again within the attempt, as a
 * task's call would be; each try has leave of its own and is charged by itself.
 */
import { concatBytes, hexOf } from "../../../shared/bytes.ts";
import { failure } from "../../../shared/errors.ts";
import { IDEMPOTENT_ANSWER_BYTES_MAX, RESPONSE_BYTES_MAX } from "../../../shared/limits.ts";
import { type Amounts, NOTHING } from "../../../shared/policy/account.ts";
import { backoffMs } from "../../../shared/policy/backoff.ts";
import { type CallEnd, isRefusal, LEASE_ENDED_STATUS, NOT_SENT, UNSENDABLE_STATUS } from "../../../shared/policy/outcome.ts";
import { priceOf } from "../../../shared/policy/price.ts";
import type { Rules } from "../../../shared/policy/rules.ts";
import type { HandTerms } from "../../../shared/rpc-functions.ts";
import type { WholeAnswer } from "../../../shared/rpc-flight.ts";
import type { Cutoff } from "../../kit/cutoff.ts";
import type { Network } from "../../kit/network.ts";
import { retryAfterMsOf } from "../../kit/retry-after.ts";
import { HostError } from "../../sandbox/types.ts";
import { headOf, plainAnswer, readAnswer, usageOf } from "../answer.ts";
import { LEASE_ENDED, TIMED_OUT } from "../call.ts";
import type { Reach } from "../reach.ts";
import { answerJson } from "./answered.ts";
import type { Connections } from "./connections.ts";
import type { Cords } from "./cords.ts";
import type { Payment, Purse } from "./purse.ts";
import { type Claim, errorOf, type Leave, refused, type Slice } from "./slice.ts";
import type { WantedCall } from "./wanted.ts";

const PATH_SHOWN_CHARS = 200;

export interface Caller {
  readonly network: Network;
  /** Null where nothing can be said before a call. */
  readonly reach: Reach | null;
  readonly connections: Connections;
  /** Cut calls off as `TIMED_OUT`. */
  readonly cords: Cords;
  readonly slice: Slice;
  /** What the run is allowed, under these terms; null where nothing is restricted. */
  readonly rulesOf: (terms: HandTerms) => Rules | null;
  /** Drover's own headers. */
  readonly headers: Readonly<Record<string, string>>;
  /** Ends with the run. */
  readonly cutoff: Cutoff;
  readonly deadlineAtMs: number;
  /** What the run's task has set aside for its calls; null for nothing. */
  readonly purse: Purse | null;
  /** Hears of each try that was made. */
  readonly charge: (price: Amounts, payment: Payment | null, end: CallEnd) => void;
}

/** How a try ended, and the answer as a handler gets it; null where there is none that it can have. */
interface Tried {
  readonly end: CallEnd;
  readonly json: string | null;
}

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
    let tried: Tried = { end: NOT_SENT, json: null };
    try {
      check(caller, call, terms);
      tried = await send(caller, call, key, leave);
    } finally {
      slice.give(leave, tried.end);
      caller.charge(priceOf(terms, call.reserve), payment, tried.end);
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

async function send(caller: Caller, call: WantedCall, key: string, leave: Leave): Promise<Tried> {
  const { terms, place } = leave;
  const cord = caller.cords.take(call.timeoutMs ?? terms.timeoutMs);
  const { controller } = cord;
  const { signal } = controller;
  const stop = (reason: unknown): void => controller.abort(reason);
  leave.cut = () => controller.abort(LEASE_ENDED);
  caller.cutoff.watch(stop);
  if (caller.cutoff.isOver) stop(caller.cutoff.reason);
  const origin = terms.origins[place] ?? terms.origins[0]!;
  const init = initOf(caller, call, key, terms, signal);
  let startedAtMs = Date.now();
  try {
    const response = await caller.connections.use(async () => {
      startedAtMs = Date.now();
      if (signal.aborted) return null;
      const isSure = caller.reach === null || call.isIdempotent || terms.isKeyed;
      if (!isSure && !(await caller.reach.isOpen(origin, startedAtMs, signal))) return null;
      return caller.network.fetch(origin + call.path, init);
    });
    if (response === null) return { end: { ...NOT_SENT, status: signal.aborted ? UNSENDABLE_STATUS : 0 }, json: null };
    caller.reach?.saw(origin, startedAtMs);
    return await answered(call, terms, response, startedAtMs);
  } catch {
    if (!signal.aborted && isUnsendable(origin + call.path, init)) return { end: NOT_SENT, json: null };
    if (!signal.aborted) caller.reach?.lost(origin);
    return { end: failed(signal, startedAtMs), json: null };
  } finally {
    leave.cut = null;
    caller.cutoff.forget(stop);
    caller.cords.give(cord);
  }
}

function initOf({ headers: ours }: Caller, call: WantedCall, key: string, terms: HandTerms, signal: AbortSignal): RequestInit {
  const headers: Record<string, string> = {};
  for (const name in terms.headers) headers[name.toLowerCase()] = terms.headers[name]!;
  Object.assign(headers, call.headers, ours, { "idempotency-key": key });
  return { method: call.method, headers, redirect: "manual", signal, ...(call.body === undefined ? {} : { body: call.body }) };
}

function isUnsendable(url: string, init: RequestInit): boolean {
  try {
    new Request(url, init);
    return false;
  } catch {
    return true;
  }
}

async function answered(
  call: WantedCall,
  { tokensPointer, costPointer }: HandTerms,
  response: Response,
  startedAtMs: number,
): Promise<Tried> {
  const nowMs = Date.now();
  const head = headOf(response, call.method);
  const end = { status: head.status, ms: nowMs - startedAtMs, retryAfterMs: retryAfterMsOf(head.headers.get("retry-after"), nowMs) };
  const answer = head.isPlain ? plainAnswer(head, await response.text()) : await readAnswer(response, head);
  if (answer === null) return { end: { ...end, outcome: "too_large" }, json: null };
  const json = answerJson(answer);
  if (json.length > 2 * RESPONSE_BYTES_MAX) return { end: { ...end, outcome: "too_large" }, json: null };
  return { end: { ...end, outcome: "answered", ...usageOf(answer, tokensPointer, costPointer) }, json };
}

function failed({ aborted, reason }: AbortSignal, startedAtMs: number): CallEnd {
  const ms = Date.now() - startedAtMs;
  if (aborted && reason === TIMED_OUT) return { outcome: "timeout", status: 0, ms, retryAfterMs: 0 };
  return { outcome: "broken", status: aborted ? LEASE_ENDED_STATUS : 0, ms, retryAfterMs: 0 };
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
