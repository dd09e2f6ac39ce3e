/**
 * The goal's shared state: small values under keys, for whoever works on the
 * goal. Here are the versions; the values are on disk only, written in the same
 * commit. A version is a number of the goal's own that only rises, so a key
 * that was deleted and made again never has an old one.
 */
import { type Failure, failure } from "../../../shared/errors.ts";
import { STATE_BYTES_MAX, STATE_KEYS_MAX } from "../../../shared/limits.ts";
import { isCurrent } from "../../../shared/policy/lock-table.ts";
import { err, ok, type Result } from "../../../shared/result.ts";
import type { Recorder } from "./recorder.ts";
import type { GoalState } from "./state.ts";

interface Entry {
  readonly version: number;
  readonly bytes: number;
}

export interface SharedState {
  readonly entries: Map<string, Entry>;
  /** Of all values. */
  bytes: number;
  /** The latest version that was given. */
  version: number;
}

export type SharedStateChange =
  | { readonly kind: "state.put"; readonly key: string; readonly version: number; readonly bytes: number }
  | { readonly kind: "state.deleted"; readonly key: string };

/** Under which circumstances a write is made. */
export interface Guard {
  /** The version that the key must have; 0: it must not exist. Null: any. */
  readonly ifVersion: number | null;
  /** A lock of the goal, or of the tenant, that must still be held under this fence. */
  readonly lock: { readonly name: string; readonly fence: number; readonly scope: "goal" | "tenant" } | null;
}

/** `value` is JSON; null deletes the key. */
export interface WriteState extends Guard {
  readonly kind: "write-state";
  readonly key: string;
  readonly value: string | null;
  /** Of the value in UTF-8. */
  readonly bytes: number;
}

export const newSharedState = (): SharedState => ({ entries: new Map(), bytes: 0, version: 0 });

export function applySharedState({ shared }: GoalState, change: SharedStateChange): void {
  shared.bytes -= shared.entries.get(change.key)?.bytes ?? 0;
  if (change.kind === "state.deleted") {
    shared.entries.delete(change.key);
    return;
  }
  const { key, version, bytes } = change;
  shared.entries.set(key, { version, bytes });
  shared.bytes += bytes;
  shared.version = version;
}

/** Writes or deletes one value; answers with its version. */
export function writeState(rec: Recorder, command: WriteState): Result<number, Failure> {
  const { state, out } = rec;
  const { shared } = state;
  const { key, value, bytes } = command;
  const entry = shared.entries.get(key);
  const fault = guardFault(rec, command) ?? (value === null ? missingFault(entry, key) : roomFault(shared, entry, bytes));
  if (fault !== null) return err(fault);
  const version = shared.version + 1;
  const change: SharedStateChange = value === null ? { kind: "state.deleted", key } : { kind: "state.put", key, version, bytes };
  applySharedState(state, change);
  out.changes.push(change);
  out.values.push([key, value]);
  return ok(version);
}

function guardFault({ state, nowMs }: Recorder, { key, ifVersion, lock }: WriteState): Failure | null {
  if (lock !== null && !isHeld(state, lock, nowMs)) {
    const detail = `the fence ${lock.fence} is not that of a present holder of the lock "${lock.name}", so nothing was written`;
    return failure("stale_fence", detail);
  }
  const version = state.shared.entries.get(key)?.version ?? 0;
  if (ifVersion === null || ifVersion === version) return null;
  const isNow = version === 0 ? "does not exist" : `has version ${version}`;
  return failure("stale_version", `"${key}" ${isNow}, and the write was for version ${ifVersion}; read it again`);
}

function isHeld({ locks }: GoalState, { name, fence, scope }: NonNullable<Guard["lock"]>, nowMs: number): boolean {
  if (scope === "goal") return isCurrent(locks.table, name, fence, nowMs);
  for (const holds of locks.tenant.claims.values()) {
    for (const hold of holds) if (hold.name === name && hold.fence === fence) return hold.untilMs > nowMs;
  }
  return false;
}

const missingFault = (entry: Entry | undefined, key: string): Failure | null =>
  entry === undefined ? failure("not_found", `there is no value under "${key}"`) : null;

function roomFault({ entries, bytes }: SharedState, entry: Entry | undefined, more: number): Failure | null {
  if (entry === undefined && entries.size >= STATE_KEYS_MAX) {
    return failure("quota_exceeded", `a goal's shared state has at most ${STATE_KEYS_MAX} keys; delete some`);
  }
  if (bytes - (entry?.bytes ?? 0) + more <= STATE_BYTES_MAX) return null;
  return failure("quota_exceeded", `a goal's shared state has at most ${STATE_BYTES_MAX} bytes in all; delete some`);
}

/** Key, version and bytes of each value, and the latest version. */
export interface SharedStateImage {
  readonly entries: readonly (readonly [string, number, number])[];
  readonly version: number;
}

export function imageOfSharedState({ entries, version }: SharedState): SharedStateImage {
  return { entries: [...entries].map(([key, entry]) => [key, entry.version, entry.bytes] as const), version };
}

export function sharedStateFrom(image: SharedStateImage): SharedState {
  const shared: SharedState = { ...newSharedState(), version: image.version };
  for (const [key, version, bytes] of image.entries) {
    shared.entries.set(key, { version, bytes });
    shared.bytes += bytes;
  }
  return shared;
}
