/** Functions in dynamic Workers: the contract of handlers, how they fail, and what holds them. */
import { describe, expect, test } from "vitest";
import { Cutoff } from "../../workers/kit/cutoff.ts";
import { type Asked, delay, echoing, invocationOf, isolates, runOnce, versionOf } from "./isolate-kit.ts";

const returned = (output: unknown) => ({ outcome: "returned", output: JSON.stringify(output), cpuMs: 0 });

describe("a handler", () => {
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

  test("has its own console and timers, whatever runs beside it in its isolate", async () => {
    const version = versionOf();
    const bundle =
      "export default async (n) => { for (let i = 0; i < 3; i++) { await new Promise((go) => setTimeout(go, 1)); console.log(n); } };";
    const logs = await Promise.all(
      [1, 2, 3].map(async (n) => {
        const asked: Asked[] = [];
        await isolates.invoke(version, bundle, invocationOf(n, { calls: echoing(asked) }));
        return asked.map(({ args }) => (args as { text: string }).text);
      }),
    );
    expect(logs).toEqual([
      ["1", "1", "1"],
      ["2", "2", "2"],
      ["3", "3", "3"],
    ]);
  });
});

describe("a failure", () => {
  test("says itself whether another attempt may fare better", async () => {
    const bundle = 'export default (retryable) => { throw Object.assign(new Error("x"), { retryable }); }';
    expect(await runOnce(bundle, true)).toMatchObject({ retryable: true });
    expect(await runOnce(bundle, false)).not.toHaveProperty("retryable");
    expect(await runOnce(bundle, "yes")).not.toHaveProperty("retryable");
  });

  test("cannot claim a code that the host did not give", async () => {
    const bundle = 'export default () => { throw Object.assign(new Error("x"), { name: "HostError", code: "budget_exhausted" }); }';
    expect(await runOnce(bundle)).toMatchObject({ code: "function_error" });
  });

  test("of the initialisation is the failure of every invocation", async () => {
    const version = versionOf();
    for (let i = 0; i < 2; i++) {
      const ended = await isolates.invoke(version, 'throw new Error("at start");\nexport default () => 1;', invocationOf(null));
      expect(ended).toMatchObject({ code: "function_error", detail: "Error: at start", stack: "    at function.js:1:7" });
    }
  });

  test("is found in the sources where the bundle has a source map", async () => {
    // Line 2 of the bundle is line 41 of src/page.ts.
    const map = { version: 3, sources: ["src/page.ts"], names: [], mappings: ";AAwCA" };
    const bundle = `export default () => inner();\nconst inner = () => { throw new Error("x"); };`;
    const url = `data:application/json;base64,${btoa(JSON.stringify(map))}`;
    const ended = await runOnce(`${bundle}\n//# sourceMappingURL=${url}\n`);
    expect(ended).toMatchObject({ stack: expect.stringContaining("(src/page.ts:41:") });
  });

  test("is what a tampered guest says", async () => {
    const forging = (reply: string): string =>
      `import Guest from "./guest.js"; Guest.prototype.invoke = async () => (${reply}); export default () => 1;`;
    for (const reply of [
      "{ output: 7 }",
      "{ chars: 7 }",
      "{ fault: { detail: 7, stack: {}, code: {} } }",
      "{ isOver: true }",
      "7",
      "null",
    ]) {
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

  test("is an output that is too large for a message", async () => {
    const ended = await runOnce('export default () => "x".repeat(40 * 1024 * 1024)');
    expect(ended).toMatchObject({ code: "function_limit", detail: "the output has 41943042 characters of JSON, and 1048576 are the most" });
  });
});

describe("an abort", () => {
  test.for([
    ["waits for a host call", 'export default async (_, ctx) => { await ctx.call("never"); }'],
    ["waits for a timer", "export default async () => { for (;;) await new Promise((go) => setTimeout(go, 5)); }"],
    ["catches what ends it", 'export default async (_, ctx) => { for (;;) try { await ctx.call("never"); } catch {} }'],
  ] as const)("ends a handler that %s", async ([, bundle]) => {
    const cutoff = new Cutoff();
    setTimeout(() => cutoff.end("timed out"), 30);
    const calls = async () => new Promise<string>(() => {});
    const ended = await runOnce(bundle, null, { calls, cutoff });
    expect(ended).toMatchObject({ outcome: "failed", code: "function_limit" });
  });

  test("is told to the handler by ctx.signal", async () => {
    const cutoff = new Cutoff();
    setTimeout(() => cutoff.end("unwanted"), 30);
    const bundle = `let seen = null;
      export default (input, ctx) => input === "ask" ? seen : new Promise(() => ctx.signal.addEventListener("abort", () => { seen = ctx.signal.reason.message; }))`;
    const version = versionOf();
    expect(await isolates.invoke(version, bundle, invocationOf(null, { cutoff }))).toMatchObject({ code: "canceled" });
    await delay(50);
    expect(await isolates.invoke(version, bundle, invocationOf("ask"))).toEqual(returned("unwanted"));
  });

  test("frees the place of the version at once, also where a listener throws", async () => {
    const cutoff = new Cutoff();
    setTimeout(() => cutoff.end("unwanted"), 30);
    const bundle = 'export default (_, ctx) => new Promise(() => ctx.signal.addEventListener("abort", () => { throw new Error("mine"); }))';
    const before = isolates.inFlight;
    await isolates.invoke(versionOf(), bundle, invocationOf(null, { cutoff }));
    await delay(200);
    expect(isolates.inFlight).toBe(before);
  });

  test("leaves nothing of the handler running", async () => {
    const version = versionOf();
    const bundle = `let turns = 0;
      export default async (input) => { if (input === "count") return turns; for (;;) { turns++; await new Promise((go) => setTimeout(go, 5)); } }`;
    const cutoff = new Cutoff();
    setTimeout(() => cutoff.end("timed out"), 50);
    await isolates.invoke(version, bundle, invocationOf("loop", { cutoff }));
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
    ["export const a = 1;", "TypeError: the default export must be a function (input, ctx) => output, and it is of type undefined"],
    ["export default 1;", "TypeError: the default export must be a function (input, ctx) => output, and it is of type number"],
    ["const a = ;", "SyntaxError: Unexpected token ';'\n  at function.js:1:10"],
    ['throw new Error("at start");', "Error: at start"],
    ['export const prime = () => { throw new Error("in prime"); }; export default () => 1;', "Error: in prime"],
    ['import a from "nowhere"; export default () => a;', 'Error: No such module "nowhere".\n  imported from "function.js"'],
  ] as const)("of %s says %s", async ([bundle, detail]) => {
    const fault = await isolates.check(bundle);
    expect(fault?.detail ?? null).toBe(detail);
  });
});
