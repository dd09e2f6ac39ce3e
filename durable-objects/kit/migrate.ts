/**
 * Schema migrations of a Durable Object: an append-only list, numbered by
 * place. A database that is newer than the code is refused, because an older
 * deployment would misread it.
 */
import { assert } from "../../shared/assert.ts";

const TABLE = "CREATE TABLE IF NOT EXISTS migrations(step INTEGER PRIMARY KEY)";

/** Whether the object has ever written anything. Reading this writes nothing. */
export function isEmpty(sql: SqlStorage): boolean {
  return sql.exec("SELECT 1 FROM sqlite_master WHERE name = 'migrations'").toArray().length === 0;
}

/** Brings the schema up to date. Costs one read where nothing is missing. Returns the rows written. */
export function migrate(storage: DurableObjectStorage, steps: readonly string[]): number {
  const sql = storage.sql;
  const applied = isEmpty(sql) ? 0 : (sql.exec("SELECT count(*) AS n FROM migrations").one()["n"] as number);
  assert(applied <= steps.length, `this database is at step ${applied}, and the code knows only ${steps.length}; deploy the newer code`);
  if (applied === steps.length) return 0;
  return storage.transactionSync(() => {
    let written = sql.exec(TABLE).rowsWritten;
    for (let step = applied; step < steps.length; step++) {
      written += sql.exec(steps[step]!).rowsWritten;
      written += sql.exec("INSERT INTO migrations(step) VALUES (?)", step).rowsWritten;
    }
    return written;
  });
}
