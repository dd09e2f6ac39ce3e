/** Sparse images: what is left out is zeros, and what comes back is the memory that was. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { extentsOf, extractedFrom, lengthOf, partsOf, spread } from "../../workers/sandbox/snapshot/extents.ts";

const MEMORY_BYTES = 65_536;
const START = 8_192;

/** Memory with a few stretches that are not zero. */
const memories = fc
  .array(fc.record({ at: fc.nat(MEMORY_BYTES - 1), bytes: fc.uint8Array({ minLength: 1, maxLength: 5_000 }) }), { maxLength: 6 })
  .map((stretches) => {
    const memory = new Uint8Array(MEMORY_BYTES);
    for (const { at, bytes } of stretches) memory.set(bytes.subarray(0, MEMORY_BYTES - at), at);
    return memory;
  });

test("an image that is spread into used memory makes it what it was, and leaves what is before its start", () => {
  fc.assert(
    fc.property(memories, (memory) => {
      const extents = extentsOf(memory, START);
      const bytes = extractedFrom(memory, extents);
      expect(bytes.length).toBe(lengthOf(extents));
      const used = new Uint8Array(MEMORY_BYTES).fill(0xaa);
      spread(used, START, partsOf(bytes, extents));
      expect(Buffer.compare(used.subarray(START), memory.subarray(START))).toBe(0);
      expect(used.subarray(0, START).every((byte) => byte === 0xaa)).toBe(true);
    }),
  );
});

test("zeros as many as a page are left out, and fewer are not worth a call of their own", () => {
  const memory = new Uint8Array(MEMORY_BYTES);
  for (const at of [START + 8, START + 1_000, START + 10_000, MEMORY_BYTES - 1]) memory[at] = 1;
  expect(extentsOf(memory, START)).toEqual([
    [START, 1_008],
    [START + 10_000, 8],
    [MEMORY_BYTES - 8, 8],
  ]);
  expect(extentsOf(new Uint8Array(MEMORY_BYTES), START)).toEqual([]);
});
