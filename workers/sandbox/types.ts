/** What the sandbox takes and gives: a version's image, one invocation of it, and how that ended. */
import type { Cutoff } from "../kit/cutoff.ts";
import type { ErrorCode } from "../../shared/errors.ts";
import type { FunctionLimits } from "../../shared/protocol/function.ts";

/**
 * Answers what a handler asks of the world: JSON text in, JSON text out. A
 * rejection with a `HostError` becomes an error in the handler, with its code.
 *
 *   op        args                                               answer
 *   call      {upstream, request: {method?, path, headers?, body?, idempotent?, reserve?, timeoutMs?, key?}}   {status, headers, body}
 *   fetch     {url, init: {method?, headers?, body?}}             {status, headers, body}
 *   spawn     {tasks: [task, …]}                                  {receipts: [{taskId, status}, …]}
 *   results   {tasks?: [id or key, …]}                            {results: [{taskId, key, status, result?, problem?}, …]}
 *   lock      {name, scope?, mode?, ttlMs?, waitMs?}              {fence, expiresAt}
 *   unlock    {name, scope?, fence}                               null
 *   log       {level, text}                                       null
 *
 * `seq` counts the asks of one invocation from 1. `body` is a JSON value, a
 * string, or base64 where `encoding` says so, as in a task's result.
 */
export type HostCalls = (op: string, args: string, seq: number) => Promise<string>;

export class HostError extends Error {
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string) {
    super(message);
    this.code = code;
  }
}

export interface Invocation {
  /** JSON text. */
  readonly input: string;
  /** JSON text of `{goal: {id}, task: {id, key?, attempt}}`. */
  readonly about: string;
  readonly limits: FunctionLimits;
  readonly calls: HostCalls;
  /** Ends the invocation. The reason is what `Lanes` gives to calls. */
  readonly cutoff: Cutoff;
  /** Whoever asked for it ends it after this. Where it does not, because the platform has canceled its request, what the invocation holds is given up then. */
  readonly timeoutMs: number;
  /** Called once, when there is an instance for it: until then it waits, and the time that it may take does not run. */
  readonly begun?: (() => void) | undefined;
}
