/** The governor's one row. */
import { isEmpty, migrate } from "../kit/migrate.ts";
import { exec } from "../kit/sql.ts";
import type { Kept } from "./core/state.ts";
import { MIGRATIONS } from "./schema.ts";

export class GovernorStore {
  readonly #storage: DurableObjectStorage;

  constructor(storage: DurableObjectStorage) {
    this.#storage = storage;
  }

  /** Null for a governor that never gave anything. */
  load(): Kept | null {
    if (isEmpty(this.#storage.sql)) return null;
    migrate(this.#storage, MIGRATIONS);
    const text = this.#storage.sql.exec("SELECT kept FROM governor").toArray()[0]?.["kept"];
    return text === undefined ? null : (JSON.parse(text as string) as Kept);
  }

  keep(kept: Kept): void {
    migrate(this.#storage, MIGRATIONS);
    const upsert = "INSERT INTO governor(id, kept) VALUES (0, ?) ON CONFLICT(id) DO UPDATE SET kept = excluded.kept";
    exec(this.#storage.sql, upsert, JSON.stringify(kept));
  }
}
