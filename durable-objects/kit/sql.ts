/**
 * Guards that make local storage obey production. Local workerd accepts rows
 * that the platform refuses, so every value passes here before it is written.
 */
import { assert } from "../../shared/assert.ts";
import { CHUNK_BYTES_MAX, PLATFORM_ROW_BYTES_MAX } from "../../shared/limits.ts";

/** Runs one statement. Throws when a row would be larger than the platform takes. */
export function exec(sql: SqlStorage, statement: string, ...values: SqlStorageValue[]): SqlStorageCursor<Record<string, SqlStorageValue>> {
  let bytes = 0;
  for (const value of values) {
    if (typeof value === "string") bytes += value.length * (value.length > PLATFORM_ROW_BYTES_MAX / 3 ? utf8Factor(value) : 1);
    else if (value instanceof ArrayBuffer) bytes += value.byteLength;
  }
  assert(bytes <= PLATFORM_ROW_BYTES_MAX, () => `a row of ${bytes} bytes is more than the platform takes`);
  return sql.exec(statement, ...values);
}

/** Bytes a character in UTF-8, measured; only long text is worth the look. */
function utf8Factor(text: string): number {
  return new TextEncoder().encode(text).byteLength / text.length;
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
  const bytes = new Uint8Array(chunks.reduce((sum, chunk) => sum + chunk.byteLength, 0));
  let at = 0;
  for (const chunk of chunks) {
    bytes.set(new Uint8Array(chunk), at);
    at += chunk.byteLength;
  }
  return bytes;
}
