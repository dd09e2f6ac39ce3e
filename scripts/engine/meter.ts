/**
 * Meters a WebAssembly module: every turn of a loop costs one unit of the
 * exported global `fuel`, and so does every call that can recur without one;
 * copying and filling memory cost one unit for 64 bytes; below zero it traps.
 * So nothing that runs in it, built-in or not, takes more time than its fuel
 * lasts. Gas metering by injected code, as in wasm-metering and Substrate's
 * wasm-instrument, but not at every basic block: the code between two turns is
 * bounded. Measured on QuickJS: 1.1 times the time; with every entry charged, 1.3.
 */
import { type Bytes, concat, moduleOf, Reader, sectionsOf, u32, vector } from "./binary.ts";
import { LOOP, MEMORY_COPY, MEMORY_FILL, nextInstruction, PREFIX } from "./opcodes.ts";

const TYPES = 1;
const IMPORTS = 2;
const FUNCTIONS = 3;
const GLOBALS = 6;
const EXPORTS = 7;
const CODE = 10;

const I32 = 0x7f;
const MUTABLE = 1;
const GLOBAL_KIND = 3;
const BYTES_PER_UNIT_LOG2 = 6;

const GLOBAL_GET = 0x23;
const GLOBAL_SET = 0x24;
const LOCAL_GET = 0x20;
const CALL = 0x10;
const CONST = 0x41;
const END = 0x0b;
const SUBTRACT = 0x6b;
const SHIFT_RIGHT = 0x76;
const LESS_SIGNED = 0x48;
const TRAP_IF = [0x04, 0x40, 0x00, END];

/** Traps where nothing is left; then takes what `amount` puts on the stack. In this order it is a fifth cheaper than the other way round. */
function charge(fuel: number, amount: readonly number[]): number[] {
  const get = [GLOBAL_GET, ...u32(fuel)];
  return [...get, CONST, 0, LESS_SIGNED, ...TRAP_IF, ...get, ...amount, SUBTRACT, GLOBAL_SET, ...u32(fuel)];
}

/** The body of a function that charges for its third argument, a length in bytes, and then does `instruction` with all three. */
function bulkBody(fuel: number, instruction: readonly number[]): number[] {
  const amount = [LOCAL_GET, 2, CONST, BYTES_PER_UNIT_LOG2, SHIFT_RIGHT];
  return [0, ...charge(fuel, amount), LOCAL_GET, 0, LOCAL_GET, 1, LOCAL_GET, 2, ...instruction, END];
}

/** A reader at the first instruction of a function. */
function codeOf(body: Uint8Array): Reader {
  const reader = new Reader(body);
  for (let groups = reader.u32(); groups > 0; groups--) {
    reader.u32();
    reader.byte();
  }
  return reader;
}

/** Which function stands for which instruction after the prefix. */
type Helpers = ReadonlyMap<number, number>;

/** The code of one function, metered. */
function meteredBody(body: Uint8Array, fuel: number, helpers: Helpers, isRecursive: boolean): Uint8Array {
  const reader = codeOf(body);
  const one = charge(fuel, [CONST, 1]);
  const parts: Bytes[] = [body.subarray(0, reader.at), isRecursive ? one : []];
  let from = reader.at;
  while (reader.at < body.length) {
    const start = reader.at;
    const { opcode, second } = nextInstruction(reader);
    const helper = opcode === PREFIX ? helpers.get(second) : undefined;
    if (opcode === LOOP) {
      parts.push(body.subarray(from, reader.at), one);
      from = reader.at;
    } else if (helper !== undefined) {
      parts.push(body.subarray(from, start), [CALL, ...u32(helper)]);
      from = reader.at;
    }
  }
  parts.push(body.subarray(from));
  return concat(parts);
}

/** How many functions a module imports. */
function importsOf(body: Uint8Array | undefined): number {
  if (body === undefined) return 0;
  const reader = new Reader(body);
  const count = reader.u32();
  for (let left = count; left > 0; left--) {
    reader.skip(reader.u32());
    reader.skip(reader.u32());
    if (reader.byte() !== 0) throw new Error("only functions may be imported");
    reader.u32();
  }
  return count;
}

/** A vector with more at its end. */
function appended(body: Uint8Array, count: number, bytes: Bytes): Uint8Array {
  const reader = new Reader(body);
  const before = reader.u32();
  return vector(before + count, concat([body.subarray(reader.at), bytes]));
}

const countIn = (body: Uint8Array): number => new Reader(body).u32();

/** The module, metered, without its custom sections. Throws where it has an instruction that is not known. */
export function meter(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  const sections = sectionsOf(bytes).filter(({ id }) => id !== 0);
  const bodyOf = (id: number): Uint8Array | undefined => sections.find((section) => section.id === id)?.body;
  const functionImports = importsOf(bodyOf(IMPORTS));
  const fuel = countIn(bodyOf(GLOBALS)!);
  const functions = functionImports + countIn(bodyOf(FUNCTIONS)!);
  const type = countIn(bodyOf(TYPES)!);
  const helpers = new Map([
    [MEMORY_COPY, functions],
    [MEMORY_FILL, functions + 1],
  ]);
  const exported = new TextEncoder().encode("fuel");
  const rewritten: Readonly<Record<number, (body: Uint8Array) => Uint8Array>> = {
    [TYPES]: (body) => appended(body, 1, [0x60, 3, I32, I32, I32, 0]),
    [FUNCTIONS]: (body) => appended(body, 2, [...u32(type), ...u32(type)]),
    [GLOBALS]: (body) => appended(body, 1, [I32, MUTABLE, CONST, 0, END]),
    [EXPORTS]: (body) => appended(body, 1, [...u32(exported.length), ...exported, GLOBAL_KIND, ...u32(fuel)]),
    [CODE]: (body) => meteredCode(body, fuel, helpers, functionImports),
  };
  return moduleOf(
    bytes,
    sections.map(({ id, body }) => ({ id, body: rewritten[id]?.(body) ?? body })),
  );
}

/** The functions that a function calls by number; null where it has a loop, which is charged anyway. */
function calleesOf(body: Uint8Array): ReadonlySet<number> | null {
  const reader = codeOf(body);
  const callees = new Set<number>();
  while (reader.at < body.length) {
    const start = reader.at;
    const { opcode } = nextInstruction(reader);
    if (opcode === LOOP) return null;
    if (opcode === CALL) callees.add(new Reader(body, start + 1).u32());
  }
  return callees;
}

/** Functions that can come back to themselves without meeting one that has a loop; and those that call them. By their number. */
function recursiveAmong(bodies: readonly Uint8Array[], first: number): ReadonlyMap<number, unknown> {
  const left = new Map<number, ReadonlySet<number>>();
  bodies.forEach((body, place) => {
    const callees = calleesOf(body);
    if (callees !== null) left.set(first + place, callees);
  });
  // Whoever calls nobody that is left cannot come back.
  for (let before = -1; before !== left.size;) {
    before = left.size;
    for (const [number, callees] of left) if (![...callees].some((callee) => left.has(callee))) left.delete(number);
  }
  return left;
}

function meteredCode(body: Uint8Array, fuel: number, helpers: Helpers, first: number): Uint8Array {
  const reader = new Reader(body);
  const bodies: Uint8Array[] = [];
  for (let left = reader.u32(); left > 0; left--) bodies.push(reader.take(reader.u32()));
  const recursive = recursiveAmong(bodies, first);
  const metered: Bytes[] = bodies.map((each, place) => meteredBody(each, fuel, helpers, recursive.has(first + place)));
  metered.push(bulkBody(fuel, [PREFIX, MEMORY_COPY, 0, 0]), bulkBody(fuel, [PREFIX, MEMORY_FILL, 0]));
  return vector(metered.length, concat(metered.flatMap((each): Bytes[] => [u32(each.length), each])));
}
