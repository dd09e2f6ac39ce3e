/**
 * What the engine asks of the world: the time, chance, and the host functions
 * that the prelude takes. There are no files.
 */
import type { EngineExports } from "./exports.ts";

/** Calls from the guest, by the name that the prelude gives them. */
export interface GuestCalls {
  /** The handler asks for something; the answer comes later. */
  ask(id: number, op: string, args: string): void;
  /** The handler has ended: `kind` is 0 for its output as JSON, 1 for a fault as JSON. */
  done(kind: number, text: string): void;
  timer(id: number, ms: number): void;
  cancel(id: number): void;
  /** Answers at once. */
  sync(op: string, args: string): string;
}

/** The functions that the prelude takes differ in their first letters. */
const INITIALS = { ask: "a".charCodeAt(0), done: "d".charCodeAt(0), timer: "t".charCodeAt(0), cancel: "c".charCodeAt(0) };
const ADDRESS_BYTES = 4;
const BAD_FILE = 8;
const NOT_SUPPORTED = 52;

/** `engine` is there by the time anything is called. `isOver` says whether the guest must stop. */
export function importsOf(engine: () => EngineExports, guest: () => GuestCalls, isOver: () => boolean, text: (value: number) => string) {
  const view = (): DataView => new DataView(engine().memory.buffer);
  /** `values` is where the addresses of the arguments are. */
  const call = (initial: number, values: number): string | null => {
    const value = (place: number): number => view().getUint32(values + ADDRESS_BYTES * place, true);
    const number = (place: number): number => engine().qjs_get_float64(value(place));
    switch (initial) {
      case INITIALS.ask:
        guest().ask(number(0), text(value(1)), text(value(2)));
        return null;
      case INITIALS.done:
        guest().done(number(0), text(value(1)));
        return null;
      case INITIALS.timer:
        guest().timer(number(0), number(1));
        return null;
      case INITIALS.cancel:
        guest().cancel(number(0));
        return null;
      default:
        return guest().sync(text(value(0)), text(value(1)));
    }
  };
  return {
    env: {
      host_get_timezone_offset: () => 0,
      host_interrupt: () => (isOver() ? 1 : 0),
      host_promise_rejection(promise: number, reason: number) {
        engine().qjs_free_value(promise);
        engine().qjs_free_value(reason);
      },
      host_module_normalize: () => 0,
      host_module_load: () => 0,
      host_call(name: number, _bytes: number, _self: number, _count: number, values: number) {
        const answer = call(view().getUint8(name), values);
        return answer === null ? engine().qjs_get_undefined() : newText(engine(), answer);
      },
    },
    wasi_snapshot_preview1: {
      clock_time_get(_clock: number, _precision: bigint, at: number) {
        view().setBigUint64(at, BigInt(Date.now()) * 1_000_000n, true);
        return 0;
      },
      random_get(at: number, bytes: number) {
        crypto.getRandomValues(new Uint8Array(engine().memory.buffer, at, bytes));
        return 0;
      },
      fd_close: () => NOT_SUPPORTED,
      fd_fdstat_get: () => BAD_FILE,
      fd_seek: () => NOT_SUPPORTED,
      fd_write(_file: number, _vectors: number, _count: number, written: number) {
        view().setUint32(written, 0, true);
        return 0;
      },
    },
  };
}

const encoder = new TextEncoder();
/** Text as short as this is written here: the platform's encoder takes longer to be called. */
const SHORT_CHARS = 512;
const ASCII_MAX = 0x7f;

/** Puts short ASCII with a zero at its end into the guest's memory: its address; 0 for text that is not ASCII. */
function newAscii(engine: EngineExports, text: string): number {
  const { length } = text;
  const at = engine.wasm_malloc(length + 1);
  if (at === 0) throw new GuestMemoryError();
  const memory = new Uint8Array(engine.memory.buffer, at, length + 1);
  for (let i = 0; i < length; i++) {
    const code = text.charCodeAt(i);
    if (code > ASCII_MAX) {
      engine.wasm_free(at);
      return 0;
    }
    memory[i] = code;
  }
  memory[length] = 0;
  return at;
}

/** Puts UTF-8 with a zero at its end into the guest's memory: its address and length. Throws where there is no room. */
export function newBytes(engine: EngineExports, text: string): readonly [number, number] {
  const ascii = text.length <= SHORT_CHARS ? newAscii(engine, text) : 0;
  if (ascii !== 0) return [ascii, text.length];
  const bytes = encoder.encode(text);
  const at = engine.wasm_malloc(bytes.length + 1);
  if (at === 0) throw new GuestMemoryError();
  const memory = new Uint8Array(engine.memory.buffer);
  memory.set(bytes, at);
  memory[at + bytes.length] = 0;
  return [at, bytes.length];
}

export function newText(engine: EngineExports, text: string): number {
  const [at, bytes] = newBytes(engine, text);
  const value = engine.qjs_new_string(at, bytes);
  engine.wasm_free(at);
  return value;
}

/** The guest has no memory left for what the host gives it. */
export class GuestMemoryError extends Error {
  constructor() {
    super("out of memory");
  }
}
