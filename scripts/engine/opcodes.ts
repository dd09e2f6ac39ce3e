/** How long each instruction is. One that is not known here is an error: a module that cannot be read whole cannot be metered whole. */
import type { Reader } from "./binary.ts";

export const LOOP = 0x03;
export const PREFIX = 0xfc;
export const MEMORY_COPY = 10;
export const MEMORY_FILL = 11;

type Skip = (reader: Reader) => void;

const NONE: Skip = () => undefined;
const ONE: Skip = (reader) => reader.skipInteger();
const TWO: Skip = (reader) => {
  reader.skipInteger();
  reader.skipInteger();
};
const TABLE: Skip = (reader) => {
  for (let left = reader.u32() + 1; left > 0; left--) reader.skipInteger();
};
const TYPES: Skip = (reader) => reader.skip(reader.u32());

/** What follows an opcode, by opcode. */
const IMMEDIATES = new Map<number, Skip>();
const set = (from: number, to: number, skip: Skip): void => {
  for (let opcode = from; opcode <= to; opcode++) IMMEDIATES.set(opcode, skip);
};
set(0x00, 0x01, NONE); // unreachable, nop
set(0x02, 0x04, ONE); // block, loop, if
set(0x05, 0x05, NONE); // else
set(0x0b, 0x0b, NONE); // end
set(0x0c, 0x0d, ONE); // br, br_if
set(0x0e, 0x0e, TABLE); // br_table
set(0x0f, 0x0f, NONE); // return
set(0x10, 0x10, ONE); // call
set(0x11, 0x11, TWO); // call_indirect
set(0x1a, 0x1b, NONE); // drop, select
set(0x1c, 0x1c, TYPES); // select with types
set(0x20, 0x26, ONE); // locals, globals, tables
set(0x28, 0x3e, TWO); // loads and stores
set(0x3f, 0x42, ONE); // memory.size, memory.grow, i32.const, i64.const
set(0x43, 0x43, (reader) => reader.skip(4)); // f32.const
set(0x44, 0x44, (reader) => reader.skip(8)); // f64.const
set(0x45, 0xc4, NONE); // numbers
set(0xd0, 0xd0, ONE); // ref.null
set(0xd1, 0xd1, NONE); // ref.is_null
set(0xd2, 0xd2, ONE); // ref.func

/** Integers after the second opcode of those that begin with 0xfc. */
const AFTER_PREFIX = [0, 0, 0, 0, 0, 0, 0, 0, 2, 1, 2, 1, 2, 1, 2, 1, 1, 1];

/** Reads past the instruction at the reader. Answers with its opcode; after the prefix, with the second one. */
export function nextInstruction(reader: Reader): { readonly opcode: number; readonly second: number } {
  const opcode = reader.byte();
  if (opcode === PREFIX) {
    const second = reader.u32();
    const integers = AFTER_PREFIX[second];
    if (integers === undefined) throw new Error(`the instruction 0xfc ${second} is not known`);
    for (let i = 0; i < integers; i++) reader.skipInteger();
    return { opcode, second };
  }
  const skip = IMMEDIATES.get(opcode);
  if (skip === undefined) throw new Error(`the instruction 0x${opcode.toString(16)} is not known`);
  skip(reader);
  return { opcode, second: 0 };
}
