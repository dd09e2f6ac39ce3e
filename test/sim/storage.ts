/**
 * A disk: journal rows, offers, result rows, replies, one snapshot and one
 * alarm, all as text and bytes, so that nothing on it shares anything with
 * memory. It keeps what was committed, and nothing else.
 */
import { apply } from "../../durable-objects/goal/core/apply.ts";
import type { Change } from "../../durable-objects/goal/core/change.ts";
import { COLUMN_NAMES, type ColumnName } from "../../durable-objects/goal/core/columns.ts";
import { fromSnapshot, type SnapshotMeta, toSnapshot } from "../../durable-objects/goal/core/snapshot.ts";
import { type GoalState, newState } from "../../durable-objects/goal/core/state.ts";

export interface Transaction {
  readonly changes: readonly Change[];
  readonly offers: readonly (readonly [number, readonly unknown[]])[];
  readonly row: number;
  readonly lines: readonly string[];
  readonly replies: readonly (readonly [string, string])[];
}

interface Snapshot {
  readonly meta: string;
  readonly columns: ReadonlyMap<ColumnName, Uint8Array<ArrayBuffer>>;
}

export const NEVER = Number.MAX_SAFE_INTEGER;

export class Disk {
  alarmAtMs = NEVER;
  readonly offers = new Map<number, string>();
  readonly rows = new Map<number, readonly string[]>();
  readonly replies = new Map<string, string>();
  #journal: string[] = [];
  #snapshot: Snapshot | null = null;
  #nextRow = 1;

  get nextRow(): number {
    return this.#nextRow;
  }

  get journalRows(): number {
    return this.#journal.length;
  }

  commit({ changes, offers, row, lines, replies }: Transaction): void {
    this.#journal.push(JSON.stringify(changes));
    for (const [offer, specs] of offers) this.offers.set(offer, JSON.stringify(specs));
    if (lines.length > 0) this.rows.set(row, lines);
    for (const [key, body] of replies) this.replies.set(key, body);
    this.#nextRow = row + 1;
  }

  /** Writes a snapshot and deletes the journal that it covers. */
  compact(state: GoalState): void {
    const { meta, columns } = toSnapshot(state);
    const copies = COLUMN_NAMES.map((name) => [name, new Uint8Array(columns[name].slice().buffer)] as const);
    this.#snapshot = { meta: JSON.stringify(meta), columns: new Map(copies) };
    this.#journal = [];
  }

  /** What a new incarnation has. */
  load(): GoalState {
    const snapshot = this.#snapshot;
    const bytesOf = (name: ColumnName): ArrayBuffer => snapshot!.columns.get(name)!.slice().buffer;
    const state = snapshot === null ? newState() : fromSnapshot(JSON.parse(snapshot.meta) as SnapshotMeta, bytesOf);
    const readOffer = (offer: number): readonly unknown[] => JSON.parse(this.offers.get(offer)!) as unknown[];
    for (const row of this.#journal) for (const change of JSON.parse(row) as Change[]) apply(state, change, readOffer);
    return state;
  }
}
