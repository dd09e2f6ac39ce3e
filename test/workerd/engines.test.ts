/** One contract of handlers, in both engines. */
import { describe, expect, test } from "vitest";
import { FUNCTION_LOG_CHARS_MAX, FUNCTION_LOGS_MAX } from "../../shared/limits.ts";
import { Cutoff } from "../../workers/kit/cutoff.ts";
import { buildImage, Sandbox } from "../../workers/sandbox/index.ts";
import type { HostCalls } from "../../workers/sandbox/types.ts";
import type { Ended } from "../../shared/protocol/function.ts";
import { HANDLER_CASES, hostOf } from "./handlers.ts";
import { invocationOf, LIMITS, runOnce } from "./isolate-kit.ts";

type Engine = (bundle: string, input: unknown, calls: HostCalls, cutoff?: Cutoff) => Promise<Ended>;

async function inSnapshot(bundle: string, input: unknown, calls: HostCalls, cutoff = new Cutoff()): Promise<Ended> {
  const built = await buildImage(bundle, LIMITS);
  if (!built.ok) throw new Error(built.error.detail);
  const sandbox = new Sandbox();
  await sandbox.load("v", built.value);
  return sandbox.invoke("v", invocationOf(input, { calls, cutoff }));
}

const ENGINES: readonly (readonly [string, Engine])[] = [
  ["isolate", (bundle, input, calls, cutoff) => runOnce(bundle, input, { calls, ...(cutoff && { cutoff }) })],
  ["snapshot", inSnapshot],
];

describe.for(ENGINES)("a handler in the engine %s", ([, run]) => {
  test.for(HANDLER_CASES)("$title", async ({ bundle, input = null, output, failure, asked }) => {
    const log: (readonly [string, unknown, number])[] = [];
    const ended = await run(bundle, input, hostOf(log));
    if (failure === undefined) expect(ended).toMatchObject({ outcome: "returned", output: JSON.stringify(output) });
    else expect(ended).toMatchObject({ outcome: "failed", ...failure });
    if (asked !== undefined) expect(log).toEqual(asked);
  });
  test.for([
    ["timed out", "function_limit"],
    ["unwanted", "canceled"],
  ] as const)("that is ended from outside because it is %s hears of it by its signal, and may log", async ([reason, code]) => {
    const bundle = `export default async (_, ctx) => {
      const { signal } = ctx;
      signal.addEventListener("abort", () => ctx.log("heard", signal.aborted, signal.reason.name, signal.reason.code, signal.reason.message));
      AbortSignal.any([signal]).addEventListener("abort", { handleEvent: (event) => { ctx.log(event.type); return ctx.call("late"); } });
      signal.addEventListener("abort", () => { throw new Error("a listener's own affair"); });
      await ctx.lock("never");
    }`;
    const log: (readonly [string, unknown, number])[] = [];
    const cutoff = new Cutoff();
    setTimeout(() => cutoff.end(reason), 30);
    const ended = await run(bundle, null, hostOf(log), cutoff);
    expect(ended).toMatchObject({ outcome: "failed", code, detail: `the invocation was ended: ${reason}` });
    await expect.poll(() => log).toHaveLength(3);
    expect(log).toEqual([
      ["lock", { name: "never" }, 1],
      ["log", { level: "info", text: `heard true HostError canceled ${reason}` }, 0],
      ["log", { level: "info", text: "abort" }, 0],
    ]);
  });

  test("logs so many lines of so many characters, and what is beyond is left out", async () => {
    const bundle = `export default async (lines, ctx) => { ctx.log("x".repeat(10_000)); for (let i = 1; i < lines; i++) console.log(i); }`;
    const log: (readonly [string, unknown, number])[] = [];
    expect(await run(bundle, FUNCTION_LOGS_MAX + 10, hostOf(log))).toMatchObject({ outcome: "returned" });
    expect(log).toHaveLength(FUNCTION_LOGS_MAX);
    expect(log[0]).toEqual(["log", { level: "info", text: `${"x".repeat(FUNCTION_LOG_CHARS_MAX)}…` }, 0]);
    expect(log.at(-1)).toEqual(["log", { level: "info", text: `${FUNCTION_LOGS_MAX - 1}` }, 0]);
  });

  test("has signals of its own", async () => {
    const bundle = `export default async () => {
      const [own, gone, soon] = [new AbortController(), AbortSignal.abort("gone"), AbortSignal.timeout(5)];
      const heard = [];
      const hear = () => heard.push("removed");
      own.signal.addEventListener("abort", hear);
      own.signal.removeEventListener("abort", hear);
      AbortSignal.any([own.signal, soon]).addEventListener("abort", (event) => heard.push(event.target.reason));
      own.abort("once");
      own.abort("twice");
      await new Promise((go) => soon.addEventListener("abort", go));
      try { gone.throwIfAborted(); } catch (error) { heard.push(error); }
      return [heard, own.signal.reason, soon.reason.name, AbortSignal.any([gone]).aborted, own.signal instanceof AbortSignal];
    }`;
    expect(await run(bundle, null, hostOf([]))).toMatchObject({ output: '[["once","gone"],"once","TimeoutError",true,true]' });
  });
});
