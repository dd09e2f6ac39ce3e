/** Rows, which are what storage is billed by. */
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { REGISTRY_AGE_MS_MAX } from "../shared/limits.ts";

/** A goal's entry with its index: made once, changed at its end. */
const ENTRY_ROWS = 2 + 3;

/** What a goal's reports cost in the directory, at most: it counts no rows itself. */
export const directoryRows = (doneMs: number): number => ENTRY_ROWS + Math.ceil(doneMs / REGISTRY_AGE_MS_MAX);

function rowsOf(path: string): number {
  const database = new DatabaseSync(path, { readOnly: true });
  try {
    const tables = database.prepare("SELECT name FROM sqlite_master WHERE type = 'table'").all();
    const count = (name: unknown): number => Number(database.prepare(`SELECT count(*) AS n FROM "${String(name)}"`).get()!["n"]);
    return tables.reduce((sum, { name }) => sum + count(name), 0);
  } finally {
    database.close();
  }
}

/** Rows in all databases below a folder of objects. */
export function countRows(folder: string): number {
  const files = readdirSync(folder, { recursive: true, encoding: "utf8" });
  return files.filter((file) => file.endsWith(".sqlite")).reduce((sum, file) => sum + rowsOf(join(folder, file)), 0);
}
