/**
 * One attempt: a request to the upstream, and its end as a result line.
 *
 * What workerd 2026-11 says when a call fails, found by experiment:
 *
 *   what happened                                   stage    message                                     retryable
 *   connection refused (plain or TLS)               headers  "Network connection lost."                  true
 *   accepted, then closed or reset without reading  headers  "Network connection lost."                  true
 *   closed or reset after the request was read      headers  "Network connection lost."                  true
 *   half a head, not HTTP, a bad content-length     headers  "Network connection lost."                  true
 *   reset or closed in the middle of a body         body     "Network connection lost."                  true
 *   not the gzip that it says it is                 body     "Gzip decompression failed."                -
 *   unknown name, forbidden address, TLS handshake  headers  "internal error; reference = …"             -
 *   a URL or a header that cannot be sent           headers  a TypeError, which `new Request` throws too -
 *
 * So no error of `fetch` but the last proves that nothing was sent: `not_sent`
 * is that one, and what `Reach` refused before the call. All else is `broken`.
 *
 * workerd itself sends GET, HEAD, PUT, DELETE and OPTIONS without a body once
 * more, on a new connection, when a kept-alive one breaks before the answer's
 * head; it never repeats POST or PATCH, nor anything with a body. A connection
 * that the upstream closed while it was idle is noticed and not used.
 */
import { failure, type Failure } from "../../shared/errors.ts";
import { RESPONSE_BYTES_MAX } from "../../shared/limits.ts";
import { GIVEN_BACK_STATUS, LEASE_ENDED_STATUS, UNSENDABLE_STATUS, type Verdict, verdictOfCall } from "../../shared/policy/outcome.ts";
import { afterFirst, formatLine, type NewLineHead, type Outcome } from "../../shared/protocol/line.ts";
import { IDEMPOTENT_METHODS } from "../../shared/protocol/task.ts";
import type { Batch, BatchItem } from "../../shared/rpc-batch.ts";
import { type Answer, excerptOf, type Head, headOf, plainAnswer, readAnswer, resultOf, type Usage, usageOf } from "./answer.ts";
import type { Network } from "../kit/network.ts";
import { retryAfterMsOf } from "../kit/retry-after.ts";
import type { Reach } from "./reach.ts";
import { requestOf } from "./request.ts";

/** Reasons of an abort. */
export const TIMED_OUT = "timed out";
export const UNWANTED = "unwanted";
export const NOT_BEGUN = "not begun";
export const LEASE_ENDED = "the permit ended";

const PATH_SHOWN_CHARS = 200;

export interface CallContext {
  readonly batch: Batch;
  readonly common: Readonly<Record<string, string>>;
  /** Null where nothing can be said before a call. */
  readonly reach: Reach | null;
  readonly network: Network;
  /** Hears what the end of each call says of the upstream. */
  readonly note: (verdict: Verdict) => void;
}

interface End {
  readonly outcome: Outcome;
  readonly status: number;
  readonly retryAfterMs: number;
  readonly payload: string;
  readonly usage?: Usage;
}

const isSuccess = (status: number): boolean => status >= 200 && status < 400;
const nameOf = (item: BatchItem): string => `${item.method} ${item.path.slice(0, PATH_SHOWN_CHARS)}`;

function failed(outcome: Outcome, fault: Failure, status = 0, retryAfterMs = 0): End {
  return { outcome, status, retryAfterMs, payload: JSON.stringify(fault) };
}

function tooLarge(item: BatchItem, status: number): End {
  const detail = `${nameOf(item)} answered ${status} with more than the ${RESPONSE_BYTES_MAX} bytes that a result may have`;
  return failed("too_large", failure("result_too_large", detail), status);
}

/** How an answered attempt ends. `answer` is null where there was too much of it. */
function ended(item: BatchItem, { status, headers }: Head, answer: Answer | null, batch: Batch): End {
  if (isSuccess(status)) {
    const payload = answer === null ? null : resultOf(answer);
    if (payload === null) return tooLarge(item, status);
    return {
      outcome: "answered",
      status,
      retryAfterMs: 0,
      payload,
      usage: usageOf(answer!, batch.tokensPointer, batch.costPointer ?? null),
    };
  }
  const retryAfterMs = retryAfterMsOf(headers.get("retry-after"), Date.now());
  const excerpt = answer === null ? "" : excerptOf(answer);
  const detail = `${nameOf(item)} answered ${status}${excerpt === "" ? "" : `: ${excerpt}`}`;
  return failed("answered", failure("upstream_error", detail), status, retryAfterMs);
}

/** Whether the request was refused before anything could be sent. */
export function isUnsendable(url: string, init: RequestInit): boolean {
  try {
    new Request(url, init);
    return false;
  } catch {
    return true;
  }
}

/** What a fault says of the attempt. */
function broken({ batch, reach }: CallContext, item: BatchItem, url: string, init: RequestInit, error: unknown): End {
  if (init.signal!.aborted && init.signal!.reason === LEASE_ENDED) {
    const detail = `${nameOf(item)} was cut off, because its permit was not renewed in time`;
    return failed("broken", failure("upstream_error", detail), LEASE_ENDED_STATUS);
  }
  if (init.signal!.aborted) {
    return failed("timeout", failure("upstream_timeout", `${nameOf(item)} was not answered in full within ${item.timeoutMs} ms`));
  }
  if (isUnsendable(url, init))
    return failed("not_sent", failure("upstream_error", `${nameOf(item)} cannot be sent: ${String(error)}`), UNSENDABLE_STATUS);
  reach?.lost(batch.origin);
  return failed("broken", failure("upstream_error", `${nameOf(item)}: the connection broke before the whole answer came`));
}

/** A second try tells of the attempt, which began before it. */
const headOfTry = ({ firstAtMs }: BatchItem, head: NewLineHead): NewLineHead =>
  firstAtMs === undefined ? head : afterFirst(head, firstAtMs);

/** The line of an item that was not tried. */
export function givenBack(item: BatchItem): string {
  const nowMs = Date.now();
  const { task, attempt } = item;
  const line = {
    task,
    attempt,
    outcome: "not_sent",
    status: GIVEN_BACK_STATUS,
    retryAfterMs: 0,
    startedAtMs: nowMs,
    endedAtMs: nowMs,
  } as const;
  return formatLine(headOfTry(item, line), JSON.stringify(failure("upstream_error", "not tried: the calls before it did not get through")));
}

/**
 * Never throws. Null for an attempt that was aborted as unwanted. One function
 * on purpose: each `async` function between here and `fetch` costs a tenth of
 * a call.
 */
export async function call(context: CallContext, item: BatchItem, signal: AbortSignal): Promise<string | null> {
  const { batch, common, reach, network } = context;
  const startedAtMs = Date.now();
  const url = batch.origin + item.path;
  const init = requestOf(batch, common, item, signal);
  let end: End;
  try {
    const isSure = reach === null || (IDEMPOTENT_METHODS.has(item.method) && !reach.isSuspect(batch.origin));
    if (!isSure && !(await reach.isOpen(batch.origin, startedAtMs, signal))) {
      end = failed("not_sent", failure("upstream_error", `${nameOf(item)} was not sent: no connection to ${batch.origin} could be opened`));
    } else {
      const response = await network.fetch(url, init);
      reach?.saw(batch.origin, startedAtMs);
      const head = headOf(response, item.method);
      let answer: Answer | null;
      if (head.isPlain && isSuccess(head.status)) answer = plainAnswer(head, await response.text());
      else if (isSuccess(head.status)) answer = await readAnswer(response, head);
      // The status says it all; a body that breaks off must not hide it.
      else answer = await readAnswer(response, head).catch(() => null);
      end = ended(item, head, answer, batch);
    }
  } catch (error) {
    end = broken(context, item, url, init, error);
  }
  if (signal.aborted && signal.reason === UNWANTED) return null;
  const { outcome, status, retryAfterMs, payload, usage } = end;
  context.note(verdictOfCall(outcome, status));
  const line = {
    task: item.task,
    attempt: item.attempt,
    outcome,
    status,
    retryAfterMs,
    startedAtMs,
    endedAtMs: Date.now(),
    ...usage,
  };
  return formatLine(headOfTry(item, line), payload);
}
