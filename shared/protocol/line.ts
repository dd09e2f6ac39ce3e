/**
 * A result line: how an executor reports one attempt, and how the goal keeps
 * it. Nine integers, then the payload as JSON text, then a newline:
 *
 *   [task,attempt,outcome,status,retryAfterMs,startedAtMs,endedAtMs,tokens,costMicros,payload]\n
 *
 * The goal reads the integers by character code and never parses the payload.
 * `payload` is a `CallResult` where the upstream answered with success, and a
 * `Failure` otherwise.
 *
 * The line of a function's run has a tenth integer before the payload: how
 * many calls it made. What they used is told, not charged: each of them is
 * charged by itself. Where the task had set something aside, three integers
 * more say what was used of that, in calls, tokens and money, beside the others.
 *
 * The line of an attempt that was hedged tells of the better of its two tries,
 * and has three integers more before the payload, about the other one: whether
 * that was the first, when it began, and its status.
 *
 * The outcome of a line with three integers more is written MORE higher.
 */
import { assert } from "../assert.ts";
import type { TaskErrorCode } from "../errors.ts";
import { type Amounts, CALLS, COST, TOKENS } from "../policy/account.ts";

/** How a function's run that did not return ended: the code of the task. */
export const RUN_FAILURES = [
  "function_error",
  "function_limit",
  "budget_exhausted",
  "upstream_error",
  "upstream_timeout",
  "result_too_large",
  "outcome_unknown",
  "denied",
  "lock_lost",
] as const satisfies readonly TaskErrorCode[];
export type RunFailure = (typeof RUN_FAILURES)[number];

/** By number: those are on disks, so words are only ever added. From `returned` on they are of functions. */
export const OUTCOMES = ["answered", "timeout", "not_sent", "broken", "too_large", "returned", ...RUN_FAILURES] as const;
/**
 * How an attempt ended. `answered`: there is a status. `not_sent`: nothing
 * reached the upstream, surely. `broken`: the connection broke, and the call
 * may have had its effect. `returned`: the function did.
 */
export type Outcome = (typeof OUTCOMES)[number];

/** What an upstream answered: JSON as JSON, text as a string, other bytes as base64. */
export interface CallResult {
  readonly status: number;
  readonly headers?: Readonly<Record<string, string>>;
  readonly encoding?: "base64";
  readonly body: unknown;
}

export interface LineHead {
  readonly task: number;
  readonly attempt: number;
  readonly outcome: Outcome;
  readonly status: number;
  readonly retryAfterMs: number;
  readonly startedAtMs: number;
  readonly endedAtMs: number;
  /** What the answer says that it used; 0 where it says nothing. */
  readonly tokens: number;
  /** As `tokens`, in millionths of a US dollar. */
  readonly costMicros: number;
  /** What a function's run made; 0 for anything else. */
  readonly calls: number;
  /** What a function's run used of what its task had set aside, in the order of dimensions; left out where that was nothing at all. */
  readonly drawn?: Amounts | undefined;
  /** The other try of an attempt that was hedged. */
  readonly beaten?: Beaten | undefined;
}

/** The try that did not count, of the two of an attempt. */
export interface Beaten {
  /** It was the first: the hedge won. */
  readonly isFirst: boolean;
  readonly startedAtMs: number;
  /** 0 where it was aborted, or not answered. */
  readonly status: number;
}

/** A head as it is written: what is left out was not said. */
export type NewLineHead = Omit<LineHead, Usage> & Partial<Pick<LineHead, Usage>>;
type Usage = "tokens" | "costMicros" | "calls";

/** The head of an attempt that began with another try, at `firstAtMs`, than the one that is told of. */
export const afterFirst = (head: NewLineHead, firstAtMs: number): NewLineHead => ({
  ...head,
  startedAtMs: firstAtMs,
  beaten: { isFirst: true, startedAtMs: firstAtMs, status: 0 },
});

const COMMA = 44;
const ZERO = 48;
const OUTCOME = 2;
const RETURNED = OUTCOMES.indexOf("returned");
/** More than there will ever be outcomes. */
const MORE = 64;
/** Integers before the payload. */
const widthOf = (outcome: number): number => (outcome % MORE < RETURNED ? 9 : 10) + (outcome >= MORE ? 3 : 0);

/** `payload` is JSON text without a newline. */
export function formatLine(head: NewLineHead, payload: string): string {
  const outcome = OUTCOMES.indexOf(head.outcome);
  const { task, attempt, status, retryAfterMs, startedAtMs, endedAtMs, tokens = 0, costMicros = 0, calls = 0, beaten, drawn } = head;
  const isRun = outcome >= RETURNED;
  assert(isRun ? beaten === undefined : drawn === undefined, "only calls are hedged, and only runs draw");
  const written = beaten === undefined && drawn === undefined ? outcome : outcome + MORE;
  let text = `[${task},${attempt},${written},${status},${retryAfterMs},${startedAtMs},${endedAtMs},${tokens},${costMicros}`;
  if (isRun) text += `,${calls}`;
  if (drawn !== undefined) text += `,${drawn[CALLS]},${drawn[TOKENS]},${drawn[COST]}`;
  if (beaten !== undefined) text += `,${beaten.isFirst ? 1 : 0},${beaten.startedAtMs},${beaten.status}`;
  return `${text},${payload}]\n`;
}

/** Reads the head of a line, with or without its newline. Throws on a line that no executor writes. */
export function parseLineHead(line: string): LineHead {
  const numbers: number[] = [];
  let at = 1;
  for (let i = 0, width = widthOf(0); i < width; i++) {
    let value = 0;
    for (;;) {
      const code = line.charCodeAt(at++);
      if (code === COMMA) break;
      assert(code >= ZERO && code <= ZERO + 9, () => `not a result line: ${line.slice(0, 80)}`);
      value = value * 10 + code - ZERO;
    }
    numbers.push(value);
    if (i === OUTCOME) width = widthOf(value);
  }
  const hasMore = numbers[2]! >= MORE;
  const outcome = OUTCOMES[numbers[2]! % MORE];
  assert(outcome !== undefined, "a line's outcome must be known");
  const isRun = numbers[2]! % MORE >= RETURNED;
  const [more0, more1, more2] = numbers.slice(-3) as [number, number, number];
  return {
    task: numbers[0]!,
    attempt: numbers[1]!,
    outcome,
    status: numbers[3]!,
    retryAfterMs: numbers[4]!,
    startedAtMs: numbers[5]!,
    endedAtMs: numbers[6]!,
    tokens: numbers[7]!,
    costMicros: numbers[8]!,
    calls: isRun ? numbers[9]! : 0,
    ...(hasMore && isRun && { drawn: [0, more0, more1, more2] }),
    ...(hasMore && !isRun && { beaten: { isFirst: more0 === 1, startedAtMs: more1, status: more2 } }),
  };
}

/** The payload's JSON text of a line, with or without its newline. */
export function payloadOf(line: string): string {
  let at = 0;
  for (let i = 0, width = widthOf(0); i < width; i++) {
    const from = at;
    at = line.indexOf(",", at) + 1;
    if (i === OUTCOME) width = widthOf(Number(line.slice(from, at - 1)));
  }
  return line.slice(at, line.lastIndexOf("]"));
}
