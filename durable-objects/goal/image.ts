/** A snapshot as bytes: the length of the JSON, the JSON, then the columns one after another. */
import { COLUMN_NAMES } from "./core/columns.ts";
import { fromSnapshot, type SnapshotMeta, toSnapshot } from "./core/snapshot.ts";
import type { GoalState } from "./core/state.ts";

const HEAD_BYTES = 4;

export function encodeSnapshot(state: GoalState): Uint8Array {
  const { meta, columns } = toSnapshot(state);
  const json = new TextEncoder().encode(JSON.stringify(meta));
  const columnBytes = COLUMN_NAMES.reduce((sum, name) => sum + columns[name].byteLength, 0);
  const bytes = new Uint8Array(HEAD_BYTES + json.byteLength + columnBytes);
  new DataView(bytes.buffer).setUint32(0, json.byteLength);
  bytes.set(json, HEAD_BYTES);
  let at = HEAD_BYTES + json.byteLength;
  for (const name of COLUMN_NAMES) {
    const { buffer, byteOffset, byteLength } = columns[name];
    bytes.set(new Uint8Array(buffer, byteOffset, byteLength), at);
    at += byteLength;
  }
  return bytes;
}

export function decodeSnapshot(bytes: Uint8Array): GoalState {
  const jsonBytes = new DataView(bytes.buffer, bytes.byteOffset).getUint32(0);
  const meta = JSON.parse(new TextDecoder().decode(bytes.subarray(HEAD_BYTES, HEAD_BYTES + jsonBytes))) as SnapshotMeta;
  let at = HEAD_BYTES + jsonBytes;
  return fromSnapshot(meta, (_name, byteLength) => {
    const column = bytes.slice(at, at + byteLength);
    at += byteLength;
    return column.buffer;
  });
}
