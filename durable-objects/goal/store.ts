/**
 * The goal's tables: loads the state, and makes a turn's commit in one
 * transaction. Nothing is written before the goal is created, so asking for a
 * goal that does not exist leaves no trace.
 */
import { assert } from "../../shared/assert.ts";
import { REPLAY_BYTES_MAX } from "../../shared/limits.ts";
import type { IdempotencyKey } from "../../shared/rpc.ts";
import { isEmpty, migrate } from "../kit/migrate.ts";
import { storeReply } from "../kit/replies.ts";
import { chunksOf, exec, joined } from "../kit/sql.ts";
import { apply } from "./core/apply.ts";
import type { Change } from "./core/change.ts";
import { type GoalState, newState } from "./core/state.ts";
import { decodeSnapshot, encodeSnapshot } from "./image.ts";
import { LARGE_MARK, type LineKeeper, rowsOf } from "./lines.ts";
import { CallCache, entryOf, type OfferFormat, parseOffer } from "./offers.ts";
import { MIGRATIONS } from "./schema.ts";

export interface NewOffer {
  readonly offer: number;
  readonly format: OfferFormat;
  readonly body: Uint8Array;
  readonly specs: readonly unknown[];
}

/** Everything that one turn makes durable. */
export interface Commit {
  readonly changes: readonly Change[];
  readonly lines: LineKeeper;
  readonly offers: readonly NewOffer[];
  readonly replies: readonly { readonly idempotency: IdempotencyKey; readonly body: string }[];
  /** Values of the shared state by key; null deletes. */
  readonly values: readonly (readonly [key: string, value: string | null])[];
}

export class GoalStore {
  readonly #storage: DurableObjectStorage;
  readonly #sql: SqlStorage;
  /** What sending needs of the inputs. */
  readonly calls: CallCache;
  #nextRow = 1;
  #isPrepared = false;
  /** Bytes that a wake would have to read again. */
  #replayBytes = 0;
  /** Rows written to this object so far, alarms included. */
  rowsWritten = 0;

  constructor(storage: DurableObjectStorage) {
    this.#storage = storage;
    this.#sql = storage.sql;
    this.calls = new CallCache((offer) => {
      const { specs, bytes } = this.#readOffer(offer);
      return entryOf(specs, bytes);
    });
  }

  get nextRow(): number {
    return this.#nextRow;
  }

  get sql(): SqlStorage {
    return this.#sql;
  }

  /** Whether there is something to load. */
  get isEmpty(): boolean {
    return !this.#isPrepared && isEmpty(this.#sql);
  }

  /** The state as of the last commit. Reads the snapshot and the journal after it. */
  load(): GoalState {
    if (this.isEmpty) return newState();
    this.#prepare();
    const parts = this.#sql.exec<{ seq: number; body: ArrayBuffer }>("SELECT seq, body FROM snapshots ORDER BY part").toArray();
    const state = parts.length === 0 ? newState() : decodeSnapshot(joined(parts.map(({ body }) => body)));
    const snapshotRow = parts[0]?.seq ?? 0;
    this.#nextRow = snapshotRow + 1;
    let text = "";
    const rows = this.#sql.exec<{ seq: number; more: number; changes: string; written: number }>(
      "SELECT seq, more, changes, written FROM log WHERE seq >= ? ORDER BY seq",
      snapshotRow,
    );
    for (const { seq, more, changes, written } of rows) {
      this.#nextRow = seq + 1;
      this.rowsWritten = written;
      if (seq === snapshotRow) continue;
      text += changes;
      if (more === 1) continue;
      this.#replayBytes += text.length;
      if (text !== "") for (const change of JSON.parse(text) as Change[]) this.#replay(state, change);
      text = "";
    }
    assert(text === "", "the journal must not break off");
    return state;
  }

  #replay(state: GoalState, change: Change): void {
    apply(state, change, (offer) => {
      const { specs, bytes } = this.#readOffer(offer);
      this.#replayBytes += bytes;
      this.calls.put(offer, entryOf(specs, bytes));
      return specs;
    });
  }

  /** Writes all of a turn, or throws and writes nothing. */
  commit(commit: Commit): void {
    this.#prepare();
    this.#storage.transactionSync(() => {
      for (const offer of commit.offers) this.#writeOffer(offer);
      for (const { idempotency, body } of commit.replies) this.rowsWritten += storeReply(this.#sql, idempotency, body);
      for (const [key, value] of commit.values) this.#writeValue(key, value);
      for (const { row, index, line } of commit.lines.large) {
        chunksOf(new TextEncoder().encode(line)).forEach((chunk, part) => {
          this.#write("INSERT INTO payloads(seq, place, part, body) VALUES (?, ?, ?, ?)", row, index, part, chunk);
        });
      }
      this.#writeLog(commit);
    });
  }

  #writeValue(key: string, value: string | null): void {
    if (value === null) this.#write("DELETE FROM shared WHERE key = ?", key);
    else this.#write("INSERT INTO shared(key, value) VALUES (?, ?) ON CONFLICT(key) DO UPDATE SET value = excluded.value", key, value);
  }

  /** A value of the shared state, as JSON. */
  value(key: string): string {
    const found = this.#sql.exec<{ value: string }>("SELECT value FROM shared WHERE key = ?", key).toArray()[0];
    assert(found !== undefined, () => `the value of "${key}" must be there`);
    return found.value;
  }

  #writeLog({ changes, lines }: Commit): void {
    if (changes.length === 0) return;
    const text = JSON.stringify(changes);
    const rows = rowsOf(text, lines.rows);
    for (const [i, { piece, results }] of rows.entries()) {
      const more = i < rows.length - 1 ? 1 : 0;
      const written = this.rowsWritten + 1;
      this.#write(
        "INSERT INTO log(seq, more, changes, results, written) VALUES (?, ?, ?, ?, ?)",
        this.#nextRow++,
        more,
        piece,
        results,
        written,
      );
    }
    this.#replayBytes += text.length;
  }

  #writeOffer({ offer, format, body, specs }: NewOffer): void {
    chunksOf(body).forEach((chunk, part) => {
      this.#write("INSERT INTO offers(offer, part, format, body) VALUES (?, ?, ?, ?)", offer, part, format, chunk);
    });
    this.#replayBytes += body.byteLength;
    this.calls.put(offer, entryOf(specs, body.byteLength));
  }

  /** Writes a snapshot where a wake would otherwise read too much. Only between turns. */
  compact(state: GoalState): void {
    if (this.#replayBytes < REPLAY_BYTES_MAX) return;
    const bytes = encodeSnapshot(state);
    const seq = this.#nextRow - 1;
    this.#storage.transactionSync(() => {
      this.#write("DELETE FROM snapshots");
      chunksOf(bytes).forEach((chunk, part) => {
        this.#write("INSERT INTO snapshots(part, seq, bytes, body) VALUES (?, ?, ?, ?)", part, seq, bytes.byteLength, chunk);
      });
      this.#write("DELETE FROM log WHERE seq < ? AND results = ''", seq);
    });
    this.#replayBytes = 0;
  }

  /** The lines of a log row; a large one is given by its mark. */
  lines(row: number): readonly string[] {
    const found = this.#sql.exec<{ results: string }>("SELECT results FROM log WHERE seq = ?", row).toArray()[0];
    assert(found !== undefined, () => `the results of row ${row} must be there`);
    return found.results.split("\n");
  }

  /** One line, whatever its size. */
  whole(line: string, row: number, index: number): string {
    if (!line.startsWith(LARGE_MARK)) return line;
    const parts = this.#sql
      .exec<{ body: ArrayBuffer }>("SELECT body FROM payloads WHERE seq = ? AND place = ? ORDER BY part", row, index)
      .toArray();
    assert(parts.length > 0, () => `the payload ${row}/${index} must be there`);
    return new TextDecoder().decode(joined(parts.map(({ body }) => body)));
  }

  /** The tasks of an offer as they were submitted. */
  specs(offer: number): readonly unknown[] {
    return this.#readOffer(offer).specs;
  }

  #readOffer(offer: number): { specs: readonly unknown[]; bytes: number } {
    const parts = this.#sql
      .exec<{ format: OfferFormat; body: ArrayBuffer }>("SELECT format, body FROM offers WHERE offer = ? ORDER BY part", offer)
      .toArray();
    assert(parts.length > 0, () => `the offer ${offer} must be there`);
    const body = joined(parts.map((part) => part.body));
    const specs = parseOffer(body, parts[0]!.format);
    assert(specs.ok, () => `the offer ${offer} must parse as it did before`);
    return { specs: specs.value, bytes: body.byteLength };
  }

  #prepare(): void {
    if (this.#isPrepared) return;
    this.rowsWritten += migrate(this.#storage, MIGRATIONS);
    this.#isPrepared = true;
  }

  #write(statement: string, ...values: SqlStorageValue[]): void {
    this.rowsWritten += exec(this.#sql, statement, ...values).rowsWritten;
  }
}
