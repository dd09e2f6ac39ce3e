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
export const GUEST = `import { WorkerEntrypoint } from "cloudflare:workers";
import { AsyncLocalStorage } from "node:async_hooks";
const current = new AsyncLocalStorage();
const { parse, stringify } = JSON;
const text = (value) => { try { return typeof value === "string" ? value : stringify(value) ?? String(value); } catch { return String(value); } };
for (const level of ["debug", "log", "info", "warn", "error"])
  console[level] = (...parts) => current.getStore()?.log(level === "log" ? "info" : level, parts.map((part) => part instanceof Error ? part.stack : text(part)).join(" "));
for (const [owner, name] of [[globalThis, "setTimeout"], [globalThis, "setInterval"], [scheduler, "wait"]]) {
  const original = owner[name].bind(owner);
  owner[name] = (...parts) => { current.getStore()?.listen(); return original(...parts); };
}
class HostError extends Error {
  constructor(code, message) { super(message); this.name = "HostError"; this.code = code; }
}
class Run {
  constructor(host) {
    this.host = host;
    this.logs = [];
    this.over = new Promise((resolve) => { this.end = resolve; });
  }
  async ask(op, args) {
    const { value, code, message, isOver } = await this.host.ask(op, stringify(args));
    if (isOver) { this.stop(message); return new Promise(() => {}); }
    if (code) throw new HostError(code, message);
    return parse(value);
  }
  log(level, text) {
    const told = this.ask("log", { level, text }).catch(() => {});
    this.logs.push(told);
    told.then(() => this.logs.splice(this.logs.indexOf(told), 1));
  }
  listen() {
    this.listening ??= Promise.resolve(this.host.ended()).then((reason) => this.stop(reason), () => this.stop("ended"));
  }
  stop(reason) {
    this.controller?.abort(new HostError("canceled", reason));
    // The handler may see the signal first.
    queueMicrotask(() => this.end({ isOver: true }));
  }
  get signal() {
    this.listen();
    return (this.controller ??= new AbortController()).signal;
  }
}
function contextOf(run, about) {
  return {
    ...about,
    call: (upstream, request = {}) => run.ask("call", { upstream, request }),
    fetch: (url, init = {}) => run.ask("fetch", { url: String(url), init }),
    spawn: (tasks) => run.ask("spawn", { tasks }),
    results: (tasks) => run.ask("results", tasks === undefined ? {} : { tasks }),
    lock: async (name, options = {}) => {
      const lock = await run.ask("lock", { ...options, name });
      return { ...lock, release: () => run.ask("unlock", { name, scope: options.scope, fence: lock.fence }) };
    },
    log: (...parts) => run.log("info", parts.map(text).join(" ")),
    get signal() { return run.signal; },
  };
}
function faultOf(error) {
  try {
    const isError = error instanceof Error;
    const message = isError ? String(error) : "threw " + text(error);
    return { message, stack: isError ? String(error.stack) : undefined, code: error?.name === "HostError" ? String(error.code) : undefined, retryable: error?.retryable };
  } catch {
    return { message: "threw something that cannot be shown" };
  }
}
async function handlerOf() {
  const handler = (await import("./function.js")).default;
  if (typeof handler !== "function") throw new TypeError("the default export must be a function, not " + typeof handler);
  return handler;
}
export default class extends WorkerEntrypoint {
  async check() {
    try { await handlerOf(); return {}; } catch (error) { return { fault: faultOf(error) }; }
  }
  async invoke(input, about, host, charsMax) {
    const run = new Run(host);
    const handled = current.run(run, async () => {
      try {
        const handler = await handlerOf();
        const output = stringify(await handler(parse(input), contextOf(run, parse(about)))) ?? "null";
        await Promise.all(run.logs);
        return output.length > charsMax ? { chars: output.length } : { output };
      } catch (error) {
        await Promise.all(run.logs);
        return { fault: faultOf(error) };
      }
    });
    return Promise.race([handled, run.over]);
  }
}
`;
