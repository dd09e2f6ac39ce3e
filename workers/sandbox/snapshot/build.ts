/**
 * Makes an image of a bundle: it and the prelude are compiled in one instance,
 * so that the image has no source and nothing of the compiler's, evaluated and
 * primed in a fresh one, cleaned up, and taken from the stack pointer to the end.
 */
import { type Failure, failure } from "../../../shared/errors.ts";
import {
  FUNCTION_FUEL_PER_MS,
  FUNCTION_INIT_CPU_MS_MAX,
  FUNCTION_INIT_MEMORY_BYTES_MAX,
  FUNCTION_STACK_BYTES,
} from "../../../shared/limits.ts";
import type { FunctionLimits } from "../../../shared/protocol/function.ts";
import { err, ok, type Result } from "../../../shared/result.ts";
import type { StoredImage } from "../../../shared/rpc-functions.ts";
import { ENGINE_ID } from "./engine-id.ts";
import { extentsOf, extractedFrom } from "./extents.ts";
import { GuestMemoryError } from "./imports.ts";
import { type Entries, type Manifest, packed } from "./manifest.ts";
import { PRELUDE } from "./prelude.ts";
import { mapOf, mappedStack, withoutMap } from "../source-map.ts";
import { synchronous } from "./synchronous.ts";
import { GuestError, Vm } from "./vm.ts";

export interface BuiltImage extends StoredImage {
  /** Of its memory, what is not zero. */
  readonly snapshotBytes: number;
  readonly initMs: number;
}

const FILE = "function.js";
/** Free memory that the image has ready, so that a handler's first values need no new pages. */
const SLACK_BYTES = 256 * 1024;
const PAGE_BYTES = 65_536;
const ARGUMENTS_BYTES = 64;

const NO_CALLS = "there are no host calls and no timers while a function is initialised: they are for its handler";

/** At initialisation only what is answered at once is there. */
const QUIET = {
  ask: () => refuse(),
  timer: () => refuse(),
  cancel: () => undefined,
  done: () => undefined,
  sync: synchronous,
};

function refuse(): never {
  throw new GuestError(`Error: ${NO_CALLS}`, "");
}

function started(): Vm {
  const vm = new Vm();
  vm.guest = QUIET;
  vm.fuel = FUNCTION_INIT_CPU_MS_MAX * FUNCTION_FUEL_PER_MS;
  vm.start(FUNCTION_STACK_BYTES);
  vm.x.qjs_set_memory_limit(FUNCTION_INIT_MEMORY_BYTES_MAX);
  return vm;
}

/** The prelude and the module, initialised: the functions that the host calls. */
function initialised(vm: Vm, prelude: Uint8Array, bytecode: Uint8Array): Entries {
  const { x } = vm;
  for (const name of ["ask", "done", "timer", "cancel", "sync"]) vm.hostFunction(name);
  x.qjs_free_value(vm.load(prelude));
  const namespace = vm.load(bytecode);
  vm.setGlobal("__namespace", namespace);
  const kind = vm.eval("__entries.handle(__namespace)", "drover.js");
  if (vm.text(kind) !== "function") {
    throw new GuestError(`TypeError: the default export must be a function (input, ctx) => output, and it is of type ${vm.text(kind)}`, "");
  }
  const primed = vm.eval("(async () => { if (typeof __namespace.prime === 'function') await __namespace.prime(); })()", "drover.js");
  vm.drain();
  const state = x.qjs_promise_state(primed);
  if (state !== 1)
    throw state === 2 ? vm.errorOf(x.qjs_promise_result(primed)) : new GuestError("Error: prime awaits something that never comes", "");
  const taken = vm.eval("__entries", "drover.js");
  const entries = {
    invoke: vm.property(taken, "invoke"),
    settle: vm.property(taken, "settle"),
    fire: vm.property(taken, "fire"),
    stop: vm.property(taken, "stop"),
    values: x.wasm_malloc(ARGUMENTS_BYTES),
  };
  for (const value of [kind, primed, taken]) x.qjs_free_value(value);
  x.qjs_free_value(vm.eval("delete globalThis.__entries; delete globalThis.__namespace", "drover.js"));
  return entries;
}

const MASK = (1n << 64n) - 1n;

/** One step of xorshift64* (Marsaglia 2003, Vigna 2016), of which the engine's `Math.random` is made. */
function stepped(state: bigint): bigint {
  let x = state;
  x ^= x >> 12n;
  x ^= (x << 25n) & MASK;
  return x ^ (x >> 27n);
}

const CONTEXT_BYTES = 2_048;

/** Where the state of `Math.random` is: the one place in the context that moves by a step of its generator. */
function seedOf(vm: Vm): number {
  const context = vm.x.qjs_get_context_ptr();
  const before = vm.memory.slice(context, context + CONTEXT_BYTES);
  vm.x.qjs_free_value(vm.eval("Math.random()", "drover.js"));
  const [was, is] = [new DataView(before.buffer), new DataView(vm.memory.buffer, context, CONTEXT_BYTES)];
  for (let at = 0; at + 8 <= CONTEXT_BYTES; at += 8) {
    const state = was.getBigUint64(at, true);
    if (state !== 0n && is.getBigUint64(at, true) === stepped(state)) return context + at;
  }
  throw new Error("the state of Math.random is not where it was; the engine is another");
}

function captured(
  vm: Vm,
  prelude: Uint8Array,
  bytecode: Uint8Array,
  limits: FunctionLimits,
  map: string | null,
): { readonly manifest: Manifest; readonly image: Uint8Array } {
  const entries = initialised(vm, prelude, bytecode);
  const { x } = vm;
  const seed = seedOf(vm);
  x.qjs_run_gc();
  x.wasm_free(x.wasm_malloc(SLACK_BYTES));
  const start = x.__stack_pointer.value;
  const extents = extentsOf(vm.memory, start);
  const [last, lastBytes] = extents.at(-1)!;
  // It takes the place of another limit, so the extents are what they were.
  x.qjs_set_memory_limit(last + lastBytes - start + limits.memoryBytes);
  const image = extractedFrom(vm.memory, extents);
  const pages = vm.memory.length / PAGE_BYTES;
  const { memoryBytes } = limits;
  return { manifest: { start, pages, extents, memoryBytes, seed, entries, ...(map === null ? {} : { map }) }, image };
}

/** Why a bundle cannot be initialised, in the words of its own error. */
function refusalOf(error: unknown, vm: Vm, map: string | null): Failure {
  if (vm.isOver)
    return failure("invalid_request", `the function's initialisation takes more than ${FUNCTION_INIT_CPU_MS_MAX} ms of processor time`);
  if (!(error instanceof GuestError || error instanceof GuestMemoryError)) throw error;
  const stack = error instanceof GuestError ? mappedStack(error.stack_, map) : "";
  return failure("invalid_request", `the function cannot be initialised: ${error.message}${stack === "" ? "" : `\n${stack}`}`);
}

/**
 * Builds the image of an ES module with `export default (input, ctx) => output`
 * and, if it likes, `export function prime()`, which is called once before the
 * image is taken. `invalid_request` says what a bundle threw, and where.
 */
export async function buildImage(bundle: string, limits: FunctionLimits): Promise<Result<BuiltImage, Failure>> {
  const map = mapOf(bundle);
  const [compiler, vm] = [started(), started()];
  const startedAtMs = Date.now();
  let current = compiler;
  let made: ReturnType<typeof captured>;
  try {
    const bytecode = compiler.run(() => compiler.compile(withoutMap(bundle), FILE));
    const prelude = compiler.run(() => compiler.compile(PRELUDE, "drover.js"));
    current = vm;
    made = vm.run(() => captured(vm, prelude, bytecode, limits, map));
  } catch (error) {
    return err(refusalOf(error, current, map));
  }
  const initMs = Date.now() - startedAtMs;
  const { manifest, image } = made;
  return ok({ engineId: ENGINE_ID, manifest: JSON.stringify(manifest), bytes: await packed(image), snapshotBytes: image.length, initMs });
}
