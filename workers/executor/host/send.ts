/** One try of a call that a function makes: from its leave to its answer as a handler gets it. */
import { RESPONSE_BYTES_MAX } from "../../../shared/limits.ts";
import type { Amounts } from "../../../shared/policy/account.ts";
import { type CallEnd, LEASE_ENDED_STATUS, NOT_SENT, UNSENDABLE_STATUS } from "../../../shared/policy/outcome.ts";
import type { Rules } from "../../../shared/policy/rules.ts";
import type { HandTerms } from "../../../shared/rpc-functions.ts";
import type { Cutoff } from "../../kit/cutoff.ts";
import type { Network } from "../../kit/network.ts";
import { retryAfterMsOf } from "../../kit/retry-after.ts";
import { headOf, plainAnswer, readAnswer, usageOf } from "../answer.ts";
import { isUnsendable, LEASE_ENDED, TIMED_OUT } from "../call.ts";
import type { Reach } from "../reach.ts";
import { answerJson } from "./answered.ts";
import type { Connections } from "./connections.ts";
import type { Cords } from "./cords.ts";
import type { Leave } from "./leave.ts";
import type { Payment, Purse } from "./purse.ts";
import type { Slice } from "./slice.ts";
import type { WantedCall } from "./wanted.ts";

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
  /** Waits for the work before the batch is over. It never rejects. */
  readonly during: (work: Promise<unknown>) => void;
}

/** How a try ended, and the answer as a handler gets it; null where there is none that it can have. */
export interface Tried {
  readonly end: CallEnd;
  readonly json: string | null;
}

/** One try. Never rejects. `begun` hears when it leaves; a second try has the next connection that comes free. */
export async function send(
  caller: Caller,
  call: WantedCall,
  key: string,
  leave: Leave,
  timeoutMs: number,
  begun: () => void,
): Promise<Tried> {
  const { terms, place } = leave;
  const cord = caller.cords.take(timeoutMs);
  const { controller } = cord;
  const { signal } = controller;
  const stop = (reason: unknown): void => controller.abort(reason);
  leave.cut = () => controller.abort(LEASE_ENDED);
  caller.cutoff.watch(stop);
  if (caller.cutoff.isOver) stop(caller.cutoff.reason);
  const origin = terms.origins[place] ?? terms.origins[0]!;
  const init = initOf(caller, call, key, terms, signal);
  let startedAtMs = Date.now();
  let isUnreachable = false;
  try {
    const response = await caller.connections.use(async () => {
      startedAtMs = Date.now();
      if (signal.aborted) return null;
      begun();
      const isSure = caller.reach === null || ((call.isIdempotent || terms.isKeyed) && !caller.reach.isSuspect(origin));
      if (!isSure && !(await caller.reach.isOpen(origin, startedAtMs, signal))) {
        isUnreachable = !signal.aborted || signal.reason === TIMED_OUT;
        return null;
      }
      return caller.network.fetch(origin + call.path, init);
    }, leave.isSecond);
    if (response === null) return { end: { ...NOT_SENT, status: isUnreachable ? 0 : UNSENDABLE_STATUS }, json: null };
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
