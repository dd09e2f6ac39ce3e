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

const BAD_FILE = 8;
const NOT_SUPPORTED = 52;

/** `engine` is there by the time anything is called. `isOver` says whether the guest must stop. */
export function importsOf(engine: () => EngineExports, guest: () => GuestCalls, isOver: () => boolean, text: (value: number) => string) {
  const view = (): DataView => new DataView(engine().memory.buffer);
  const call = (name: string, values: readonly number[]): string | null => {
    const number = (place: number): number => engine().qjs_get_float64(values[place]!);
    switch (name) {
      case "ask":
        guest().ask(number(0), text(values[1]!), text(values[2]!));
        return null;
      case "done":
        guest().done(number(0), text(values[1]!));
        return null;
      case "timer":
        guest().timer(number(0), number(1));
        return null;
      case "cancel":
        guest().cancel(number(0));
        return null;
      default:
        return guest().sync(text(values[0]!), text(values[1]!));
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
      host_call(name: number, bytes: number, _self: number, count: number, values: number) {
        const { buffer } = engine().memory;
        const addresses = new Uint32Array(buffer.slice(values, values + 4 * count));
        const answer = call(String.fromCharCode(...new Uint8Array(buffer, name, bytes)), [...addresses]);
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

/** Puts UTF-8 with a zero at its end into the guest's memory: its address and length. Throws where there is no room. */
export function newBytes(engine: EngineExports, text: string): readonly [number, number] {
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
