/**
 * An instance that one image is restored into, again and again. An invocation
 * leases it; what the host answers after the lease has ended is dropped.
 */
import {
  FUNCTION_ASK_CHARS_MAX,
  FUNCTION_ASKS_MAX,
  FUNCTION_ASKS_OPEN_MAX,
  FUNCTION_FUEL_PER_MS,
  FUNCTION_LOG_CHARS_MAX,
  FUNCTION_LOGS_MAX,
  FUNCTION_OUTPUT_CHARS_MAX,
  FUNCTION_TIMERS_MAX,
} from "../../../shared/limits.ts";
import { endedBy, NEVER_COMES, tooLong } from "../endings.ts";
import { HostError, type Invocation } from "../types.ts";
import type { Ended } from "../../../shared/protocol/function.ts";
import { type Part, partsOf, spread } from "./extents.ts";
import type { GuestCalls } from "./imports.ts";
import { GuestMemoryError } from "./imports.ts";
import type { Manifest } from "./manifest.ts";
import { mappedStack } from "../source-map.ts";
import { synchronous } from "./synchronous.ts";
import { GuestError, Vm } from "./vm.ts";

const PAGE_BYTES = 65_536;
const SEED_BYTES = 8;
const NO_ROOM = "functions that run beside this one have taken the memory that it needs more; another attempt may find room";

/** An image in memory, ready to be restored. */
export interface Image {
  readonly manifest: Manifest;
  readonly bytes: Uint8Array;
}

/** As the guest tells it, which may be anything. */
type Fault = Readonly<Record<"detail" | "stack" | "code" | "retryable", unknown>>;

type Failed = Extract<Ended, { outcome: "failed" }>;

/** How much memory an instance of it has. */
export const instanceBytesOf = ({ pages }: Manifest): number => pages * PAGE_BYTES;

export class Instance {
  readonly image: Image;
  readonly #vm = new Vm();
  readonly #parts: readonly Part[];
  /** Counts invocations. */
  #lease = 0;

  constructor(image: Image) {
    this.image = image;
    this.#parts = partsOf(image.bytes, image.manifest.extents);
    const { memory } = this.#vm.x;
    memory.grow(Math.max(0, image.manifest.pages - memory.buffer.byteLength / PAGE_BYTES));
    this.restore();
  }

  get bytes(): number {
    return this.#vm.x.memory.buffer.byteLength;
  }

  /** Whether it can be restored: its memory is in a known state and no larger than the image asks for. */
  get isSound(): boolean {
    return !this.#vm.hasTrapped && this.bytes === instanceBytesOf(this.image.manifest);
  }

  /** Makes it as it was when the image was taken, but for the state of `Math.random`. */
  restore(): void {
    const { manifest } = this.image;
    const { memory, x } = this.#vm;
    // Whoever ran here may hold much of the host.
    this.#vm.guest = null;
    spread(memory, manifest.start, this.#parts);
    x.__stack_pointer.value = manifest.start;
    crypto.getRandomValues(memory.subarray(manifest.seed, manifest.seed + SEED_BYTES));
  }

  /** Runs the handler once in the restored instance. Never rejects. `hasRoom` is asked whenever its memory has grown. */
  invoke(invocation: Invocation, cpuMs: number, hasRoom: () => boolean): Promise<Ended> {
    const lease = ++this.#lease;
    const units = Math.ceil(cpuMs * FUNCTION_FUEL_PER_MS);
    const bounds = { units, hasRoom, isCurrent: () => this.#lease === lease };
    const run = new Run(this.#vm, this.image.manifest, invocation, bounds);
    run.start();
    return run.ended.finally(() => this.#lease++);
  }
}

interface Bounds {
  /** Fuel that it may use. */
  readonly units: number;
  readonly hasRoom: () => boolean;
  readonly isCurrent: () => boolean;
}

/** One invocation. */
class Run implements GuestCalls {
  readonly ended: Promise<Ended>;
  readonly #vm: Vm;
  readonly #manifest: Manifest;
  readonly #invocation: Invocation;
  readonly #bounds: Bounds;
  /** What is left of it. */
  #fuel: number;
  #bytes: number;
  readonly #timers = new Map<number, number>();
  /** Codes that the host gave. A guest cannot make one up. */
  readonly #given = new Set<string>();
  readonly #stop: () => void;
  #resolve!: (ended: Ended) => void;
  #result: Ended | null = null;
  /** The guest runs just now. */
  #isInside = false;
  /** Its fuel was taken away, because it has ended and still ran. */
  #isStopped = false;
  #hasOverrun = false;
  /** The guest has asked for its signal. */
  #isListening = false;
  #open = 0;
  #asked = 0;
  #logged = 0;

  constructor(vm: Vm, manifest: Manifest, invocation: Invocation, bounds: Bounds) {
    this.#vm = vm;
    this.#manifest = manifest;
    this.#invocation = invocation;
    this.#bounds = bounds;
    this.#fuel = bounds.units;
    this.#bytes = vm.x.memory.buffer.byteLength;
    this.ended = new Promise((resolve) => (this.#resolve = resolve));
    this.#stop = () => this.#cut(invocation.cutoff.reason);
  }

  start(): void {
    const { cutoff, input, about } = this.#invocation;
    const { invoke, values } = this.#manifest.entries;
    cutoff.watch(this.#stop);
    if (cutoff.isOver) this.#stop();
    else this.#enter(() => this.#vm.call(invoke, values, this.#vm.newText(input), this.#vm.newText(about)));
  }

  /** Ends it from outside. The guest hears of it by its signal, and may log what it makes of that. */
  #cut(reason: unknown): void {
    if (this.#result !== null) return;
    this.#result = endedBy(reason);
    if (this.#isInside) return this.#halt();
    const { stop, values } = this.#manifest.entries;
    if (!this.#isListening) return this.#end(this.#result);
    this.#enter(() => this.#vm.call(stop, values, this.#vm.newText(String(reason))));
  }

  /** Lets the guest run until it has nothing to do. */
  #enter(work: () => void): void {
    const vm = this.#vm;
    vm.guest = this;
    vm.fuel = this.#fuel;
    this.#isInside = true;
    try {
      vm.run(() => {
        work();
        vm.drain();
      });
      // What stopped it may have been caught, where the engine keeps what was thrown.
      if (this.#result === null && vm.isOver) this.#overran();
      if (this.#result === null && this.#open === 0 && this.#timers.size === 0) this.#fail("function_error", NEVER_COMES);
    } catch (error) {
      this.#broken(error);
    }
    this.#isInside = false;
    if (!this.#isStopped) this.#fuel = Math.min(this.#fuel, vm.fuel);
    if (this.#result === null && this.#hasGrown() && !this.#bounds.hasRoom()) return this.#fail("temporary_reduced_capacity", NO_ROOM);
    if (this.#result !== null) this.#end(this.#result);
  }

  #hasGrown(): boolean {
    const { byteLength } = this.#vm.x.memory.buffer;
    const hasGrown = byteLength > this.#bytes;
    this.#bytes = byteLength;
    return hasGrown;
  }

  #broken(error: unknown): void {
    if (this.#isStopped) return;
    if (this.#vm.isOver) return this.#overran();
    if (error instanceof GuestMemoryError) return this.#fail("function_limit", "the function used up its memory");
    if (error instanceof GuestError) return this.#fail(...faultWords(error.message), mappedStack(error.stack_, this.#manifest.map ?? null));
    this.#fail("function_limit", `the function broke its engine: ${String(error)}`);
  }

  #overran(): void {
    this.#hasOverrun = true;
    this.#fail("function_limit", `the function used more than its ${this.#bounds.units / FUNCTION_FUEL_PER_MS} ms of processor time`);
  }

  /** The first end counts. A guest that runs just now is stopped as soon as can be. */
  #fail(code: Failed["code"], detail: string, stack?: string, retryable = false): void {
    this.#result ??= { outcome: "failed", code, detail, cpuMs: 0, ...(stack ? { stack } : {}), ...(retryable ? { retryable } : {}) };
    if (!this.#isInside) return this.#end(this.#result);
    this.#halt();
  }

  /** Stops a guest that runs just now. */
  #halt(): void {
    if (!this.#isStopped) this.#fuel = Math.min(this.#fuel, this.#vm.fuel);
    this.#isStopped = true;
    this.#vm.fuel = -1;
  }

  #end(ended: Ended): void {
    this.#invocation.cutoff.forget(this.#stop);
    for (const timer of this.#timers.values()) clearTimeout(timer);
    this.#timers.clear();
    const { units } = this.#bounds;
    const cpuMs = Math.min(units, units - this.#fuel) / FUNCTION_FUEL_PER_MS;
    this.#resolve({ ...ended, cpuMs, ...(this.#hasOverrun ? { isOverrun: true } : {}) });
  }

  /** Whether what has just come is for a run that goes on. */
  #goesOn(): boolean {
    return this.#result === null && this.#bounds.isCurrent();
  }

  ask(id: number, op: string, args: string): void {
    if (this.#result !== null) return;
    if (++this.#asked > FUNCTION_ASKS_MAX)
      return this.#fail("function_limit", `the function asked the host more than ${FUNCTION_ASKS_MAX} times`);
    if (this.#open >= FUNCTION_ASKS_OPEN_MAX)
      return this.#fail(
        "function_limit",
        `the function waits for more than ${FUNCTION_ASKS_OPEN_MAX} host calls at once; await some of them first`,
      );
    if (args.length > FUNCTION_ASK_CHARS_MAX)
      return this.#fail("function_limit", `a host call has more than ${FUNCTION_ASK_CHARS_MAX} characters`);
    this.#open++;
    this.#invocation.calls(op, args, this.#asked).then(
      (text) => this.#answer(id, true, text),
      (error: unknown) => this.#answer(id, false, this.#refusal(error)),
    );
  }

  #refusal(error: unknown): string {
    if (!(error instanceof HostError)) return JSON.stringify({ code: "internal", message: "the host call failed" });
    this.#given.add(error.code);
    return JSON.stringify({ code: error.code, message: error.message });
  }

  #answer(id: number, isAnswer: boolean, text: string): void {
    this.#open--;
    if (!this.#goesOn()) return;
    const { x } = this.#vm;
    const { settle, values } = this.#manifest.entries;
    this.#enter(() =>
      this.#vm.call(settle, values, x.qjs_new_number(id), isAnswer ? x.qjs_get_true() : x.qjs_get_false(), this.#vm.newText(text)),
    );
  }

  timer(id: number, ms: number): void {
    if (this.#result !== null) return;
    if (this.#timers.size >= FUNCTION_TIMERS_MAX)
      return this.#fail("function_limit", `the function has more than ${FUNCTION_TIMERS_MAX} timers`);
    const fire = (): void => {
      this.#timers.delete(id);
      if (!this.#goesOn()) return;
      const { fire: entry, values } = this.#manifest.entries;
      this.#enter(() => this.#vm.call(entry, values, this.#vm.x.qjs_new_number(id)));
    };
    this.#timers.set(id, setTimeout(fire, ms));
  }

  cancel(id: number): void {
    const timer = this.#timers.get(id);
    if (timer !== undefined) clearTimeout(timer);
    this.#timers.delete(id);
  }

  done(kind: number, text: string): void {
    if (this.#result !== null) return;
    // An executor of a promise, and whoever is asked for its then, keeps what was thrown to stop it.
    if (this.#vm.isOver) return this.#overran();
    if (kind === 0 && text.length > FUNCTION_OUTPUT_CHARS_MAX) return this.#fail("function_limit", tooLong(text.length));
    if (kind === 0) this.#result = { outcome: "returned", output: text, cpuMs: 0 };
    else if (text.length > FUNCTION_OUTPUT_CHARS_MAX) this.#fail("function_error", "what the function threw is too large to show");
    else this.#failWith(JSON.parse(text) as Fault);
  }

  #failWith(fault: Fault): void {
    const [detail, stack, code] = [String(fault.detail), String(fault.stack), String(fault.code)];
    const retryable = fault.retryable === true;
    const mapped = mappedStack(stack, this.#manifest.map ?? null);
    // Only the host gives codes: a guest cannot make up one that means something else.
    const [kind, words] = this.#given.has(code) ? ([code as Failed["code"], detail] as const) : faultWords(detail);
    this.#fail(kind, words, mapped, retryable);
  }

  sync(op: string, args: string): string {
    if (op === "listen") this.#isListening = true;
    if (op !== "log") return synchronous(op, args);
    if (++this.#logged <= FUNCTION_LOGS_MAX) {
      this.#invocation.calls("log", args.length > FUNCTION_LOG_CHARS_MAX ? clipped(args) : args, 0).catch(() => undefined);
    }
    return "null";
  }
}

function clipped(args: string): string {
  const { level, text } = JSON.parse(args) as { readonly level: string; readonly text: string };
  return JSON.stringify({ level, text: `${text.slice(0, FUNCTION_LOG_CHARS_MAX)}…` });
}

/** An error of the engine that means a limit. */
function faultWords(message: string): readonly [Failed["code"], string] {
  if (message.includes("out of memory")) return ["function_limit", "the function used up its memory"];
  return ["function_error", message];
}
