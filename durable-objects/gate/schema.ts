/** The gate's table, as an append-only list of migrations. Written and read by `store.ts` only. */
export const MIGRATIONS: readonly string[] = [
  // One row a part of the answer to a call with an Idempotency-Key; while it runs, one row without an answer.
  // Written before the call is sent and after it has ended, deleted a day later by the alarm, in pages.
  `CREATE TABLE answers(
    key TEXT NOT NULL, part INTEGER NOT NULL, fingerprint TEXT NOT NULL, state TEXT NOT NULL, is_repeatable INTEGER NOT NULL,
    expires_at_ms INTEGER NOT NULL, status INTEGER NOT NULL, headers TEXT NOT NULL, body BLOB NOT NULL, PRIMARY KEY (key, part)) WITHOUT ROWID;
  CREATE INDEX answers_by_expiry ON answers(expires_at_ms)`,
];
