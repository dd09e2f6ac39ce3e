/**
 * Guards that make local storage obey production. Local workerd accepts rows
 * that the platform refuses, so every value passes here before it is written.
 */
import { assert } from "../../shared/assert.ts";
import { concatBytes } from "../../shared/bytes.ts";
import { CHUNK_BYTES_MAX, PLATFORM_ROW_BYTES_MAX } from "../../shared/limits.ts";

/** Runs one statement. Throws when a row would be larger than the platform takes. */
export function exec(sql: SqlStorage, statement: string, ...values: SqlStorageValue[]): SqlStorageCursor<Record<string, SqlStorageValue>> {
  // A character takes at most three bytes; only a row that could be too large is worth measuring.
  if (bytesOf(values, (text) => text.length * 3) > PLATFORM_ROW_BYTES_MAX) {
    const bytes = bytesOf(values, (text) => new TextEncoder().encode(text).byteLength);
    assert(bytes <= PLATFORM_ROW_BYTES_MAX, () => `a row of ${bytes} bytes is more than the platform takes`);
  }
  return sql.exec(statement, ...values);
}

function bytesOf(values: readonly SqlStorageValue[], sizeOf: (text: string) => number): number {
  let bytes = 0;
  for (const value of values) {
    if (typeof value === "string") bytes += sizeOf(value);
    else if (value instanceof ArrayBuffer) bytes += value.byteLength;
  }
  return bytes;
}

/** Cuts bytes into rows' worth. No bytes give one empty chunk, so that a reader finds something. */
export function chunksOf(bytes: Uint8Array): ArrayBuffer[] {
  const chunks: ArrayBuffer[] = [];
  for (let at = 0; at === 0 || at < bytes.byteLength; at += CHUNK_BYTES_MAX) {
    chunks.push(bytes.slice(at, at + CHUNK_BYTES_MAX).buffer);
  }
  return chunks;
}

/** The inverse of `chunksOf`. */
export function joined(chunks: readonly ArrayBuffer[]): Uint8Array {
  return concatBytes(chunks.map((chunk) => new Uint8Array(chunk)));
}
