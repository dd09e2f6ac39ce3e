/** The tables of an image, as an append-only list of migrations. Written and read by `object.ts` only. */
export const MIGRATIONS: readonly string[] = [
  // What is large, in slices: the bundle, and the image that one engine made of it, with its manifest.
  `CREATE TABLE slices(of TEXT NOT NULL, part INTEGER NOT NULL, bytes BLOB NOT NULL, PRIMARY KEY (of, part)) WITHOUT ROWID`,
  // One row. `engine`: whose image is stored, null for none. `unused_since`: when the registry was first seen without the version.
  `CREATE TABLE about(id INTEGER PRIMARY KEY CHECK (id = 0), version TEXT NOT NULL, engine TEXT, unused_since INTEGER)`,
];
