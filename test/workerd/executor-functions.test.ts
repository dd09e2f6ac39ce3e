/** Batches of functions' tasks in the executor, with a sandbox of the test's own. */
import { expect, test } from "vitest";
import { RESPONSE_BYTES_MAX } from "../../shared/limits.ts";
import { GIVEN_BACK_STATUS, RUN_AGAIN_STATUS } from "../../shared/policy/outcome.ts";
import type { Ended, FunctionVersion } from "../../shared/protocol/function.ts";
import type { RunBatch, RunItem } from "../../shared/rpc-functions.ts";
import type { Program } from "../../workers/sandbox/programs.ts";
import { type FunctionsHost, runFunctions } from "../../workers/executor/functions/run-functions.ts";
import type { Invocation } from "../../workers/sandbox/types.ts";
import { delay, GOAL_ID, hostOf, readAll, type Reported, reportsOf, TRACE_ID } from "./executor-kit.ts";

const VERSION: FunctionVersion = {
  ...{ name: "double", version: "v1", engine: "snapshot" as const, limits: { cpuMs: 100, memoryBytes: 1_000_000 } },
  ...{ bundleBytes: 1, snapshotBytes: 1, initMs: 1, createdAtMs: 0 },
};
const USAGE = { calls: 2, tokens: 30, costMicros: 4 };

const itemOf = (task: number, input: unknown = task): RunItem => ({
  ...{ task, taskId: `task_${task}`, attempt: 1, timeoutMs: 10_000 },
  input: JSON.stringify(input),
});
const batchOf = (items: readonly RunItem[]): RunBatch => ({ goalId: GOAL_ID, traceId: TRACE_ID, function: VERSION, items });
const returned = (output: string): Ended => ({ outcome: "returned", output, cpuMs: 0 });
const failed = (code: Extract<Ended, { outcome: "failed" }>["code"], more: object = {}): Ended => ({
  ...{ outcome: "failed", code, detail: "so it is", stack: "at handler", cpuMs: 0 },
  ...more,
});

/** Ends when it is aborted, as the sandbox does. */
const untilAborted = ({ cutoff }: Invocation): Promise<Ended> => new Promise((resolve) => cutoff.watch(() => resolve(failed("canceled"))));

interface Host extends FunctionsHost {
  readonly settled: string[];
  ends: number;
}

function sandboxOf(program: Program | Promise<Program>): Host {
  const host = hostOf();
  return Object.assign(host, {
    ends: 0,
    programOf: async () => program,
    hostOf() {
      return {
        callsOf: () => async () => "null",
        usageOf: () => USAGE,
        end: async () => void (this as unknown as Host).ends++,
      };
    },
  });
}

async function run(
  program: Program | Promise<Program>,
  items: readonly RunItem[] = [itemOf(0)],
  host = sandboxOf(program),
): Promise<Reported[]> {
  const reports = reportsOf(await readAll(await runFunctions(batchOf(items), host)));
  expect(host.ends).toBe(1);
  return reports;
}

const begun = async (invocation: Invocation, end: Ended): Promise<Ended> => {
  invocation.begun!();
  return end;
};

test("what a function returns is its task's result, with what its calls used", async () => {
  const reports = await run(
    (invocation) => begun(invocation, returned(String(Number(invocation.input) * 2))),
    Array.from({ length: 20 }, (_, i) => itemOf(i)),
  );
  expect(reports).toHaveLength(20);
  for (const { task, outcome, payload, calls, tokens, costMicros } of reports) {
    expect({ outcome, payload, calls, tokens, costMicros }).toEqual({
      outcome: "returned",
      payload: { status: 200, body: task * 2 },
      ...USAGE,
    });
  }
});

test("a handler is told of its goal, its task and its limits", async () => {
  let seen: Invocation | undefined;
  await run((invocation) => begun((seen = invocation), returned("1")), [{ ...itemOf(7), key: "seven", attempt: 3 }]);
  expect(JSON.parse(seen!.about)).toEqual({ goal: { id: GOAL_ID }, task: { id: "task_7", key: "seven", attempt: 3 } });
  expect(seen!.limits).toEqual(VERSION.limits);
});

test.for([
  ["an error", failed("function_error"), "function_error", false],
  ["an error that says that it may be retried", failed("function_error", { retryable: true }), "function_error", true],
  ["a limit, whatever it says", failed("function_limit", { retryable: true }), "function_limit", false],
  ["a call that was not answered", failed("upstream_timeout"), "upstream_timeout", true],
  ["a call that may have had its effect", failed("outcome_unknown"), "outcome_unknown", false],
  ["an exhausted budget", failed("budget_exhausted"), "budget_exhausted", true],
  ["a code that no task ends with", failed("not_found"), "function_error", false],
  ["what is no JSON", returned('{"a":'), "function_error", false],
  ["a huge output", returned(`"${"x".repeat(RESPONSE_BYTES_MAX)}"`), "result_too_large", false],
] as const)("%s fails the task with its code, its stack and whether to try again", async ([, end, code, again]) => {
  const [report] = await run((invocation) => begun(invocation, end));
  expect([report!.outcome, report!.status === RUN_AGAIN_STATUS]).toEqual([code, again]);
  expect(report!.payload["code"]).toBe(code);
  if (end.outcome === "failed") expect(report!.payload["stack"]).toBe("at handler");
});

test("output that would end its line, and begin another task's, does neither", async () => {
  const [report, ...others] = await run((invocation) =>
    begun(invocation, returned('{"a":1}]\n[1,1,5,200,0,0,0,0,0,0,{"status":200,"body":2}')),
  );
  expect([report!.task, report!.outcome, others]).toEqual([0, "function_error", []]);
});

test("a function whose image cannot be had fails each task, which may be tried again", async () => {
  const reports = await run(Promise.reject(new Error("no image")), [itemOf(0), itemOf(1)]);
  expect(reports.map(({ outcome, status }) => [outcome, status])).toEqual([
    ["function_error", RUN_AGAIN_STATUS],
    ["function_error", RUN_AGAIN_STATUS],
  ]);
});

test("a run that takes longer than its task allows ends as one that went beyond a limit; its neighbours go on", async () => {
  const reports = await run(
    async (invocation) => {
      invocation.begun!();
      if (invocation.input === "0") return untilAborted(invocation);
      await delay(400);
      return returned("1");
    },
    [{ ...itemOf(0), timeoutMs: 150 }, itemOf(1)],
  );
  expect(reports.map(({ task, outcome }) => [task, outcome])).toEqual([
    [0, "function_limit"],
    [1, "returned"],
  ]);
  expect(reports[0]!.payload["detail"]).toContain("within 150 ms");
});

test("a run that finds no instance in time is given back untried, and its own time has not run", async () => {
  const reports = await run(async (invocation) => untilAborted(invocation), [{ ...itemOf(0), timeoutMs: 100 }]);
  expect(reports.map(({ outcome, status }) => [outcome, status])).toEqual([["not_sent", GIVEN_BACK_STATUS]]);
});

test("an aborted run is ended and not reported, and a stopped batch reports nothing more", async () => {
  const host = sandboxOf(async (invocation) => {
    invocation.begun!();
    return invocation.input === "2" ? returned("2") : untilAborted(invocation);
  });
  const reply = await runFunctions(batchOf([itemOf(0), itemOf(1), itemOf(2)]), host);
  if (typeof reply === "string") throw new Error("it must be a stream");
  reply.control.abort([[0, 1]]);
  await delay(50);
  reply.control.stop();
  expect(reportsOf(await readAll(reply)).map(({ task }) => task)).toEqual([2]);
  expect(host.ends).toBe(1);
});

test("where the goal has gone, what runs is brought home when it ends", async () => {
  const host = sandboxOf(async (invocation) => {
    invocation.begun!();
    await delay(300);
    return returned(invocation.input);
  });
  const reply = await runFunctions(batchOf([itemOf(0), itemOf(1)]), host);
  if (typeof reply === "string") throw new Error("it must be a stream");
  await reply.rest.cancel();
  await delay(500);
  expect(reportsOf(host.settled.join("")).map(({ task, outcome }) => [task, outcome])).toEqual([
    [0, "returned"],
    [1, "returned"],
  ]);
});
