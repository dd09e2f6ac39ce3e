/** `POST /v1/functions/{name}/invoke`: one run outside any goal, for trying a function out. */
import { type Failure, failure, type Fault } from "../../../shared/errors.ts";
import { INVOKE_TIMEOUT_MS_MAX, PROBLEM_CHARS_MAX, TIMEOUT_MS_DEFAULT } from "../../../shared/limits.ts";
import { rulesOf } from "../../../shared/policy/rules.ts";
import type { FunctionVersion } from "../../../shared/protocol/function.ts";
import { err, ok, type Result } from "../../../shared/result.ts";
import type { Answer } from "../../../shared/rpc.ts";
import { Cutoff } from "../../kit/cutoff.ts";
import { programOf } from "../../sandbox/programs.ts";
import { type Ended, HostError } from "../../sandbox/types.ts";
import { type EdgeContext, tenantStub } from "../context.ts";
import { readAs } from "../middleware/shape.ts";
import { json, problem } from "../reply.ts";

interface Wanted {
  /** JSON text. */
  readonly input: string;
  readonly timeoutMs: number;
}

interface Log {
  readonly level: unknown;
  readonly text: string;
}

interface InvokeProblem extends Failure {
  readonly stack?: string | undefined;
  readonly logs: readonly Log[];
}

const ABOUT = JSON.stringify({ goal: { id: "none" }, task: { id: "invoke", attempt: 1 } });
const NOTHING = "null";

function parseInvoke(body: unknown): Result<Wanted, Fault[]> {
  const { input, timeoutMs = TIMEOUT_MS_DEFAULT, ...rest } = body as Readonly<Record<string, unknown>>;
  const faults: Fault[] = Object.keys(rest).map((name) => ({ pointer: `/${name}`, detail: "is not known here; input and timeoutMs are" }));
  const isTime = Number.isInteger(timeoutMs) && (timeoutMs as number) >= 1 && (timeoutMs as number) <= INVOKE_TIMEOUT_MS_MAX;
  if (!isTime) faults.push({ pointer: "/timeoutMs", detail: `must be a whole number from 1 to ${INVOKE_TIMEOUT_MS_MAX}` });
  return faults.length > 0 ? err(faults) : ok({ input: JSON.stringify(input ?? null), timeoutMs: timeoutMs as number });
}

/** The version, where policy and token allow it to be run. */
async function allowed(c: EdgeContext): Promise<Answer<FunctionVersion>> {
  const name = c.req.param("name") ?? "";
  const { functions = [], policy = null } = await tenantStub(c.env).registry();
  const rules = [rulesOf([{ from: "the tenant's policy", policies: policy === null ? [] : [policy] }]), c.get("caller").rules];
  for (const one of rules) {
    const verdict = one?.run(name) ?? "allowed";
    if (verdict !== "allowed") return err(failure("permission_denied", verdict.detail));
  }
  const found = functions.find((version) => version.name === name);
  return found === undefined ? err(failure("not_found", `there is no function "${name}"; PUT /v1/functions/${name} makes one`)) : ok(found);
}

/** There is no goal to charge, to ask or to lock in. */
function hostOf(logs: Log[]): (op: string, args: string) => Promise<string> {
  return async (op, args) => {
    if (op !== "log") {
      throw new HostError(
        "invalid_request",
        `ctx.${op} works in a task of a goal only, and this is an invocation by itself; submit a task with "run"`,
      );
    }
    const { level, text } = JSON.parse(args) as { level: unknown; text: unknown };
    logs.push({ level, text: String(text) });
    return NOTHING;
  };
}

function failed(ended: Extract<Ended, { outcome: "failed" }>, logs: readonly Log[], timedOut: number | null): Response {
  const { code, detail, stack } = ended;
  const isOwn = code === "function_error" || code === "function_limit";
  const fault =
    timedOut === null
      ? failure(isOwn ? code : "function_error", (isOwn ? detail : `${code}: ${detail}`).slice(0, PROBLEM_CHARS_MAX))
      : failure("function_limit", `the function did not end within ${timedOut} ms`);
  const told: InvokeProblem = { ...fault, stack: stack?.slice(0, PROBLEM_CHARS_MAX), logs };
  return problem(told);
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return undefined;
  }
}

/** Runs it until its time is over, or nobody waits for it any more. */
async function within(
  timeoutMs: number,
  caller: AbortSignal,
  run: (cutoff: Cutoff) => Promise<Ended>,
): Promise<{ readonly ended: Ended; readonly isLate: boolean }> {
  const cutoff = new Cutoff();
  let isLate = false;
  const timer = setTimeout(() => {
    isLate = true;
    cutoff.end("timed out");
  }, timeoutMs);
  const leave = (): void => cutoff.end("its caller has gone");
  caller.addEventListener("abort", leave, { once: true });
  if (caller.aborted) leave();
  try {
    return { ended: await run(cutoff), isLate };
  } finally {
    clearTimeout(timer);
    caller.removeEventListener("abort", leave);
  }
}

export async function invokeFunction(c: EdgeContext): Promise<Response> {
  const request = await readAs(c.req.raw, "the invocation", parseInvoke);
  if (!request.ok) return problem(request.error);
  const version = await allowed(c);
  if (!version.ok) return problem(version.error);
  const { input, timeoutMs } = request.value.value;
  const program = await programOf(c.env, "request", version.value);
  const logs: Log[] = [];
  const { limits } = version.value;
  const { ended, isLate } = await within(timeoutMs, c.req.raw.signal, (cutoff) =>
    program({ input, about: ABOUT, limits, calls: hostOf(logs), cutoff, timeoutMs }),
  );
  if (ended.outcome === "failed") return failed(ended, logs, isLate ? timeoutMs : null);
  // The guest has made it, and may have made it wrong on purpose.
  const output = parsed(ended.output);
  if (output === undefined) return problem(failure("function_error", "what the function returned is not JSON"));
  return json(JSON.stringify({ output, logs, cpuMs: ended.cpuMs }));
}
