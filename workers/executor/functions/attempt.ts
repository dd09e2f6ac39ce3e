/** One attempt at a function's task: an invocation in the sandbox, and its end as a result line. */
import { type ErrorCode, ERRORS, type Failure, failure } from "../../../shared/errors.ts";
import { PROBLEM_CHARS_MAX, RESPONSE_BYTES_MAX } from "../../../shared/limits.ts";
import { GIVEN_BACK_STATUS, RUN_AGAIN_STATUS } from "../../../shared/policy/outcome.ts";
import { formatLine, RUN_FAILURES, type RunFailure } from "../../../shared/protocol/line.ts";
import type { RunBatch, RunItem } from "../../../shared/rpc-functions.ts";
import type { Cutoff } from "../../kit/cutoff.ts";
import type { Program } from "../../sandbox/programs.ts";
import type { HostCalls } from "../../sandbox/types.ts";
import type { Ended } from "../../../shared/protocol/function.ts";
import { jsonLine } from "../answer.ts";
import { NOT_BEGUN, UNWANTED } from "../call.ts";
import type { FunctionHost } from "../host/types.ts";

export interface RunContext {
  readonly batch: RunBatch;
  /** Rejects where the version cannot be had. */
  readonly program: Promise<Program>;
  readonly host: FunctionHost;
}

interface End {
  readonly outcome: "returned" | RunFailure;
  readonly status: number;
  readonly payload: string;
}

const OK_STATUS = 200;
const FINAL_STATUS = 500;

interface Problem extends Failure {
  readonly stack?: string | undefined;
}

function failed(outcome: RunFailure, detail: string, isWorthAnother: boolean, stack?: string): End {
  const problem: Problem = { ...failure(outcome, detail.slice(0, PROBLEM_CHARS_MAX)), stack: stack?.slice(0, PROBLEM_CHARS_MAX) };
  return { outcome, status: isWorthAnother ? RUN_AGAIN_STATUS : FINAL_STATUS, payload: JSON.stringify(problem) };
}

const isRunFailure = (code: ErrorCode): code is RunFailure => (RUN_FAILURES as readonly ErrorCode[]).includes(code);

/** An upstream that could not be reached may be reached the next time. */
const isTransient = (code: ErrorCode): boolean => code === "upstream_error" || ERRORS[code].retryable;

function endOf(ended: Ended): End {
  if (ended.outcome === "failed") {
    const { code, detail, stack, retryable = isTransient(code) } = ended;
    if (code === "function_limit") return failed(code, detail, false, stack);
    return isRunFailure(code) ? failed(code, detail, retryable, stack) : failed("function_error", `${code}: ${detail}`, retryable, stack);
  }
  const { output } = ended;
  if (output.length > RESPONSE_BYTES_MAX) {
    return failed("result_too_large", `the function returned more than the ${RESPONSE_BYTES_MAX} characters that a result may have`, false);
  }
  // The guest has made it, and may have made it wrong on purpose.
  const body = jsonLine(output);
  if (body === null) return failed("function_error", "what the function returned is not JSON", false);
  return { outcome: "returned", status: OK_STATUS, payload: `{"status":200,"body":${body}}` };
}

/** What the handler gets to know of its task, as JSON text. */
function aboutOf({ goalId }: RunBatch, { taskId, key, attempt }: RunItem): string {
  return JSON.stringify({ goal: { id: goalId }, task: { id: taskId, key, attempt } });
}

/** The line of an item that was not tried. */
export function notBegun({ task, attempt }: RunItem): string {
  const nowMs = Date.now();
  const head = { outcome: "not_sent", status: GIVEN_BACK_STATUS, retryAfterMs: 0, startedAtMs: nowMs, endedAtMs: nowMs } as const;
  return formatLine({ task, attempt, ...head }, JSON.stringify(failure("function_error", "not tried: the executor is full")));
}

/** Never throws. Null for an attempt that was aborted as unwanted. */
export async function attempt(context: RunContext, item: RunItem, cutoff: Cutoff, begun: () => void): Promise<string | null> {
  const { batch, program, host } = context;
  let startedAtMs = Date.now();
  let end: End;
  // Many functions never ask.
  let calls: HostCalls | null = null;
  try {
    const invoke = await program;
    const invocation = {
      input: item.input,
      about: aboutOf(batch, item),
      limits: batch.function.limits,
      calls: (op: string, args: string, seq: number) => (calls ??= host.callsOf(item, cutoff))(op, args, seq),
      cutoff,
      timeoutMs: item.timeoutMs,
      begun: () => {
        startedAtMs = Date.now();
        begun();
      },
    };
    end = endOf(await invoke(invocation));
  } catch (error) {
    end = failed("function_error", `the function "${batch.function.name}" cannot be run: ${String(error)}`, true);
  }
  const usage = host.usageOf(item);
  if (cutoff.isOver && end.outcome !== "returned") {
    if (cutoff.reason === UNWANTED) return null;
    if (cutoff.reason === NOT_BEGUN) return notBegun(item);
    end = failed("function_limit", `the function did not end within ${item.timeoutMs} ms`, false);
  }
  const { outcome, status, payload } = end;
  const { task, attempt } = item;
  return formatLine({ task, attempt, outcome, status, retryAfterMs: 0, startedAtMs, endedAtMs: Date.now(), ...usage }, payload);
}
