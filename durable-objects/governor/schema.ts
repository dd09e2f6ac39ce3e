/** The governor's table, as an append-only list of migrations. Written and read by `store.ts` only. */
export const MIGRATIONS: readonly string[] = [
  // One row: what a new incarnation must know. Written when the first permit goes out and when the last is back.
  `CREATE TABLE governor(id INTEGER PRIMARY KEY CHECK (id = 0), kept TEXT NOT NULL)`,
];
