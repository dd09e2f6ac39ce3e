/** What a gate keeps: the answers to calls with an `Idempotency-Key`. A gate that never saw a key has no table. */
import { GATE_PAGE_ROWS } from "../../shared/limits.ts";
import type { WholeAnswer } from "../../shared/rpc-flight.ts";
import type { KeyedCall } from "../../shared/rpc.ts";
import { isEmpty, migrate } from "../kit/migrate.ts";
import { chunksOf, exec, joined } from "../kit/sql.ts";
import { MIGRATIONS } from "./schema.ts";

/**
 * `running`: sent, or about to be. `answered`: kept whole. `too_large`: it was
 * answered, and the answer is not kept. `unknown`: nobody knows whether it had
 * its effect.
 */
export type KeyState = "running" | "answered" | "too_large" | "unknown";

export interface KeptCall {
  readonly fingerprint: string;
  readonly state: KeyState;
  readonly isRepeatable: boolean;
  readonly expiresAtMs: number;
}

const NOTHING: WholeAnswer = { status: 0, headers: [], body: new Uint8Array() };

export class GateStore {
  readonly #storage: DurableObjectStorage;

  constructor(storage: DurableObjectStorage) {
    this.#storage = storage;
  }

  /** Null for a key that is free. */
  find(key: string): KeptCall | null {
    if (isEmpty(this.#storage.sql)) return null;
    const row = this.#storage.sql
      .exec("SELECT fingerprint, state, is_repeatable, expires_at_ms FROM answers WHERE key = ? AND part = 0", key)
      .toArray()[0];
    if (row === undefined) return null;
    return {
      fingerprint: row["fingerprint"] as string,
      state: row["state"] as KeyState,
      isRepeatable: row["is_repeatable"] === 1,
      expiresAtMs: row["expires_at_ms"] as number,
    };
  }

  /** The answer of a key that is `answered`. */
  answer(key: string): WholeAnswer {
    const rows = this.#storage.sql.exec("SELECT status, headers, body FROM answers WHERE key = ? ORDER BY part", key).toArray();
    const { status, headers } = rows[0]!;
    return {
      status: status as number,
      headers: JSON.parse(headers as string) as [string, string][],
      body: joined(rows.map((row) => row["body"] as ArrayBuffer)),
    };
  }

  /** Replaces what is known of the key. */
  put({ key, fingerprint, isRepeatable }: KeyedCall, state: KeyState, answer: WholeAnswer | null, expiresAtMs: number): void {
    const { sql } = this.#storage;
    migrate(this.#storage, MIGRATIONS);
    const { status, headers, body } = answer ?? NOTHING;
    this.#storage.transactionSync(() => {
      exec(sql, "DELETE FROM answers WHERE key = ?", key);
      chunksOf(body).forEach((chunk, part) => {
        const names = part === 0 ? JSON.stringify(headers) : "";
        const values = [key, part, fingerprint, state, isRepeatable ? 1 : 0, expiresAtMs, status, names, chunk];
        exec(sql, "INSERT INTO answers VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", ...values);
      });
    });
  }

  /** The key is free again. */
  remove(key: string): void {
    if (isEmpty(this.#storage.sql)) return;
    exec(this.#storage.sql, "DELETE FROM answers WHERE key = ?", key);
  }

  /** Deletes a page of what is too old. When to come again; null where nothing is left. */
  expire(nowMs: number): number | null {
    const { sql } = this.#storage;
    if (isEmpty(sql)) return null;
    const page = "SELECT key, part FROM answers WHERE expires_at_ms <= ? ORDER BY expires_at_ms LIMIT ?";
    exec(sql, `DELETE FROM answers WHERE (key, part) IN (${page})`, nowMs, GATE_PAGE_ROWS);
    return this.nextExpiry();
  }

  /** When the oldest answer is too old; null where there is none. */
  nextExpiry(): number | null {
    if (isEmpty(this.#storage.sql)) return null;
    return this.#storage.sql.exec("SELECT min(expires_at_ms) AS next FROM answers").one()["next"] as number | null;
  }
}
