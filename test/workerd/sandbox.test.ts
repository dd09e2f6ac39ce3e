/** Functions in memory snapshots, in the real runtime: what one invocation gets, and what none ever sees. */
import { expect, test } from "vitest";
import { PROBLEM_CHARS_MAX } from "../../shared/limits.ts";
import type { Ended, FunctionLimits } from "../../shared/protocol/function.ts";
import { Cutoff } from "../../workers/kit/cutoff.ts";
import { buildImage, ENGINE_ID, Sandbox } from "../../workers/sandbox/index.ts";
import { Instance } from "../../workers/sandbox/snapshot/instance.ts";
import { type Manifest, unpacked } from "../../workers/sandbox/snapshot/manifest.ts";
import { type HostCalls, HostError } from "../../workers/sandbox/types.ts";

const LIMITS: FunctionLimits = { cpuMs: 100, memoryBytes: 16 * 1024 * 1024 };
const ABOUT = JSON.stringify({ goal: { id: "goal_1" }, task: { id: "task_1", key: "k", attempt: 1 } });
const NO_CALLS: HostCalls = async () => {
  throw new HostError("permission_denied", "nothing may be asked here");
};

interface Options {
  readonly calls?: HostCalls;
  readonly cutoff?: Cutoff;
  readonly limits?: FunctionLimits;
}

async function loaded(source: string, limits = LIMITS): Promise<(input?: unknown, options?: Options) => Promise<Ended>> {
  const built = await buildImage(source, limits);
  if (!built.ok) throw new Error(built.error.detail);
  const sandbox = new Sandbox();
  await sandbox.load("v", built.value);
  return (input = null, { calls = NO_CALLS, cutoff = new Cutoff(), limits: own = limits } = {}) =>
    sandbox.invoke("v", { input: JSON.stringify(input), about: ABOUT, limits: own, calls, cutoff, timeoutMs: 60_000 });
}

const outputOf = (ended: Ended): unknown => {
  if (ended.outcome !== "returned") throw new Error(`${ended.code}: ${ended.detail}`);
  return JSON.parse(ended.output);
};

test("a handler gets its input and what it is about, and returns JSON", async () => {
  const run = await loaded("export default async (input, ctx) => ({ twice: input.n * 2, goal: ctx.goal.id, task: ctx.task });");
  expect(outputOf(await run({ n: 21 }))).toEqual({ twice: 42, goal: "goal_1", task: { id: "task_1", key: "k", attempt: 1 } });
});

test("nothing that an invocation leaves behind is seen by the next one", async () => {
  const run = await loaded(`let count = 0; const kept = [];
    export default async (secret) => {
      count++; kept.push(secret); globalThis.kept = (globalThis.kept ?? []).concat(secret);
      const seen = [count, kept.length, globalThis.kept.length, [].polluted ?? null];
      Array.prototype.polluted = secret;
      return seen;
    };`);
  expect(outputOf(await run("a"))).toEqual([1, 1, 1, null]);
  expect(outputOf(await run("b"))).toEqual([1, 1, 1, null]);
});

test("what is initialised at the top level is there for every invocation, and done once", async () => {
  const run = await loaded(`let inits = 0; const table = new Map(Array.from({ length: 100 }, (_, i) => [i, i * i])); inits++;
    export const prime = async () => { inits += 10; };
    export default (n) => [table.get(n), inits];`);
  expect(outputOf(await run(9))).toEqual([81, 11]);
  expect(outputOf(await run(3))).toEqual([9, 11]);
});

test("chance is fresh in every invocation, and the clock moves", async () => {
  const run = await loaded(
    "export default () => [Math.random(), crypto.randomUUID(), [...crypto.getRandomValues(new Uint8Array(8))].join(), Date.now()];",
  );
  const drawn: [number, string, string, number][] = [];
  for (let i = 0; i < 50; i++) drawn.push(outputOf(await run()) as [number, string, string, number]);
  for (const place of [0, 1, 2] as const) expect(new Set(drawn.map((each) => each[place])).size).toBe(50);
  const before = Date.now();
  await scheduler.wait(5);
  const [, , , at] = outputOf(await run()) as [number, string, string, number];
  expect(at).toBeGreaterThan(before);
});

test("what a handler asks of the host is answered, many at once", async () => {
  const run = await loaded(`export default async (n, ctx) => {
    const answers = await Promise.all(Array.from({ length: n }, (_, i) => ctx.call("search", { path: "/" + i })));
    return answers.map(({ status, body }) => status + body);
  };`);
  const calls: HostCalls = async (op, args) => {
    const { upstream, request } = JSON.parse(args) as { upstream: string; request: { path: string } };
    await scheduler.wait(1);
    return JSON.stringify({ status: 200, headers: {}, body: `${op} ${upstream} ${request.path}` });
  };
  expect(outputOf(await run(3, { calls }))).toEqual(["200call search /0", "200call search /1", "200call search /2"]);
});

test("a refusal of the host is an error with its code, which can be caught, and counts as such where it is not", async () => {
  const run = await loaded(`export default async (isCaught, ctx) => {
    try { await ctx.call("search", { path: "/" }); } catch (error) { if (!isCaught) throw error; return [error.name, error.code, error.message]; }
  };`);
  expect(outputOf(await run(true))).toEqual(["HostError", "permission_denied", "nothing may be asked here"]);
  expect(await run(false)).toMatchObject({
    outcome: "failed",
    code: "permission_denied",
    detail: expect.stringContaining("nothing may be asked"),
  });
});

test("a code that a handler makes up is no code", async () => {
  const run = await loaded(
    `export default async () => { throw Object.assign(new Error("x"), { name: "HostError", code: "budget_exhausted" }); };`,
  );
  expect(await run()).toMatchObject({ code: "function_error" });
});

test("timers run within the attempt", async () => {
  const run = await loaded(`export default async (ms) => {
    const seen = []; setTimeout(() => seen.push("never"), 5_000); const id = setInterval(() => seen.push("tick"), 1);
    await new Promise((resolve) => setTimeout(resolve, ms)); clearInterval(id);
    return seen.includes("tick") && !seen.includes("never");
  };`);
  expect(outputOf(await run(20))).toBe(true);
});

test("the globals that handlers expect are there", async () => {
  const run = await loaded(`export default () => {
    const url = new URL("../b?x=1#f", "https://user@example.com:8080/a/c"); url.searchParams.append("y", "ü"); url.pathname = "/z";
    const copy = structuredClone({ a: [1, new Date(0), new Map([[1, new Set([2])]])] });
    const bytes = new TextEncoder().encode("zü€");
    return [url.href, url.hostname, [...new URLSearchParams("a=1&a=2&b=%20").entries()], copy.a[1].getTime(), copy.a[2].get(1).has(2),
      [...bytes], new TextDecoder().decode(bytes), atob(btoa("hi")), URL.canParse("::"), typeof performance.now()];
  };`);
  expect(outputOf(await run())).toEqual([
    "https://user@example.com:8080/z?x=1&y=%C3%BC#f",
    "example.com",
    [
      ["a", "1"],
      ["a", "2"],
      ["b", " "],
    ],
    0,
    true,
    [122, 195, 188, 226, 130, 172],
    "zü€",
    "hi",
    false,
    "number",
  ]);
});

test("an error has its message and its place", async () => {
  const run = await loaded(
    `function inner(n) { if (n > 1) throw new TypeError("too much: " + n); return n; }\nexport default async (n) => inner(n);`,
  );
  const ended = await run(7);
  expect(ended).toMatchObject({ outcome: "failed", code: "function_error", detail: "TypeError: too much: 7" });
  expect((ended as { stack?: string }).stack).toContain("inner (function.js:1:");
});

test.each([
  ["does not parse", "export default async (", "SyntaxError"],
  ["has no default export", "export const handler = 1;", "the default export must be a function"],
  [
    "throws at its top level",
    "const boom = () => { throw new RangeError('no luck'); };\nboom();\nexport default () => 1;",
    "RangeError: no luck",
  ],
  ["waits for ever at its top level", "await new Promise(() => {}); export default () => 1;", "never comes"],
  ["never ends at its top level", "for (;;); export default () => 1;", "processor time"],
  ["sets a timer at its top level", "setTimeout(() => {}, 1); export default () => 1;", "no host calls and no timers"],
])("a bundle that %s is refused in its own words", async (_, source, words) => {
  const built = await buildImage(source, LIMITS);
  expect(built).toMatchObject({ ok: false, error: { code: "invalid_request", detail: expect.stringContaining(words) } });
});

test("an image of another engine is refused, and says what to do", async () => {
  const built = await buildImage("export default () => 1;", LIMITS);
  if (!built.ok) throw new Error();
  expect(built.value.engineId).toBe(ENGINE_ID);
  const other = { ...built.value, engineId: "quickjs-ng-of-yesterday-1" };
  await expect(new Sandbox().load("v", other)).rejects.toThrow(/quickjs-ng-of-yesterday-1 and cannot be restored.*build it anew/);
});

test("an attempt that is ended frees its instance, and what comes late is dropped", async () => {
  const run = await loaded(
    `let count = 0; export default async (n, ctx) => { count += n; if (n > 0) await ctx.call("slow", { path: "/" }); return count; };`,
  );
  let answer: (text: string) => void = () => undefined;
  const cutoff = new Cutoff();
  const running = run(5, { calls: () => new Promise((resolve) => (answer = resolve)), cutoff });
  await scheduler.wait(1);
  cutoff.end("timed out");
  expect(await running).toMatchObject({ outcome: "failed", code: "function_limit", detail: expect.stringContaining("timed out") });
  answer("{}");
  await scheduler.wait(1);
  expect(outputOf(await run(0))).toBe(0);
});

const HOSTILE: readonly (readonly [string, string, RegExp])[] = [
  ["loops for ever", "for (;;);", /^function_limit: the function used more than its/],
  [
    "loops for ever where a promise is made",
    "return new Promise(() => { for (;;); });",
    /^function_limit: the function used more than its/,
  ],
  ["loops for ever where it is asked for its then", "return { then() { for (;;); } };", /^function_limit: the function used more than its/],
  [
    "loops for ever, keeps what stopped it, and then waits for what never comes",
    "new Promise(() => { for (;;); }).catch(() => {}); await new Promise(() => {});",
    /^function_limit: the function used more than its/,
  ],
  [
    "tries a regular expression that backtracks for ever",
    'return /^(a+)+$/.test("a".repeat(40) + "b");',
    /^function_limit: the function used more than/,
  ],
  ["takes all memory", 'const all = []; for (;;) all.push(new Array(1000).fill("x"));', /^function_limit: the function used/],
  ["doubles a string for ever", 'let s = "x"; for (;;) s += s;', /^function_(?:limit|error): /],
  ["calls itself for ever", "const f = () => f() + 1; return f();", /^function_error: .*call stack/],
  ["waits for what never comes", "return new Promise(() => {});", /^function_error: the handler waits for something that never comes/],
  ["makes microtasks for ever", "const again = () => Promise.resolve().then(again); return again();", /^function_limit: the function used/],
  [
    "searches a huge string in a loop",
    'const s = "a".repeat(4e6); let n = 0; for (let i = 0; i < 1000; i++) n += s.indexOf("ab"); return n;',
    /^function_limit: the function used more than/,
  ],
  [
    "parses large JSON in a loop",
    'const s = "[" + "[1,2],".repeat(100000) + "1]"; for (let i = 0; i < 500; i++) JSON.parse(s);',
    /^function_limit: the function used/,
  ],
  ["throws 10 MB", 'throw new Error("x".repeat(10e6));', /^function_error: Error: x{8100,8192}$/],
  [
    "throws what is no text, where its end is read",
    'Object.prototype.toJSON = () => ["stolen"]; Error.prototype.toString = () => []; throw new Error("x");',
    /^function_error: /,
  ],
  ["returns 10 MB", 'return "x".repeat(10e6);', /^function_limit: /],
  [
    "asks the host without end",
    'for (;;) ctx.call("search", { path: "/" });',
    /^function_limit: the function waits for more than 256 host calls at once/,
  ],
];

test.each(HOSTILE)("a handler that %s fails by itself, and the next one of its function does not notice", async (_, body, end) => {
  const run = await loaded(`export default async (isHostile, ctx) => { if (!isHostile) return "well"; ${body} };`);
  const ended = await run(true, { calls: () => new Promise(() => undefined) });
  expect(ended.outcome === "failed" && `${ended.code}: ${ended.detail}`).toMatch(end);
  expect(outputOf(await run(false))).toBe("well");
});

test("a stack that a handler made up costs the host no more than a real one", async () => {
  const map = { version: 3, names: [], sources: ["s".repeat(1_000_000)], mappings: "AAAA" };
  const source = "export default () => { const e = new Error(); e.stack = 'at function.js:1:1\\n'.repeat(20_000); throw e; };";
  const run = await loaded(`${source}\n//# sourceMappingURL=data:application/json;base64,${btoa(JSON.stringify(map))}\n`);
  const ended = await run();
  expect(ended).toMatchObject({ outcome: "failed", stack: expect.stringMatching(/^at s{256}:1:1\n/) });
  expect(ended.outcome === "failed" && ended.stack!.length).toBeLessThanOrEqual(PROBLEM_CHARS_MAX);
});

test("a handler that changes the language's own objects harms nobody after it", async () => {
  const run = await loaded(`export default async (isHostile) => {
    if (isHostile) { Object.prototype.toJSON = () => "stolen"; JSON.parse = JSON.stringify = () => { throw new Error(); }; Promise.prototype.then = () => {}; return; }
    return { a: 1 };
  };`);
  await run(true);
  expect(outputOf(await run(false))).toEqual({ a: 1 });
});

test("who overran gets less time at once, and all of it after a while", async () => {
  const run = await loaded("export default (n) => { for (let i = 0; i < n; i++); return 1; };");
  const limitOf = async (): Promise<string> => {
    const ended = await run(1e12);
    return ended.outcome === "failed" ? ended.detail : "";
  };
  expect(await limitOf()).toContain("its 100 ms");
  expect(await limitOf()).toContain("its 25 ms");
  expect(await limitOf()).toContain("its 6.25 ms");
  await scheduler.wait(1_100);
  expect(await limitOf()).toContain("its 100 ms");
});

test("who overran after it had answered gets less time too", async () => {
  const run = await loaded(`export default (isOver) => {
    const later = (turns) => Promise.resolve().then(() => { if (turns > 0) return later(turns - 1); for (;;); });
    if (isOver) later(20);
    return 1;
  };`);
  expect(await run(true)).toMatchObject({ outcome: "returned", isOverrun: true, cpuMs: 100 });
  expect(await run(true)).toMatchObject({ outcome: "returned", isOverrun: true, cpuMs: 25 });
});

test("without a restore, one invocation would see what another left", async () => {
  const built = await buildImage("let count = 0; export default () => ++count;", LIMITS);
  if (!built.ok) throw new Error();
  const manifest = JSON.parse(built.value.manifest) as Manifest;
  const instance = new Instance({ manifest, bytes: await unpacked(built.value.bytes) });
  const invocation = {
    input: "null",
    about: ABOUT,
    limits: LIMITS,
    calls: NO_CALLS,
    cutoff: new Cutoff(),
    timeoutMs: 60_000,
  };
  expect(outputOf(await instance.invoke(invocation, 100, () => true))).toBe(1);
  expect(outputOf(await instance.invoke(invocation, 100, () => true))).toBe(2);
  instance.restore();
  expect(outputOf(await instance.invoke(invocation, 100, () => true))).toBe(1);
});
