/** The metered engine: made of the package by the script, and nothing in it outlasts its fuel. */
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { meter } from "../../scripts/engine/meter.ts";
import { ENGINE_ID } from "../../workers/sandbox/snapshot/engine-id.ts";
import { PRELUDE } from "../../workers/sandbox/snapshot/prelude.ts";

const read = (path: string): Uint8Array<ArrayBuffer> => new Uint8Array(readFileSync(path));

test("engine.wasm is what scripts/meter-engine.ts makes of quickjs-wasi", () => {
  const made = Buffer.from(meter(read("node_modules/quickjs-wasi/quickjs.wasm")));
  expect(made.equals(read("workers/sandbox/engine.wasm")), "run: node scripts/meter-engine.ts").toBe(true);
});

test("the engine's id is that of its code, its prelude and the format of images", () => {
  const hash = createHash("sha256").update(read("workers/sandbox/engine.wasm")).update(PRELUDE).digest("hex");
  expect(ENGINE_ID).toBe(`quickjs-ng-${hash.slice(0, 24)}-3`);
});

/** `(func (export "f") (param i32) (loop br 0))` and the like, by hand: a type, a function, a global, an export, code. */
function moduleWith(code: readonly number[]): Uint8Array<ArrayBuffer> {
  const body = [0, ...code, 0x0b];
  const sections = [
    [1, 5, 1, 0x60, 1, 0x7f, 0],
    [3, 2, 1, 0],
    [5, 3, 1, 0, 1],
    [6, 6, 1, 0x7f, 1, 0x41, 0, 0x0b],
    [7, 5, 1, 1, 0x66, 0, 0],
    [10, body.length + 2, 1, body.length, ...body],
  ];
  return new Uint8Array([0, 0x61, 0x73, 0x6d, 1, 0, 0, 0, ...sections.flat()]);
}

function run(code: readonly number[], fuel: number, argument: number): { readonly left: number; readonly trap: string } {
  const metered = meter(moduleWith(code));
  const { exports } = new WebAssembly.Instance(new WebAssembly.Module(metered));
  const global = exports["fuel"] as WebAssembly.Global;
  global.value = fuel;
  let trap = "";
  try {
    (exports["f"] as (argument: number) => void)(argument);
  } catch (error) {
    trap = String(error);
  }
  return { left: global.value as number, trap };
}

const ENDLESS_LOOP = [0x03, 0x40, 0x0c, 0, 0x0b];
const ENDLESS_RECURSION = [0x20, 0, 0x10, 0, 0x20, 0, 0x10, 0];
const FILL = [0x41, 0, 0x41, 7, 0x20, 0, 0xfc, 11, 0];

test("an endless loop traps when its fuel is used up", () => {
  expect(run(ENDLESS_LOOP, 1_000, 0)).toEqual({ left: -1, trap: "RuntimeError: unreachable" });
});

test("so does a recursion without any loop", () => {
  expect(run(ENDLESS_RECURSION, 1_000, 0)).toEqual({ left: -1, trap: "RuntimeError: unreachable" });
});

test("filling memory costs a unit for 64 bytes", () => {
  expect(run(FILL, 1_000, 64_000)).toEqual({ left: 0, trap: "" });
  expect(run(FILL, -1, 64)).toMatchObject({ trap: "RuntimeError: unreachable" });
});

test("a module with an instruction that the script does not know is refused", () => {
  expect(() => meter(moduleWith([0xfd, 12]))).toThrow("0xfd is not known");
});
