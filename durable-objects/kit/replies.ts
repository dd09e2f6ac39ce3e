/**
 * Request-level idempotency: the reply to a request is stored in the same
 * commit as its effect, under the request's key. Written by the object that
 * took the effect, never deleted before the object is.
 */
import type { Failure } from "../../shared/errors.ts";
import { failure } from "../../shared/errors.ts";
import { err, ok, type Result } from "../../shared/result.ts";
import type { IdempotencyKey } from "../../shared/rpc.ts";
import { chunksOf, exec, joined } from "./sql.ts";

export const REPLIES_TABLE = `CREATE TABLE replies(
  key TEXT NOT NULL, part INTEGER NOT NULL, fingerprint TEXT NOT NULL, body BLOB NOT NULL,
  PRIMARY KEY (key, part)) WITHOUT ROWID`;

/** The stored reply, null for a new key, or a failure where the key belongs to another request. */
export function storedReply(sql: SqlStorage, idempotency: IdempotencyKey): Result<string | null, Failure> {
  const rows = sql.exec("SELECT fingerprint, body FROM replies WHERE key = ? ORDER BY part", idempotency.key).toArray();
  if (rows.length === 0) return ok(null);
  if (rows[0]!["fingerprint"] !== idempotency.fingerprint) {
    return err(failure("idempotency_key_reused", "this Idempotency-Key was used for a different request; use a new key"));
  }
  return ok(new TextDecoder().decode(joined(rows.map((row) => row["body"] as ArrayBuffer))));
}

/** Call it inside the transaction of the effect. Returns the rows written. */
export function storeReply(sql: SqlStorage, idempotency: IdempotencyKey, body: string): number {
  const chunks = chunksOf(new TextEncoder().encode(body));
  chunks.forEach((chunk, part) => {
    exec(
      sql,
      "INSERT INTO replies(key, part, fingerprint, body) VALUES (?, ?, ?, ?)",
      idempotency.key,
      part,
      idempotency.fingerprint,
      chunk,
    );
  });
  return chunks.length;
}
