/** `POST /v1/functions/{name}/invoke`: one run outside any goal, for trying a function out. */
import { type ErrorCode, type Failure, failure, type Fault } from "../../../shared/errors.ts";
import { INVOKE_TIMEOUT_MS_MAX, PROBLEM_CHARS_MAX, TIMEOUT_MS_DEFAULT } from "../../../shared/limits.ts";
import { rulesOf } from "../../../shared/policy/rules.ts";
import type { Ended, FunctionVersion } from "../../../shared/protocol/function.ts";
import { err, ok, type Result } from "../../../shared/result.ts";
import type { Answer } from "../../../shared/rpc.ts";
import type { RunLog } from "../../../shared/rpc-functions.ts";
import type { RunLone } from "../../sandbox/lone.ts";
import { type EdgeContext, type Handler, tenantStub } from "../context.ts";
import { readAs } from "../middleware/shape.ts";
import { json, problem } from "../reply.ts";

interface Wanted {
  /** JSON text. */
  readonly input: string;
  readonly timeoutMs: number;
}

interface InvokeProblem extends Failure {
  readonly stack?: string | undefined;
  readonly logs: readonly RunLog[];
}

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

/** What the run itself is told by; anything else is an error of a host call, that the function let pass. */
const OWN: ReadonlySet<ErrorCode> = new Set(["function_error", "function_limit", "temporary_reduced_capacity"]);

function failed(ended: Extract<Ended, { outcome: "failed" }>, logs: readonly RunLog[], timedOut: number | null): Response {
  const { code, detail, stack } = ended;
  const isOwn = OWN.has(code);
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

export function invokedBy(runLone: RunLone): Handler {
  return async (c) => {
    const request = await readAs(c.req.raw, "the invocation", parseInvoke);
    if (!request.ok) return problem(request.error);
    const version = await allowed(c);
    if (!version.ok) return problem(version.error);
    const { timeoutMs } = request.value.value;
    const asker = { env: c.env, waitUntil: (work: Promise<unknown>) => c.executionCtx.waitUntil(work), left: c.req.raw.signal };
    const { ended, isLate, logs } = await runLone({ ...request.value.value, function: version.value }, asker);
    if (ended.outcome === "failed") return failed(ended, logs, isLate ? timeoutMs : null);
    // The guest has made it, and may have made it wrong on purpose.
    const output = parsed(ended.output);
    if (output === undefined) return problem(failure("function_error", "what the function returned is not JSON"));
    return json(JSON.stringify({ output, logs, cpuMs: ended.cpuMs }));
  };
}
