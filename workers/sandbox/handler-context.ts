/**
 * What a handler is given and how it fails, the same in every engine: text,
 * because it is a part of each guest's code and not of this Worker's. It
 * stands in a scope that has `parse`, `stringify`, `freeze` and `entries`.
 * Whoever uses it passes `request(op, args)`, which asks the host, `log(level)`,
 * which gives a function that logs its arguments, and `signalOf()`.
 */
import { PROBLEM_CHARS_MAX } from "../../shared/limits.ts";

export const HANDLER_CONTEXT = String.raw`
  class HostError extends Error {
    constructor(code, message) { super(message); this.name = "HostError"; this.code = code; }
  }
  const shown = (value) => {
    if (typeof value === "string") return value;
    try { return value instanceof Error ? String(value) + "\n" + value.stack : stringify(value) ?? String(value); } catch { return String(value); }
  };
  class AnswerHeaders {
    #map;
    constructor(map) { this.#map = map ?? {}; }
    get(name) { return this.#map[String(name).toLowerCase()] ?? null; }
    has(name) { return this.get(name) !== null; }
    entries() { return entries(this.#map)[Symbol.iterator](); }
    [Symbol.iterator]() { return this.entries(); }
  }
  const answered = ({ status, headers, body, encoding }) => {
    const text = () => encoding === "base64" ? atob(body) : typeof body === "string" ? body : body === undefined || body === null ? "" : stringify(body);
    return {
      status, ok: status >= 200 && status < 300, headers: new AnswerHeaders(headers),
      text: async () => text(),
      json: async () => typeof body === "string" ? parse(text()) : body,
      bytes: async () => encoding === "base64" ? Uint8Array.from(atob(body), (c) => c.charCodeAt(0)) : new TextEncoder().encode(text()),
    };
  };
  const contextOf = (request, log, signalOf, aboutOf) => freeze({
    get goal() { return aboutOf().goal; }, get task() { return aboutOf().task; }, get signal() { return signalOf(); },
    call: (upstream, what = {}) => request("call", { upstream, request: what }),
    fetch: (url, init = {}) => request("fetch", { url: String(url), init: { ...init, headers: init.headers && { ...init.headers } } }).then(answered),
    spawn: (tasks) => request("spawn", { tasks: Array.isArray(tasks) ? tasks : [tasks] }).then(({ receipts }) => receipts),
    results: (tasks) => request("results", tasks === undefined ? {} : { tasks }).then(({ results }) => results),
    lock: async (name, options = {}) => {
      const { fence, expiresAt } = await request("lock", { ...options, name });
      return freeze({ fence, expiresAt, release: () => request("unlock", { name, scope: options.scope, fence }) });
    },
    log: log("info"),
  });
  const aboutIn = (text) => { const about = parse(text); freeze(about.goal); freeze(about.task); return about; };
  const cut = (text) => text.slice(0, ${PROBLEM_CHARS_MAX});
  const faultOf = (error) => {
    try {
      const isError = typeof error === "object" && error !== null && "message" in error;
      return { detail: isError ? cut(String(error.name ?? "Error")) + ": " + cut(String(error.message)) : "threw " + cut(shown(error)),
        stack: isError && typeof error.stack === "string" ? cut(error.stack) : "", code: error instanceof HostError ? String(error.code) : "", retryable: error?.retryable === true };
    } catch { return { detail: "threw something that cannot be shown", stack: "", code: "", retryable: false }; }
  };
`;
