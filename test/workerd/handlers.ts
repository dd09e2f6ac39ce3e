/** Handlers and how they end, whichever engine runs them. */
import { HostError, type HostCalls } from "../../workers/sandbox/types.ts";

export interface HandlerCase {
  readonly title: string;
  readonly bundle: string;
  readonly input?: unknown;
  /** The output; for a failure what its end has. */
  readonly output?: unknown;
  readonly failure?: Readonly<Record<string, unknown>>;
  /** What was asked of the host. */
  readonly asked?: readonly (readonly [op: string, args: unknown, seq: number])[];
}

/** `call` answers 200 with what was asked, but for an upstream without a budget; `fetch` answers with bytes. */
export function hostOf(asked: (readonly [string, unknown, number])[]): HostCalls {
  return async (op, args, seq) => {
    const what = JSON.parse(args) as { readonly upstream?: string; readonly name?: string };
    asked.push([op, what, seq]);
    if (what.upstream === "dear") throw new HostError("budget_exhausted", "no funds for this call");
    if (what.upstream === "broken") throw new Error("a secret of the host");
    if (what.name === "never") return new Promise(() => {});
    if (op === "fetch") return JSON.stringify({ status: 404, headers: { "content-type": "image/png" }, body: "AQID", encoding: "base64" });
    if (op === "spawn") return '{"receipts":[{"taskId":"task_2","status":"queued"}]}';
    if (op === "results") return '{"results":[{"taskId":"task_2","key":null,"status":"succeeded"}]}';
    if (op === "lock") return '{"fence":7,"expiresAt":"2026-11-25T00:00:00Z"}';
    if (op === "unlock" || op === "log") return "null";
    return JSON.stringify({ status: 200, headers: {}, body: what });
  };
}

export const HANDLER_CASES: readonly HandlerCase[] = [
  {
    title: "gets its input, its task and its goal",
    bundle: "export default (input, ctx) => ({ input, goal: ctx.goal, task: ctx.task })",
    input: { text: "ä\n\u2028", list: [1, null] },
    output: { input: { text: "ä\n\u2028", list: [1, null] }, goal: { id: "goal_1" }, task: { id: "task_1", key: "k", attempt: 2 } },
  },
  { title: "that returns nothing returns null", bundle: "export default () => {}", output: null },
  { title: "may be asynchronous", bundle: "export default async (n) => { await null; return n + 1; }", input: 1, output: 2 },
  {
    title: "calls upstreams, several at once",
    bundle:
      'export default async (_, ctx) => (await Promise.all([ctx.call("a", { path: "/1" }), ctx.call("b")])).map((answer) => answer.body.upstream)',
    output: ["a", "b"],
    asked: [
      ["call", { upstream: "a", request: { path: "/1" } }, 1],
      ["call", { upstream: "b", request: {} }, 2],
    ],
  },
  {
    title: "fetches, and reads the answer",
    bundle: `export default async (_, ctx) => {
      const answer = await ctx.fetch(new URL("/x?a=1", "https://a.test"), { headers: { accept: "*/*" } });
      return [answer.status, answer.ok, answer.headers.get("Content-Type"), [...await answer.bytes()]];
    }`,
    output: [404, false, "image/png", [1, 2, 3]],
    asked: [["fetch", { url: "https://a.test/x?a=1", init: { headers: { accept: "*/*" } } }, 1]],
  },
  {
    title: "spawns tasks, reads results, and locks",
    bundle: `export default async (_, ctx) => {
      const receipts = await ctx.spawn({ run: { function: "f" } });
      const results = await ctx.results(["task_2"]);
      const lock = await ctx.lock("row", { scope: "tenant" });
      await lock.release();
      return [receipts[0].taskId, results[0].status, lock.fence];
    }`,
    output: ["task_2", "succeeded", 7],
    asked: [
      ["spawn", { tasks: [{ run: { function: "f" } }] }, 1],
      ["results", { tasks: ["task_2"] }, 2],
      ["lock", { name: "row", scope: "tenant" }, 3],
      ["unlock", { name: "row", scope: "tenant", fence: 7 }, 4],
    ],
  },
  {
    title: "logs, and that takes no number",
    bundle: 'export default async (_, ctx) => { ctx.log("a", { b: 1 }); console.warn("c"); await ctx.call("a"); }',
    output: null,
    asked: [
      ["log", { level: "info", text: 'a {"b":1}' }, 0],
      ["log", { level: "warn", text: "c" }, 0],
      ["call", { upstream: "a", request: {} }, 1],
    ],
  },
  {
    title: "has the usual globals",
    bundle: `export default async () => {
      await new Promise((go) => setTimeout(go, 1));
      const url = new URL("https://a.test/b?c=d#e");
      url.searchParams.set("c", "f g");
      return [url.href, [...new TextEncoder().encode("ä")], new TextDecoder().decode(new Uint8Array([195, 164])), atob(btoa("x")),
        structuredClone({ a: new Map([[1, 2]]) }).a.get(1), crypto.randomUUID().length, crypto.getRandomValues(new Uint8Array(4)).length, navigator.userAgent];
    }`,
    output: ["https://a.test/b?c=f+g#e", [195, 164], "ä", "x", 2, 36, 4, "Cloudflare-Workers"],
  },
  {
    title: "finds what prime prepared",
    bundle: "let ready = 0; export const prime = () => { ready = 5; }; export default () => ready;",
    output: 5,
  },
  {
    title: "that throws fails with its message, and the frames of its own code",
    bundle: 'function inner() { throw new TypeError("boom"); }\nexport default () => { inner(); };',
    failure: { code: "function_error", detail: "TypeError: boom", stack: expectFrames("inner (function.js:1:") },
  },
  {
    title: "that throws what is no error fails with what it threw",
    bundle: "export default () => { throw { a: 1 }; }",
    failure: { code: "function_error", detail: 'threw {"a":1}' },
  },
  {
    title: "that throws what cannot be shown fails",
    bundle: "export default () => { throw { get message() { throw 1; } }; }",
    failure: { code: "function_error", detail: "threw something that cannot be shown" },
  },
  {
    title: "that returns what is not JSON fails",
    bundle: "export default () => { const a = {}; a.a = a; return a; }",
    failure: { code: "function_error" },
  },
  {
    title: "that does not catch a host call's error fails with its code",
    bundle: 'export default (_, ctx) => ctx.call("dear")',
    failure: { code: "budget_exhausted", detail: "HostError: no funds for this call" },
  },
  {
    title: "can catch a host call's error",
    bundle: 'export default (_, ctx) => ctx.call("dear").catch((error) => [error.code, error.message])',
    output: ["budget_exhausted", "no funds for this call"],
  },
  {
    title: "cannot make up a code",
    bundle: 'export default (_, ctx) => ctx.call("dear").catch((error) => { error.code = "denied"; throw error; })',
    failure: { code: "function_error" },
  },
  {
    title: "learns nothing of a fault of the host",
    bundle: 'export default (_, ctx) => ctx.call("broken")',
    failure: { code: "function_error", detail: "HostError: the host call failed" },
  },
  {
    title: "that waits for nothing fails",
    bundle: "export default () => new Promise(() => {})",
    failure: {
      code: "function_error",
      detail: "the handler waits for something that never comes: nothing is asked of the host, and no timer is set",
    },
  },
  {
    title: "that calls itself without end fails",
    bundle: "const f = (n) => f(n + 1) + 1; export default () => f(0);",
    failure: { code: "function_error", detail: expectText("call stack") },
  },
  {
    title: "that returns too much fails",
    bundle: 'export default () => "x".repeat(2 * 1024 * 1024)',
    failure: { code: "function_limit", detail: "the output has 2097154 characters of JSON, and 1048576 are the most" },
  },
  {
    title: "that asks too much at once fails",
    bundle: 'export default (_, ctx) => Promise.all(Array.from({ length: 1000 }, () => ctx.lock("never")))',
    failure: { code: "function_limit", detail: "the function waits for more than 256 host calls at once; await some of them first" },
  },
  {
    title: "that asks too often fails",
    bundle: 'export default async (_, ctx) => { for (;;) await ctx.call("a").catch(() => {}); }',
    failure: { code: "function_limit", detail: "the function asked the host more than 10000 times" },
  },
];

/** A text with this in it. */
function expectText(part: string): unknown {
  return { asymmetricMatch: (value: unknown) => typeof value === "string" && value.includes(part), toString: () => part };
}

/** Frames of which the first begins like this. */
function expectFrames(first: string): unknown {
  return {
    asymmetricMatch: (value: unknown) => typeof value === "string" && value.trim().startsWith(`at ${first}`),
    toString: () => first,
  };
}
