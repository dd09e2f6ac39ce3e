/**
 * The tables of one goal. Append only: a step, once released, never changes.
 * A payload's address (row and index) is stable until the goal is deleted.
 */
import { REPLIES_TABLE } from "../kit/replies.ts";

export const MIGRATIONS: readonly string[] = [
  // log: one row a commit; more rows where one would be too large. Written by every turn. A snapshot deletes the
  // rows before it that hold no results. `more`: the changes go on in the next row. `written`: rows written so far.
  // results: lines, one an index; a line that begins with '#' has its payload in `payloads`.
  `CREATE TABLE log(seq INTEGER PRIMARY KEY, more INTEGER NOT NULL, changes TEXT NOT NULL, results TEXT NOT NULL, written INTEGER NOT NULL);
  -- offers: request bodies as they came. Written by submit and create, read by dispatch and replay.
  CREATE TABLE offers(offer INTEGER NOT NULL, part INTEGER NOT NULL, format TEXT NOT NULL, body BLOB NOT NULL, PRIMARY KEY (offer, part)) WITHOUT ROWID;
  -- payloads: result lines too large to share a row. Written with the commit of their row.
  CREATE TABLE payloads(seq INTEGER NOT NULL, place INTEGER NOT NULL, part INTEGER NOT NULL, body BLOB NOT NULL, PRIMARY KEY (seq, place, part)) WITHOUT ROWID;
  -- snapshots: the state after the commit \`seq\`. Written now and then, the one before it deleted.
  CREATE TABLE snapshots(part INTEGER PRIMARY KEY, seq INTEGER NOT NULL, bytes INTEGER NOT NULL, body BLOB NOT NULL);
  ${REPLIES_TABLE}`,
  // shared: values of the goal's shared state, as JSON. Written with the commit that says their versions.
  `CREATE TABLE shared(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID`,
];
