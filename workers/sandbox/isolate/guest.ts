/**
 * What runs in the dynamic Worker beside the function: it takes an invocation,
 * gives the handler its `ctx`, and tells how it ended. Nothing here guards
 * anything: the function can change every object of its isolate. The host
 * believes only what `HostTarget` checks.
 *
 * The function is imported by the first invocation and not by the Worker's
 * start, because only so is an error of its initialisation one with a stack.
 *
 * An invocation ends with its handler, or when the host says so. It listens
 * for that only once it set a timer or read `ctx.signal`: an open question
 * would hide from the runtime that a handler waits for nothing.
 */
import { HANDLER_CONTEXT } from "../handler-context.ts";

export const GUEST = String.raw`import { WorkerEntrypoint } from "cloudflare:workers";
import { AsyncLocalStorage } from "node:async_hooks";
const { parse, stringify } = JSON;
const { freeze, entries } = Object;
${HANDLER_CONTEXT}
// Invocations share the isolate's globals, so these find out whose they are.
const current = new AsyncLocalStorage();
for (const [name, level] of entries({ debug: "debug", trace: "debug", log: "info", info: "info", warn: "warn", error: "error" }))
  console[name] = (...parts) => current.getStore()?.log(level)(...parts);
for (const [owner, name] of [[globalThis, "setTimeout"], [globalThis, "setInterval"], [scheduler, "wait"]]) {
  const original = owner[name].bind(owner);
  owner[name] = (...parts) => { current.getStore()?.listen(); return original(...parts); };
}
class Run {
  constructor(host) {
    this.host = host;
    this.over = new Promise((resolve) => { this.end = () => resolve({ isOver: true }); });
  }
  async request(op, args) {
    const { value, code, message, isOver } = await this.host.ask(op, stringify(args));
    if (isOver) { this.stop(message); return new Promise(() => {}); }
    if (code) throw new HostError(code, message);
    return parse(value);
  }
  log(level) {
    return (...parts) => { this.lastLog = this.host.log(level, parts.map(shown).join(" ")).catch(() => {}); };
  }
  listen() {
    this.listening ??= Promise.resolve(this.host.ended()).then((reason) => this.stop(reason), () => this.end());
  }
  stop(reason) {
    // The handler sees the signal first.
    this.controller?.abort(new HostError("canceled", reason));
    // The end must not overtake what they log.
    Promise.resolve(this.lastLog).then(this.end);
  }
  get signal() {
    this.listen();
    return (this.controller ??= new AbortController()).signal;
  }
}
let isPrimed = false;
const handlerOf = async () => {
  const { default: handler, prime } = await import("./function.js");
  if (typeof handler !== "function") throw new TypeError("the default export must be a function (input, ctx) => output, and it is of type " + typeof handler);
  if (!isPrimed) { isPrimed = true; if (typeof prime === "function") await prime(); }
  return handler;
};
export default class extends WorkerEntrypoint {
  async check() {
    try { await handlerOf(); return {}; } catch (error) { return { fault: faultOf(error) }; }
  }
  async invoke(input, about, host, charsMax) {
    const run = new Run(host);
    const handled = current.run(run, async () => {
      try {
        const handler = await handlerOf();
        const ctx = contextFor(parse(about), contextOf((op, args) => run.request(op, args), (level) => run.log(level), () => run.signal));
        const output = stringify(await handler(parse(input), ctx)) ?? "null";
        return output.length > charsMax ? { chars: output.length } : { output };
      } catch (error) {
        return { fault: faultOf(error) };
      } finally {
        // The answer must not overtake it.
        await run.lastLog;
      }
    });
    return Promise.race([handled, run.over]);
  }
}
`;
