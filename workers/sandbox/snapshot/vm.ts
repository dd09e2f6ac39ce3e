/**
 * One instance of the engine with a guest in it. It knows how to run code and
 * to move values; what that is for others decide. The functions that it is
 * built of are those of quickjs-wasi, called directly, because the package's
 * own class cannot put a snapshot into an instance that exists.
 */
import engineModule from "../engine.wasm";
import type { EngineExports } from "./exports.ts";
import { GuestMemoryError, type GuestCalls, importsOf, newBytes, newText } from "./imports.ts";

const MODULE = 1;
/** Keeps names and lines, which stacks are made of. */
const STRIP_SOURCE = 16;
const FULFILLED = 1;
const REJECTED = 2;
/** What the engine may use up beyond its fuel before it traps: time to stop in order. */
export const FUEL_SPARE = 500_000;

const decoder = new TextDecoder();

/** Code of the guest threw. `fault` is what it threw, as it says itself. */
export class GuestError extends Error {
  readonly stack_: string;

  constructor(message: string, stack: string) {
    super(message);
    this.stack_ = stack;
  }
}

export class Vm {
  readonly x: EngineExports;
  /** Hears what the guest calls. */
  guest: GuestCalls | null = null;
  /** Set by a trap: the memory is in no known state. */
  hasTrapped = false;

  constructor() {
    const imports = importsOf(
      () => this.x,
      () => this.guest!,
      () => this.isOver,
      (value) => this.text(value),
    );
    this.x = new WebAssembly.Instance(engineModule, imports).exports as unknown as EngineExports;
  }

  get memory(): Uint8Array<ArrayBuffer> {
    return new Uint8Array(this.x.memory.buffer);
  }

  get isOver(): boolean {
    return this.x.fuel.value < FUEL_SPARE;
  }

  /** What is left to use up; below 0 it is over. */
  get fuel(): number {
    return this.x.fuel.value - FUEL_SPARE;
  }

  set fuel(units: number) {
    this.x.fuel.value = units + FUEL_SPARE;
  }

  /** Runs something in the engine, and notes a trap. */
  run<T>(work: () => T): T {
    try {
      return work();
    } catch (error) {
      if (!(error instanceof GuestError || error instanceof GuestMemoryError)) this.hasTrapped = true;
      throw error;
    }
  }

  start(stackBytes: number): void {
    this.x._initialize();
    if (this.x.qjs_init() !== 0) throw new Error("the engine did not start");
    this.x.qjs_set_interrupt_handler(1);
    this.x.qjs_set_max_stack_size(stackBytes);
  }

  /** The value as text. */
  text(value: number): string {
    const { x } = this;
    const length = x.wasm_malloc(4);
    const at = length === 0 ? 0 : x.qjs_get_string_len(value, length);
    if (at === 0) throw new GuestMemoryError();
    const bytes = new DataView(x.memory.buffer).getUint32(length, true);
    x.wasm_free(length);
    const text = decoder.decode(new Uint8Array(x.memory.buffer, at, bytes));
    x.qjs_free_cstring(at);
    return text;
  }

  /** The value, or what it stands for where it is an exception. */
  checked(value: number): number {
    if (this.x.qjs_is_exception(value) === 0) return value;
    throw this.errorOf(this.x.qjs_get_exception());
  }

  errorOf(value: number): GuestError {
    let stack = "";
    try {
      const traced = this.property(value, "stack");
      if (this.x.qjs_is_exception(traced) === 0) stack = this.text(traced);
      return new GuestError(this.text(value), stack === "undefined" ? "" : stack);
    } catch (error) {
      if (this.hasTrapped || !(error instanceof GuestMemoryError)) throw error;
      return new GuestError("InternalError: out of memory", "");
    }
  }

  eval(code: string, name: string): number {
    const { x } = this;
    const [text, bytes] = newBytes(x, code);
    const [file] = newBytes(x, name);
    const value = x.qjs_eval(text, bytes, file, 0);
    x.wasm_free(text);
    x.wasm_free(file);
    return this.checked(value);
  }

  /** Bytecode of an ES module, without its source. */
  compile(code: string, name: string): Uint8Array {
    const { x } = this;
    const [text, bytes] = newBytes(x, code);
    const [file] = newBytes(x, name);
    const length = x.wasm_malloc(4);
    const at = x.qjs_compile(text, bytes, file, MODULE, STRIP_SOURCE, length);
    if (at === 0) throw this.errorOf(x.qjs_get_exception());
    const size = new DataView(x.memory.buffer).getUint32(length, true);
    return this.memory.slice(at, at + size);
  }

  /** Evaluates a compiled module, with all that it does at its top level: its namespace. */
  load(bytecode: Uint8Array): number {
    const { x } = this;
    const at = x.wasm_malloc(bytecode.length);
    if (at === 0) throw new GuestMemoryError();
    this.memory.set(bytecode, at);
    const promise = this.checked(x.qjs_eval_bytecode(at, bytecode.length));
    x.wasm_free(at);
    this.drain();
    const state = x.qjs_promise_state(promise);
    const result = x.qjs_promise_result(promise);
    x.qjs_free_value(promise);
    if (state === FULFILLED) return result;
    if (state === REJECTED) throw this.errorOf(result);
    throw new GuestError("Error: its top level awaits something that never comes; there are no host calls at initialisation", "");
  }

  /** Runs what is due. What fails in it concerns promises that nobody waits for any more. */
  drain(): void {
    const { x } = this;
    while (x.qjs_is_job_pending() !== 0) {
      if (x.qjs_execute_pending_job() < 0) throw this.errorOf(x.qjs_get_exception());
    }
  }

  property(object: number, name: string): number {
    const [at] = newBytes(this.x, name);
    const value = this.x.qjs_get_prop_string(object, at);
    this.x.wasm_free(at);
    return value;
  }

  setGlobal(name: string, value: number): void {
    const global = this.x.qjs_get_global();
    const [at] = newBytes(this.x, name);
    this.x.qjs_set_prop_string(global, at, value);
    this.x.wasm_free(at);
    this.x.qjs_free_value(global);
  }

  /** Makes a function of the host a global of the guest; the prelude takes it from there. */
  hostFunction(name: string): void {
    const [at, bytes] = newBytes(this.x, name);
    this.setGlobal(`__${name}`, this.x.qjs_new_host_function(at, bytes, 0));
    this.x.wasm_free(at);
  }

  /** Calls a function of the guest with values that are given up by that. `values` is a place for their addresses. */
  call(callee: number, values: number, ...given: readonly number[]): void {
    const { x } = this;
    const addresses = new Uint32Array(x.memory.buffer, values, given.length);
    given.forEach((value, place) => (addresses[place] = value));
    const answer = x.qjs_call(callee, x.qjs_get_undefined(), given.length, values);
    this.x.qjs_free_value(this.checked(answer));
    for (const value of given) x.qjs_free_value(value);
  }

  newText(text: string): number {
    return newText(this.x, text);
  }
}
