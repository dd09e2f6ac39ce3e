/** Functions in dynamic Workers: the contract of handlers, how they fail, and what holds them. */
import { describe, expect, test } from "vitest";
import { HostError } from "../../workers/sandbox/types.ts";
import { type Asked, delay, echoing, invocationOf, isolates, runOnce, versionOf } from "./isolate-kit.ts";

const returned = (output: unknown) => ({ outcome: "returned", output: JSON.stringify(output), cpuMs: 0 });

describe("a handler", () => {
  test("gets its input and what its task and goal are", async () => {
    const bundle = "export default (input, ctx) => ({ got: input, goal: ctx.goal.id, task: ctx.task })";
    expect(await runOnce(bundle, { n: 1 })).toEqual(
      returned({ got: { n: 1 }, goal: "goal_1", task: { id: "task_1", key: "k", attempt: 2 } }),
    );
  });

  test("that returns nothing returns null", async () => {
    expect(await runOnce("export default () => {}")).toEqual(returned(null));
  });

  test("reaches the world through ctx, in numbered asks", async () => {
    const asked: Asked[] = [];
    const bundle = `export default async (input, ctx) => {
      const [a, b] = await Promise.all([ctx.call("search", { path: "/q" }), ctx.fetch("https://a.test/", { method: "GET" })]);
      console.log("seen", { a: 1 });
      return [a.body.op, b.body.op];
    }`;
    expect(await runOnce(bundle, null, { calls: echoing(asked) })).toEqual(returned(["call", "fetch"]));
    expect(asked).toEqual([
      { op: "call", args: { upstream: "search", request: { path: "/q" } }, seq: 1 },
      { op: "fetch", args: { url: "https://a.test/", init: { method: "GET" } }, seq: 2 },
      { op: "log", args: { level: "info", text: 'seen {"a":1}' }, seq: 3 },
    ]);
  });

  test("has no network but through ctx", async () => {
    const ended = await runOnce('export default async () => (await fetch("http://127.0.0.1:1/")).status');
    expect(ended).toMatchObject({ outcome: "failed", code: "function_error", detail: expect.stringContaining("not permitted") });
    const connects = 'import { connect } from "cloudflare:sockets"; export default async () => { await connect("127.0.0.1:1").opened; }';
    expect(await runOnce(connects)).toMatchObject({ outcome: "failed", detail: expect.stringContaining("not permitted") });
  });

  test("finds no binding, variable or secret of Drover", async () => {
    const bundle = 'import { env } from "cloudflare:workers"; export default () => [Object.keys(env), typeof process, typeof require]';
    expect(await runOnce(bundle)).toEqual(returned([[], "undefined", "undefined"]));
  });
});

describe("a failure", () => {
  test("that is thrown comes with the stack of the function alone", async () => {
    const ended = await runOnce('function inner() { throw new TypeError("boom"); }\nexport default () => inner();');
    expect(ended).toEqual({
      outcome: "failed",
      code: "function_error",
      detail: "TypeError: boom",
      stack: "TypeError: boom\n    at inner (function.js:1:26)\n    at default (function.js:2:22)",
      cpuMs: 0,
    });
  });

  test("may throw anything", async () => {
    expect(await runOnce("export default () => { throw { a: 1 }; }")).toMatchObject({ code: "function_error", detail: 'threw {"a":1}' });
    const hostile = "export default () => { throw { get name() { throw 1; }, toJSON() { throw 2; }, toString() { throw 3; } }; }";
    expect(await runOnce(hostile)).toMatchObject({ code: "function_error", detail: "threw something that cannot be shown" });
  });

  test("says itself whether another attempt may fare better", async () => {
    const bundle = 'export default (retryable) => { throw Object.assign(new Error("x"), { retryable }); }';
    expect(await runOnce(bundle, true)).toMatchObject({ retryable: true });
    expect(await runOnce(bundle, false)).toMatchObject({ retryable: false });
    expect(await runOnce(bundle, "yes")).not.toHaveProperty("retryable");
  });

  test("of a host call has the host's code, and can be caught", async () => {
    const calls = async () => Promise.reject(new HostError("budget_exhausted", "no funds"));
    expect(await runOnce('export default (_, ctx) => ctx.call("a")', null, { calls })).toMatchObject({
      code: "budget_exhausted",
      detail: "HostError: no funds",
    });
    const catching = 'export default async (_, ctx) => { try { await ctx.call("a"); } catch (error) { return error.code; } }';
    expect(await runOnce(catching, null, { calls })).toEqual(returned("budget_exhausted"));
  });

  test("cannot claim a code that the host did not give", async () => {
    const bundle = 'export default () => { throw Object.assign(new Error("x"), { name: "HostError", code: "budget_exhausted" }); }';
    expect(await runOnce(bundle)).toMatchObject({ code: "function_error" });
  });

  test("of the initialisation is the failure of every invocation", async () => {
    const version = versionOf();
    for (let i = 0; i < 2; i++) {
      const ended = await isolates.invoke(version, 'throw new Error("at start");\nexport default () => 1;', invocationOf(null));
      expect(ended).toMatchObject({ code: "function_error", detail: "Error: at start", stack: "Error: at start\n    at function.js:1:7" });
    }
  });

  test("is a promise that nothing settles", async () => {
    expect(await runOnce("export default () => new Promise(() => {})")).toMatchObject({
      code: "function_error",
      detail: "the handler waits for a promise that nothing will settle",
    });
  });

  test("is what a tampered guest says", async () => {
    const forging = (reply: string): string =>
      `import Guest from "./guest.js"; Guest.prototype.invoke = async () => (${reply}); export default () => 1;`;
    for (const reply of ["{ output: 7 }", "{ chars: 7 }", "{ fault: { message: 7, stack: {}, code: {} } }", "7", "null"]) {
      const version = versionOf();
      await isolates.invoke(version, forging(reply), invocationOf(null));
      const ended = await isolates.invoke(version, forging(reply), invocationOf(null));
      expect(ended, reply).toMatchObject({ outcome: "failed", code: "function_error" });
    }
  });

  test("is shown in part where it is long", async () => {
    const ended = await runOnce('export default () => { throw new Error("x".repeat(1e6)); }');
    expect(JSON.stringify(ended).length).toBeLessThan(20_000);
  });

  test("is an output that is too large to keep, or to send", async () => {
    for (const size of [9, 40]) {
      const ended = await runOnce(`export default () => "x".repeat(${size} * 1024 * 1024)`);
      expect(ended).toMatchObject({
        code: "function_limit",
        detail: `the output has ${size * 1024 * 1024 + 2} characters; at most 8388608 are kept`,
      });
    }
  });
});

describe("an abort", () => {
  test.for([
    ["waits for a host call", 'export default async (_, ctx) => { await ctx.call("never"); }'],
    ["waits for a timer", "export default async () => { for (;;) await new Promise((go) => setTimeout(go, 5)); }"],
    ["catches what ends it", 'export default async (_, ctx) => { for (;;) try { await ctx.call("never"); } catch {} }'],
  ] as const)("ends a handler that %s", async ([, bundle]) => {
    const controller = new AbortController();
    setTimeout(() => controller.abort("timed out"), 30);
    const calls = async () => new Promise<string>(() => {});
    const ended = await runOnce(bundle, null, { calls, signal: controller.signal });
    expect(ended).toMatchObject({ outcome: "failed", code: "function_limit" });
  });

  test("is told to the handler by ctx.signal", async () => {
    const controller = new AbortController();
    setTimeout(() => controller.abort("unwanted"), 30);
    const bundle = `let seen = null;
      export default (input, ctx) => input === "ask" ? seen : new Promise(() => ctx.signal.addEventListener("abort", () => { seen = ctx.signal.reason.message; }))`;
    const version = versionOf();
    expect(await isolates.invoke(version, bundle, invocationOf(null, { signal: controller.signal }))).toMatchObject({ code: "canceled" });
    await delay(50);
    expect(await isolates.invoke(version, bundle, invocationOf("ask"))).toEqual(returned("unwanted"));
  });

  test("leaves nothing of the handler running", async () => {
    const version = versionOf();
    const bundle = `let turns = 0;
      export default async (input) => { if (input === "count") return turns; for (;;) { turns++; await new Promise((go) => setTimeout(go, 5)); } }`;
    const controller = new AbortController();
    setTimeout(() => controller.abort("timed out"), 50);
    await isolates.invoke(version, bundle, invocationOf("loop", { signal: controller.signal }));
    await delay(50);
    const count = () => isolates.invoke(version, bundle, invocationOf("count"));
    const before = await count();
    await delay(100);
    expect(before).toMatchObject({ outcome: "returned" });
    expect(await count()).toEqual(before);
  });
});

describe("the check of a bundle", () => {
  test.for([
    ["export default async () => 1;", null],
    ["export const a = 1;", "TypeError: the default export must be a function, not undefined"],
    ["export default 1;", "TypeError: the default export must be a function, not number"],
    ["const a = ;", "SyntaxError: Unexpected token ';'\n  at function.js:1:10"],
    ['throw new Error("at start");', "Error: at start"],
    ['import a from "nowhere"; export default () => a;', 'Error: No such module "nowhere".\n  imported from "function.js"'],
  ] as const)("of %s says %s", async ([bundle, detail]) => {
    const fault = await isolates.check(bundle);
    expect(fault?.detail ?? null).toBe(detail);
  });
});
