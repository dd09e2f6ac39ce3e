/**
 * The object of one version of a function: its bundle, and the image that the
 * present engine made of it. It looks now and then whether the registry still
 * has the version, and deletes itself some time after it has not, so that runs
 * that have begun can end, and nobody has to remember to delete it.
 */
import { DurableObject } from "cloudflare:workers";
import { retryable } from "cloudflare:durable-objects";
import { IMAGE_CHECK_MS, IMAGE_KEPT_MS } from "../../shared/limits.ts";
import type { FunctionRegistryRpc, ImageRpc, StoredImage } from "../../shared/rpc-functions.ts";
import { isEmpty, migrate } from "../kit/migrate.ts";
import { chunksOf, exec, joined } from "../kit/sql.ts";
import { MIGRATIONS } from "./schema.ts";

type Slices = "bundle" | "manifest" | "image";

const TENANT_NAME = "default";

export class Image extends DurableObject<Env> implements ImageRpc {
  readonly #sql: SqlStorage;
  /** Counts bundles that were put: one that comes while the registry is asked is not deleted. */
  #puts = 0;

  static {
    retryable(this.prototype.putBundle, this.prototype.bundle, this.prototype.putImage, this.prototype.image, this.prototype.remove);
  }

  constructor(ctx: DurableObjectState, env: Env) {
    super(ctx, env);
    this.#sql = ctx.storage.sql;
  }

  async putBundle(version: string, bundle: string): Promise<void> {
    this.#puts++;
    migrate(this.ctx.storage, MIGRATIONS);
    this.ctx.storage.transactionSync(() => {
      this.#write("bundle", new TextEncoder().encode(bundle));
      const upsert = "INSERT INTO about(id, version) VALUES (0, ?) ON CONFLICT(id) DO UPDATE SET unused_since = NULL";
      exec(this.#sql, upsert, version);
    });
    await this.ctx.storage.setAlarm(Date.now() + IMAGE_KEPT_MS);
  }

  async bundle(): Promise<string | null> {
    const bytes = this.#about() === null ? null : this.#read("bundle");
    return bytes === null ? null : new TextDecoder().decode(bytes);
  }

  async putImage({ engineId, manifest, bytes }: StoredImage): Promise<void> {
    // Without its bundle it could not outlive its engine.
    if (this.#about() === null) return;
    this.ctx.storage.transactionSync(() => {
      this.#write("manifest", new TextEncoder().encode(manifest));
      this.#write("image", bytes);
      exec(this.#sql, "UPDATE about SET engine = ?", engineId);
    });
  }

  async image(engineId: string): Promise<StoredImage | null> {
    if (this.#about()?.["engine"] !== engineId) return null;
    return { engineId, manifest: new TextDecoder().decode(this.#read("manifest")!), bytes: this.#read("image")! };
  }

  async remove(): Promise<void> {
    if (this.#about() !== null) await this.ctx.storage.setAlarm(Date.now());
  }

  /** Unused when it is seen first, and still when it is seen again: then nothing needs it any more. */
  override async alarm(): Promise<void> {
    const about = this.#about();
    if (about === null) return;
    const { version, unused_since: unusedSince } = about;
    const puts = this.#puts;
    const tenant = this.env.TENANT.get(this.env.TENANT.idFromName(TENANT_NAME)) as Pick<FunctionRegistryRpc, "hasVersion">;
    const isUsed = await tenant.hasVersion(version as string);
    // A put has its own alarm.
    if (puts !== this.#puts) return;
    const nowMs = Date.now();
    if (!isUsed && unusedSince !== null && nowMs - (unusedSince as number) >= IMAGE_KEPT_MS) {
      await this.ctx.storage.deleteAlarm();
      return this.ctx.storage.deleteAll();
    }
    exec(this.#sql, "UPDATE about SET unused_since = ?", isUsed ? null : (unusedSince ?? nowMs));
    await this.ctx.storage.setAlarm(nowMs + (isUsed ? IMAGE_CHECK_MS : IMAGE_KEPT_MS));
  }

  #about(): Record<string, SqlStorageValue> | null {
    return isEmpty(this.#sql) ? null : (this.#sql.exec("SELECT version, engine, unused_since FROM about").toArray()[0] ?? null);
  }

  #write(of: Slices, bytes: Uint8Array): void {
    exec(this.#sql, "DELETE FROM slices WHERE of = ?", of);
    chunksOf(bytes).forEach((chunk, part) => exec(this.#sql, "INSERT INTO slices(of, part, bytes) VALUES (?, ?, ?)", of, part, chunk));
  }

  #read(of: Slices): Uint8Array | null {
    const rows = this.#sql.exec("SELECT bytes FROM slices WHERE of = ? ORDER BY part", of).toArray();
    return rows.length === 0 ? null : joined(rows.map((row) => row["bytes"] as ArrayBuffer));
  }
}
