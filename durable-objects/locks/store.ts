/** What a shard of locks keeps: a snapshot of its table, and the changes since. A shard that nobody asked anything of has no table. */
import { LOCK_REPLAY_BYTES_MAX } from "../../shared/limits.ts";
import { applyLock, type LockChange } from "../../shared/policy/lock-steps.ts";
import { imageOfLocks, type LockImage, locksFrom, type LockTable, newLockTable } from "../../shared/policy/lock-table.ts";
import { isEmpty, migrate } from "../kit/migrate.ts";
import { chunksOf, exec, joined } from "../kit/sql.ts";
import { MIGRATIONS } from "./schema.ts";

export class LockStore {
  readonly #storage: DurableObjectStorage;
  #nextSeq = 1;
  #isPrepared = false;
  /** Characters that a wake would have to read again, and those of the last snapshot. */
  #replay = 0;
  #snapshot = 0;

  constructor(storage: DurableObjectStorage) {
    this.#storage = storage;
  }

  load(): LockTable {
    const { sql } = this.#storage;
    if (isEmpty(sql)) return newLockTable();
    this.#prepare();
    const parts = sql.exec<{ seq: number; body: ArrayBuffer }>("SELECT seq, body FROM snapshots ORDER BY part").toArray();
    const image = new TextDecoder().decode(joined(parts.map(({ body }) => body)));
    const table = parts.length === 0 ? newLockTable() : locksFrom(JSON.parse(image) as LockImage);
    this.#snapshot = image.length;
    this.#nextSeq = (parts[0]?.seq ?? 0) + 1;
    for (const { seq, changes } of sql.exec<{ seq: number; changes: string }>("SELECT seq, changes FROM log ORDER BY seq")) {
      for (const change of JSON.parse(changes) as LockChange[]) applyLock(table, change);
      this.#nextSeq = seq + 1;
      this.#replay += changes.length;
    }
    return table;
  }

  /** One row, whatever was decided. */
  commit(changes: readonly LockChange[]): void {
    this.#prepare();
    const text = JSON.stringify(changes);
    exec(this.#storage.sql, "INSERT INTO log(seq, changes) VALUES (?, ?)", this.#nextSeq++, text);
    this.#replay += text.length;
  }

  /** Writes a snapshot where a wake would otherwise read too much. Only between turns. */
  compact(table: LockTable): void {
    if (this.#replay < Math.max(LOCK_REPLAY_BYTES_MAX, 2 * this.#snapshot)) return;
    const { sql } = this.#storage;
    const text = JSON.stringify(imageOfLocks(table));
    const seq = this.#nextSeq - 1;
    this.#storage.transactionSync(() => {
      exec(sql, "DELETE FROM snapshots");
      chunksOf(new TextEncoder().encode(text)).forEach((chunk, part) => {
        exec(sql, "INSERT INTO snapshots(part, seq, body) VALUES (?, ?, ?)", part, seq, chunk);
      });
      exec(sql, "DELETE FROM log WHERE seq <= ?", seq);
    });
    this.#replay = 0;
    this.#snapshot = text.length;
  }

  #prepare(): void {
    if (this.#isPrepared) return;
    migrate(this.#storage, MIGRATIONS);
    this.#isPrepared = true;
  }
}
