/**
 * What every guest begins with: the standard globals that the engine lacks, and
 * `ctx`. It takes the host's functions out of the guest's reach, and keeps what
 * it uses of the language, so that a handler that changes either harms only
 * itself. Runs once, before the function's own code; text, because it is the
 * guest's code and not this Worker's.
 */
import { HANDLER_CONTEXT } from "../handler-context.ts";

/** What it takes from the host and from the language. */
const OPENING = String.raw`
  const { __ask: ask, __done: done, __timer: timer, __cancel: cancel, __sync: sync } = globalThis;
  for (const name of ["__ask", "__done", "__timer", "__cancel", "__sync"]) delete globalThis[name];
  const { parse, stringify } = JSON;
  const { freeze, defineProperty, entries } = Object;
  const NativePromise = Promise;
  const now = (op, args) => parse(sync(op, stringify(args)));
`;

/** What is asked of the host. */
const ASKS = String.raw`
  const waiting = new Map();
  let asked = 0;
  const request = (op, args) => new NativePromise((resolve, reject) => {
    const id = ++asked;
    waiting.set(id, [resolve, reject]);
    ask(id, op, stringify(args));
  });
`;

/** Timers. */
const TIMERS = String.raw`
  const timers = new Map();
  let timed = 0;
  const schedule = (repeats) => (callback, ms = 0, ...parts) => {
    const id = ++timed;
    const wait = +ms > 0 ? +ms : 0;
    timers.set(id, () => {
      if (repeats) timer(id, wait); else timers.delete(id);
      callback(...parts);
    });
    timer(id, wait);
    return id;
  };
  const unschedule = (id) => { if (timers.delete(id)) cancel(id); };
  const once = schedule(false);
  globalThis.setTimeout = once;
  globalThis.setInterval = schedule(true);
  globalThis.clearTimeout = unschedule;
  globalThis.clearInterval = unschedule;
`;

/** What libraries ask where they are: as the platform says it, where code made of text pays off as little as here. */
const PLACE = String.raw`
  globalThis.navigator = freeze({ userAgent: "Cloudflare-Workers" });
`;

/** Text as bytes (UTF-8). */
const TEXT = String.raw`
  globalThis.TextEncoder = class TextEncoder {
    get encoding() { return "utf-8"; }
    encode(text = "") {
      const escaped = unescape(encodeURIComponent(String(text).toWellFormed()));
      const bytes = new Uint8Array(escaped.length);
      for (let i = 0; i < escaped.length; i++) bytes[i] = escaped.charCodeAt(i);
      return bytes;
    }
  };
  const viewOf = (data) => ArrayBuffer.isView(data) ? new Uint8Array(data.buffer, data.byteOffset, data.byteLength) : new Uint8Array(data);
  const hexOf = (bytes) => { let hex = ""; for (const byte of bytes) hex += (byte < 16 ? "0" : "") + byte.toString(16); return hex; };
  globalThis.TextDecoder = class TextDecoder {
    constructor(label = "utf-8", options = {}) { this.label = String(label); this.fatal = !!options.fatal; this.ignoreBOM = !!options.ignoreBOM; now("decode", { label: this.label, hex: "" }); }
    get encoding() { return this.label.toLowerCase(); }
    decode(data = new Uint8Array(0)) {
      const { value, fault } = now("decode", { label: this.label, fatal: this.fatal, ignoreBOM: this.ignoreBOM, hex: hexOf(viewOf(data)) });
      if (fault) throw new TypeError(fault);
      return value;
    }
  };
`;

/** Chance. */
const CHANCE = String.raw`
  globalThis.crypto = freeze({
    getRandomValues(array) {
      const bytes = viewOf(array);
      if (bytes.length > 65536) throw new RangeError("getRandomValues gives at most 65536 bytes at once");
      const hex = now("random", bytes.length);
      for (let i = 0; i < bytes.length; i++) bytes[i] = parseInt(hex.slice(2 * i, 2 * i + 2), 16);
      return array;
    },
    randomUUID: () => now("uuid", null),
  });
`;

/** URLs, as the host reads them. */
const URLS = String.raw`
  const PARTS = ["protocol", "username", "password", "host", "hostname", "port", "pathname", "search", "hash"];
  globalThis.URLSearchParams = class URLSearchParams {
    #pairs = [];
    #changed = () => {};
    constructor(init = "") {
      if (typeof init === "object" && init !== null && Symbol.iterator in init) for (const [name, value] of init) this.#pairs.push([String(name), String(value)]);
      else if (typeof init === "object" && init !== null) for (const [name, value] of entries(init)) this.#pairs.push([name, String(value)]);
      else this.#pairs = now("query", String(init));
    }
    static __of(query, changed) { const params = new URLSearchParams(query); params.#changed = changed; return params; }
    #did() { this.#changed(this.toString()); }
    get size() { return this.#pairs.length; }
    append(name, value) { this.#pairs.push([String(name), String(value)]); this.#did(); }
    delete(name, value) { this.#pairs = this.#pairs.filter(([n, v]) => n !== String(name) || (value !== undefined && v !== String(value))); this.#did(); }
    get(name) { return this.#pairs.find(([n]) => n === String(name))?.[1] ?? null; }
    getAll(name) { return this.#pairs.filter(([n]) => n === String(name)).map(([, v]) => v); }
    has(name, value) { return this.#pairs.some(([n, v]) => n === String(name) && (value === undefined || v === String(value))); }
    set(name, value) {
      const at = this.#pairs.findIndex(([n]) => n === String(name));
      if (at < 0) return this.append(name, value);
      this.#pairs = this.#pairs.filter(([n], i) => n !== String(name) || i === at);
      this.#pairs[at] = [String(name), String(value)];
      this.#did();
    }
    sort() { this.#pairs.sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0)); this.#did(); }
    forEach(callback, self) { for (const [name, value] of this.#pairs) callback.call(self, value, name, this); }
    *keys() { for (const [name] of this.#pairs) yield name; }
    *values() { for (const [, value] of this.#pairs) yield value; }
    *entries() { for (const [name, value] of this.#pairs) yield [name, value]; }
    [Symbol.iterator]() { return this.entries(); }
    toString() { return now("unquery", this.#pairs); }
  };
  const paramsOf = URLSearchParams.__of;
  delete URLSearchParams.__of;
  class URL {
    #parts;
    #params = null;
    constructor(url, base) {
      const parts = now("url", { url: String(url), base: base === undefined ? undefined : String(base) });
      if (parts === null) throw new TypeError("Invalid URL: " + String(url));
      this.#parts = parts;
    }
    static canParse(url, base) { return now("url", { url: String(url), base: base === undefined ? undefined : String(base) }) !== null; }
    static parse(url, base) { try { return new URL(url, base); } catch { return null; } }
    get href() { return this.#parts.href; }
    set href(value) { this.#parts = new URL(value).#parts; this.#params = null; }
    get origin() { return this.#parts.origin; }
    get searchParams() { return (this.#params ??= paramsOf(this.#parts.search, (query) => { this.#put("search", query); })); }
    #put(name, value) { this.#parts = now("urlSet", { href: this.#parts.href, name, value: String(value) }); }
    static { for (const name of PARTS) defineProperty(URL.prototype, name, { configurable: true, enumerable: true,
      get() { return this.#parts[name]; }, set(value) { this.#put(name, value); if (name === "search") this.#params = null; } }); }
    toString() { return this.#parts.href; }
    toJSON() { return this.#parts.href; }
  }
  globalThis.URL = URL;
`;

/** Copies (the structured clone algorithm, without what has no meaning here). */
const COPIES = String.raw`
  const copy = (value, seen) => {
    if (typeof value === "function" || typeof value === "symbol") throw new DOMException(String(value) + " cannot be cloned", "DataCloneError");
    if (typeof value !== "object" || value === null) return value;
    if (seen.has(value)) return seen.get(value);
    const keep = (made) => { seen.set(value, made); return made; };
    if (Array.isArray(value)) { const made = keep(new Array(value.length)); for (const key of Object.keys(value)) made[key] = copy(value[key], seen); return made; }
    if (value instanceof Date) return keep(new Date(value));
    if (value instanceof RegExp) return keep(new RegExp(value.source, value.flags));
    if (value instanceof Map) { const made = keep(new Map()); for (const [k, v] of value) made.set(copy(k, seen), copy(v, seen)); return made; }
    if (value instanceof Set) { const made = keep(new Set()); for (const v of value) made.add(copy(v, seen)); return made; }
    if (value instanceof ArrayBuffer) return keep(value.slice(0));
    if (value instanceof DataView) return keep(new DataView(copy(value.buffer, seen), value.byteOffset, value.byteLength));
    if (ArrayBuffer.isView(value)) return keep(new value.constructor(copy(value.buffer, seen), value.byteOffset, value.length));
    if (value instanceof Error) { const made = keep(new Error(value.message)); made.name = value.name; made.stack = value.stack; return made; }
    if (value instanceof Boolean || value instanceof Number || value instanceof String) return keep(Object(value.valueOf()));
    const made = keep({});
    for (const key of Object.keys(value)) made[key] = copy(value[key], seen);
    return made;
  };
  globalThis.structuredClone = (value) => copy(value, new Map());
`;

/** Signals. What a listener throws is its own affair. */
const SIGNALS = String.raw`
  const aborts = new WeakMap();
  class AbortSignal {
    #listeners = [];
    onabort = null;
    aborted = false;
    reason = undefined;
    constructor(key) { if (key !== aborts) throw new TypeError("Illegal constructor"); aborts.set(this, (reason) => this.#abort(reason)); }
    #abort(reason = new DOMException("This operation was aborted", "AbortError")) {
      if (this.aborted) return;
      this.aborted = true;
      this.reason = reason;
      const event = { type: "abort", target: this, currentTarget: this };
      for (const listener of [this.onabort, ...this.#listeners])
        try { if (listener) typeof listener === "function" ? listener.call(this, event) : listener.handleEvent(event); } catch {}
    }
    addEventListener(type, listener) { if (type === "abort" && !this.#listeners.includes(listener)) this.#listeners.push(listener); }
    removeEventListener(type, listener) { if (type === "abort") this.#listeners = this.#listeners.filter((each) => each !== listener); }
    throwIfAborted() { if (this.aborted) throw this.reason; }
    static abort(reason) { const controller = new AbortController(); controller.abort(reason); return controller.signal; }
    static timeout(ms) {
      const controller = new AbortController();
      once(() => controller.abort(new DOMException("The operation timed out", "TimeoutError")), ms);
      return controller.signal;
    }
    static any(signals) {
      const controller = new AbortController();
      for (const signal of signals)
        if (signal.aborted) controller.abort(signal.reason); else signal.addEventListener("abort", () => controller.abort(signal.reason));
      return controller.signal;
    }
  }
  class AbortController {
    #signal = new AbortSignal(aborts);
    get signal() { return this.#signal; }
    abort(reason) { aborts.get(this.#signal)(reason); }
  }
  globalThis.AbortSignal = AbortSignal;
  globalThis.AbortController = AbortController;
  let attempt = null;
  const signalOf = () => {
    if (attempt === null) { attempt = new AbortController(); sync("listen", ""); }
    return attempt.signal;
  };
`;

/** Logs. */
const LOGS = String.raw`
  const log = (level) => (...parts) => { sync("log", stringify({ level, text: parts.map(shown).join(" ") })); };
  globalThis.console = { debug: log("debug"), log: log("info"), info: log("info"), warn: log("warn"), error: log("error"), trace: log("debug") };
`;

/** What the host calls. What ends a guest for good is thrown past `catch`, but not past the executor of a promise. */
const ENTRIES = String.raw`
  let handler = null;
  let given = "";
  let attempted = null;
  const context = contextOf(request, log, signalOf, () => (attempted ??= aboutIn(given)));
  const { then } = NativePromise.prototype;
  const failed = (error) => done(1, stringify(faultOf(error)));
  const kept = (value) => {
    let output;
    try { output = stringify(value) ?? "null"; } catch (error) { return failed(error); }
    done(0, output);
  };
  const { resolve, reject } = NativePromise;
  globalThis.__entries = {
    handle(namespace) { handler = namespace.default; return typeof handler; },
    invoke(input, about) {
      given = about;
      let handled;
      try { handled = resolve.call(NativePromise, handler(parse(input), context)); } catch (error) { handled = reject.call(NativePromise, error); }
      then.call(handled, kept, failed);
    },
    settle(id, isAnswer, text) {
      const pair = waiting.get(id);
      if (pair === undefined) return;
      waiting.delete(id);
      const value = parse(text);
      if (isAnswer) pair[0](value); else pair[1](new HostError(value.code, value.message));
    },
    fire(id) { timers.get(id)?.(); },
    stop(reason) { attempt?.abort(new HostError("canceled", reason)); },
  };
`;

export const PRELUDE = `(() => {${OPENING}${HANDLER_CONTEXT}${ASKS}${TIMERS}${PLACE}${TEXT}${CHANCE}${URLS}${COPIES}${SIGNALS}${LOGS}${ENTRIES}})();`;
