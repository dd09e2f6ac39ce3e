/**
 * The tenant's tables, as an append-only list of migrations. Written and read
 * by `store.ts` only. Nothing here holds a task or a payload.
 */
import { REPLIES_TABLE } from "../kit/replies.ts";

export const MIGRATIONS: readonly string[] = [
  // Written by PUT and DELETE of an upstream; read once an incarnation, then served from memory.
  `CREATE TABLE upstreams(name TEXT PRIMARY KEY, spec TEXT NOT NULL) WITHOUT ROWID`,
  // One row. Goals compare the number to know whether their copy of the registry is old.
  `CREATE TABLE registry(id INTEGER PRIMARY KEY CHECK (id = 0), version INTEGER NOT NULL)`,
  // Written by a goal's reports, deleted when the goal is. Ids sort by creation, so the key is the order of lists.
  `CREATE TABLE goals(
    goal_id TEXT PRIMARY KEY, name TEXT NOT NULL, labels TEXT NOT NULL, status TEXT NOT NULL,
    created_at_ms INTEGER NOT NULL, deadline_at_ms INTEGER, ended_at_ms INTEGER,
    sealed INTEGER NOT NULL, counts TEXT NOT NULL) WITHOUT ROWID;
  CREATE INDEX goals_by_status ON goals(status, goal_id)`,
  // Written by the first goal creation of an idempotency key; the stored reply is the goal's id.
  REPLIES_TABLE,
  // One row. Written when tokens are revoked and when the policy changes.
  `CREATE TABLE rights(id INTEGER PRIMARY KEY CHECK (id = 0), epoch INTEGER NOT NULL, policy TEXT)`,
  // budget: one row, the limit as it was put and the sum of what closed goals have spent. grants: totals by goal, written
  // before the goal hears of them, deleted when it is closed. closed: its last spending is in the budget's.
  `CREATE TABLE budget(id INTEGER PRIMARY KEY CHECK (id = 0), limits TEXT NOT NULL, spent TEXT NOT NULL);
  CREATE TABLE grants(goal_id TEXT PRIMARY KEY, totals TEXT NOT NULL) WITHOUT ROWID;
  ALTER TABLE goals ADD COLUMN closed INTEGER NOT NULL DEFAULT 0`,
  // Written by PUT and DELETE of a function; read once an incarnation. The row has its newest version.
  `CREATE TABLE functions(name TEXT PRIMARY KEY, spec TEXT NOT NULL) WITHOUT ROWID`,
];
