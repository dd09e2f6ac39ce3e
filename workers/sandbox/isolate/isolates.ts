/**
 * The engine `isolate`: functions in dynamic Workers of the platform's Worker
 * Loader, one a version, warm as long as the platform keeps it. The module's
 * scope is evaluated once an isolate and outlives a task; the time on the
 * processor and the memory are the platform's to bound. docs/functions/engines.md
 * says what that means.
 */
import { FUNCTION_OUTPUT_CHARS_MAX, PLATFORM_SUBREQUESTS_PER_INVOCATION_MAX, PROBLEM_CHARS_MAX } from "../../../shared/limits.ts";
import type { Ended, FunctionVersion } from "../../../shared/protocol/function.ts";
import { endedBy, failed, NEVER_COMES, tooLong } from "../endings.ts";
import { mapOf, mappedStack, withoutMap } from "../source-map.ts";
import type { Invocation } from "../types.ts";
import { GUEST } from "./guest.ts";
import { HostTarget } from "./host-target.ts";
import { Slots } from "./slots.ts";

/** Of a guest that the function may have changed, so every field may be anything. */
interface Fault {
  readonly detail?: unknown;
  readonly stack?: unknown;
  readonly code?: unknown;
  readonly retryable?: unknown;
}

/** `chars`: the output was too long to be sent. */
interface GuestReply {
  readonly output?: unknown;
  readonly chars?: unknown;
  readonly fault?: Fault;
  readonly isOver?: unknown;
}

interface Guest {
  check(): Promise<{ readonly fault?: Fault }>;
  invoke(input: string, about: string, host: HostTarget, charsMax: number): Promise<GuestReply & Disposable>;
}

/** A bundle that cannot be used, in words for its author. */
export interface BundleFault {
  readonly detail: string;
  readonly stack?: string | undefined;
}

/** How the platform says that a limit ended an isolate. */
const LIMIT_MESSAGE = /exceeded (?:its |the )?.*(?:limit|cpu|memory|time)|too many subrequests/i;
/** How long a guest that was told to end is counted as in flight at most. */
const ENDING_MS = 1_000;
const HUNG_MESSAGE = /code had hung/;

function codeOf(bundle: string, limits?: FunctionVersion["limits"]): WorkerLoaderWorkerCode {
  return {
    compatibilityDate: "2026-10-13",
    // Node.js compatibility takes most of the time that a new isolate takes.
    compatibilityFlags: ["no_nodejs_compat", "no_nodejs_compat_v2", "nodejs_als"],
    mainModule: "guest.js",
    modules: { "guest.js": GUEST, "function.js": withoutMap(bundle) },
    // A function reaches the world by `ctx` alone.
    globalOutbound: null,
    env: {},
    ...(limits === undefined ? {} : { limits: { cpuMs: limits.cpuMs, subRequests: PLATFORM_SUBREQUESTS_PER_INVOCATION_MAX } }),
  };
}

const shown = (value: unknown): string => String(value).slice(0, PROBLEM_CHARS_MAX);

/** The bundle that failed last, and its map: one that fails fails often. */
let mapped: { readonly bundle: string; readonly map: string | null } = { bundle: "", map: null };

function mapFor(bundle: string): string | null {
  if (mapped.bundle !== bundle) mapped = { bundle, map: mapOf(bundle) };
  return mapped.map;
}

/** The frames of the function, without those of what called it, as its author knows them. */
function stackOf(stack: unknown, bundle: string): string | undefined {
  if (typeof stack !== "string") return undefined;
  const frames = shown(stack)
    .split("\n")
    .filter((line) => /^\s+at /.test(line) && !line.includes("guest.js:"));
  return frames.length === 0 ? undefined : mappedStack(frames.join("\n"), mapFor(bundle));
}

function faulted({ code, detail, stack, retryable }: Fault, host: HostTarget, bundle: string): Ended {
  return {
    outcome: "failed",
    code: host.hasGiven(code) ? code : "function_error",
    detail: shown(detail),
    stack: stackOf(stack, bundle),
    ...(retryable === true ? { retryable } : {}),
    cpuMs: 0,
  };
}

function answeredBy({ output, chars, fault }: GuestReply, host: HostTarget, bundle: string): Ended {
  if (fault !== undefined) return faulted(fault, host, bundle);
  const length = typeof output === "string" ? output.length : Number(chars);
  if (length > FUNCTION_OUTPUT_CHARS_MAX) return failed("function_limit", tooLong(length));
  if (typeof output !== "string") return failed("function_error", "the function answered with what is not an output");
  return { outcome: "returned", output, cpuMs: 0 };
}

/** The isolate itself failed: it says so by rejecting, which the guest never does. */
function brokenBy(error: unknown): Ended {
  const message = error instanceof Error ? error.message : String(error);
  if (HUNG_MESSAGE.test(message)) return failed("function_error", NEVER_COMES);
  return failed(LIMIT_MESSAGE.test(message) ? "function_limit" : "function_error", `the isolate ended: ${shown(message)}`);
}

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

export class Isolates {
  readonly #loader: WorkerLoader;
  readonly #slots: Slots;

  /** `distinctMax` is what the platform takes where this runs: in a request of a Worker, or in a Durable Object. */
  constructor(loader: WorkerLoader, distinctMax: number) {
    this.#loader = loader;
    this.#slots = new Slots(distinctMax);
  }

  /** Distinct versions in flight. */
  get inFlight(): number {
    return this.#slots.inFlight;
  }

  /** Loads the bundle once, in an isolate that is thrown away. Null: its default export is a handler. */
  async check(bundle: string): Promise<BundleFault | null> {
    try {
      const guest = this.#loader.load(codeOf(bundle)).getEntrypoint() as unknown as Guest;
      const { fault } = await guest.check();
      return fault === undefined ? null : { detail: shown(fault.detail), stack: stackOf(fault.stack, bundle) };
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error);
      return { detail: shown(message).replace(/^Failed to start Worker:\s*(?:Uncaught )?/, "") };
    }
  }

  /** Runs one invocation, in the isolate of its version. `begun` hears when there was a place for it. Never rejects. */
  async invoke(version: FunctionVersion, bundle: string, invocation: Invocation, begun?: () => void): Promise<Ended> {
    const { cutoff } = invocation;
    const id = version.version;
    const place = await this.#slots.enter(id, invocation.timeoutMs, cutoff);
    if (place === null) return endedBy(cutoff.reason);
    begun?.();
    const cut = Promise.withResolvers<Ended>();
    const host = new HostTarget(invocation.calls, (limit) => cut.resolve(failed("function_limit", limit)));
    const abort = (): void => {
      host.end(String(cutoff.reason));
      cut.resolve(endedBy(cutoff.reason));
    };
    cutoff.watch(abort);
    // It may have been while it waited for its place.
    if (cutoff.isOver) abort();
    const handled = this.#run(id, bundle, invocation, host);
    const ended = await Promise.race([handled, cut.promise]);
    cutoff.forget(abort);
    const close = (): void => {
      host.close();
      this.#slots.leave(place);
    };
    // One that was cut off keeps its place until it has heard of it, and may log meanwhile.
    if (host.isOver) void Promise.race([handled, pause(ENDING_MS)]).then(close);
    else close();
    host.end("the invocation has ended");
    return ended;
  }

  /** Never rejects. What it says after the invocation was cut off means nothing. */
  async #run(id: string, bundle: string, { input, about, limits }: Invocation, host: HostTarget): Promise<Ended> {
    try {
      const guest = this.#loader.get(id, () => codeOf(bundle, limits)).getEntrypoint() as unknown as Guest;
      using reply = await guest.invoke(input, about, host, FUNCTION_OUTPUT_CHARS_MAX);
      return answeredBy(reply, host, bundle);
    } catch (error) {
      return brokenBy(error);
    }
  }
}
