/**
 * An image is sparse: of the memory behind its start it has only what is not
 * zero, as a sparse file has extents, which for a small function is half.
 * Restoring it writes the zeros, and has to read none.
 */
import { concatBytes } from "../../../shared/bytes.ts";

/** Where bytes that are not zero begin in memory, and how many. */
export type Extent = readonly [at: number, bytes: number];

/** Zeros that are fewer belong to the extent, because each takes a call. */
const GAP_BYTES = 4_096;

/** Where the memory behind `start` is not zero, in order. `start` and all of it are multiples of eight bytes. */
export function extentsOf(memory: Uint8Array<ArrayBuffer>, start: number): Extent[] {
  const words = new BigUint64Array(memory.buffer);
  const found: Extent[] = [];
  let [from, end] = [start, start];
  for (let word = start / 8; word < words.length; word++) {
    if (words[word] === 0n) continue;
    const at = word * 8;
    if (at - end >= GAP_BYTES) {
      if (end > from) found.push([from, end - from]);
      from = at;
    }
    end = at + 8;
  }
  if (end > from) found.push([from, end - from]);
  return found;
}

/** The bytes of all extents, one after the other. */
export const extractedFrom = (memory: Uint8Array, extents: readonly Extent[]): Uint8Array =>
  concatBytes(extents.map(([at, bytes]) => memory.subarray(at, at + bytes)));

/** Where each extent goes, with its bytes. */
export type Part = readonly [at: number, bytes: Uint8Array];

export function partsOf(bytes: Uint8Array, extents: readonly Extent[]): Part[] {
  let from = 0;
  return extents.map(([at, length]) => [at, bytes.subarray(from, (from += length))]);
}

/** Makes the memory behind `start` what it was, whatever is in it. */
export function spread(memory: Uint8Array, start: number, parts: readonly Part[]): void {
  let end = start;
  for (const [at, bytes] of parts) {
    memory.fill(0, end, at);
    end = at + bytes.length;
  }
  memory.fill(0, end);
  for (const [at, bytes] of parts) memory.set(bytes, at);
}

export const lengthOf = (extents: readonly Extent[]): number => extents.reduce((sum, [, bytes]) => sum + bytes, 0);
