/** The tables of a shard of locks. Append only: a step, once released, never changes. */
export const MIGRATIONS: readonly string[] = [
  // log: one row a commit, with its changes. A snapshot deletes the rows before it.
  // snapshots: the table of locks after the commit `seq`, in parts. Written now and then, the one before it deleted.
  `CREATE TABLE log(seq INTEGER PRIMARY KEY, changes TEXT NOT NULL);
  CREATE TABLE snapshots(part INTEGER PRIMARY KEY, seq INTEGER NOT NULL, body BLOB NOT NULL)`,
];
