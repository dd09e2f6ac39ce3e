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
 *
 * Invocations share the isolate's globals, so `current` says whose a log line
 * or a timer is. A stop shows the handler its signal first, and neither an
 * answer nor an end overtakes what was logged before it.
 */
import { HANDLER_CONTEXT } from "../handler-context.ts";

export const GUEST = String.raw`import { WorkerEntrypoint } from "cloudflare:workers";
import { AsyncLocalStorage } from "node:async_hooks";
const { parse, stringify } = JSON;
const { freeze, entries } = Object;
${HANDLER_CONTEXT}
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
    this.controller?.abort(new HostError("canceled", reason));
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
        const given = aboutIn(about);
        const ctx = contextOf((op, args) => run.request(op, args), (level) => run.log(level), () => run.signal, () => given);
        const output = stringify(await handler(parse(input), ctx)) ?? "null";
        return output.length > charsMax ? { chars: output.length } : { output };
      } catch (error) {
        return { fault: faultOf(error) };
      } finally {
        await run.lastLog;
      }
    });
    return Promise.race([handled, run.over]);
  }
}
`;
