/**
 * Images and bundles of functions, from where they are kept into this isolate:
 * its own memory, then the Cache API of the place, then the version's object.
 * An image of another engine, or one that is not whole, is replaced by the
 * next of these, and at last made anew from its bundle. Whoever asks for what
 * is being loaded waits for that, and what failed is tried again by the next
 * one that asks.
 */
import { waitUntil } from "cloudflare:workers";
import { concatBytes } from "../../shared/bytes.ts";
import { BUNDLES_BYTES_MAX, IMAGE_WAIT_MS } from "../../shared/limits.ts";
import type { FunctionVersion } from "../../shared/protocol/function.ts";
import type { ImageRpc, StoredImage } from "../../shared/rpc-functions.ts";
import { buildImage } from "./snapshot/build.ts";
import { ENGINE_ID } from "./snapshot/engine-id.ts";
import type { Sandbox } from "./snapshot/pool.ts";

type ImageEnv = Pick<Env, "IMAGE">;

/** No host of anybody: nothing but this reads or writes it. */
const CACHE_URL = `https://images.drover.invalid/${ENGINE_ID}/`;
const CACHE_CONTROL = "public, max-age=604800, immutable";
const LENGTH_BYTES = 4;

export function imageStub({ IMAGE }: ImageEnv, version: string): ImageRpc {
  return IMAGE.get(IMAGE.idFromName(version));
}

/** The length of the manifest, the manifest, the image. */
function packedFor(cache: StoredImage): Uint8Array {
  const manifest = new TextEncoder().encode(cache.manifest);
  const length = new Uint8Array(LENGTH_BYTES);
  new DataView(length.buffer).setUint32(0, manifest.byteLength);
  return concatBytes([length, manifest, cache.bytes]);
}

function unpackedFrom(buffer: ArrayBuffer): StoredImage {
  const end = LENGTH_BYTES + new DataView(buffer).getUint32(0);
  const manifest = new TextDecoder().decode(new Uint8Array(buffer, LENGTH_BYTES, end - LENGTH_BYTES));
  return { engineId: ENGINE_ID, manifest, bytes: new Uint8Array(buffer, end) };
}

/** What the cache of the place has. It may forget, and be absent: then nothing is lost but time. */
async function cached(version: string): Promise<StoredImage | null> {
  try {
    const answer = await caches.default.match(CACHE_URL + version);
    return answer === undefined ? null : unpackedFrom(await answer.arrayBuffer());
  } catch {
    return null;
  }
}

export function cacheImage(version: string, image: StoredImage): void {
  const answer = new Response(packedFor(image), { headers: { "cache-control": CACHE_CONTROL } });
  waitUntil(caches.default.put(CACHE_URL + version, answer).catch(() => undefined));
}

/** The image looks whether anybody needs it still. It would by itself, later. */
export function letGo(env: ImageEnv, version: string): void {
  waitUntil(
    imageStub(env, version)
      .remove()
      .catch(() => undefined),
  );
}

const missing = (name: string): Error => new Error(`the version of the function "${name}" is no longer there`);

async function rebuilt(image: ImageRpc, { name, limits }: FunctionVersion): Promise<StoredImage> {
  const bundle = await image.bundle();
  if (bundle === null) throw missing(name);
  const built = await buildImage(bundle, limits);
  if (!built.ok) throw new Error(`the image of the function "${name}" could not be made anew: ${built.error.detail}`);
  const { engineId, manifest, bytes } = built.value;
  const stored = { engineId, manifest, bytes };
  waitUntil(image.putImage(stored).catch((error: unknown) => console.warn(`the image of "${name}" was not stored: ${String(error)}`)));
  return stored;
}

/** What a character takes in memory at most. */
const CHAR_BYTES = 2;

export class Images {
  readonly #sandbox: Sandbox;
  readonly #loading = new Map<string, Promise<void>>();
  /** The least recently used first. */
  readonly #bundles = new Map<string, string>();
  #bundleBytes = 0;

  constructor(sandbox: Sandbox) {
    this.#sandbox = sandbox;
  }

  /** Sees to it that the sandbox has the version. */
  async load(env: ImageEnv, version: FunctionVersion): Promise<void> {
    while (!this.#sandbox.has(version.version)) await this.#once(version.version, () => this.#fill(env, version));
  }

  async bundle(env: ImageEnv, { name, version }: FunctionVersion): Promise<string> {
    while (!this.#bundles.has(version)) {
      await this.#once(version, async () => {
        const bundle = await imageStub(env, version).bundle();
        if (bundle === null) throw missing(name);
        this.#keep(version, bundle);
      });
    }
    const bundle = this.#bundles.get(version)!;
    this.#bundles.delete(version);
    this.#bundles.set(version, bundle);
    return bundle;
  }

  async #fill(env: ImageEnv, version: FunctionVersion): Promise<void> {
    const id = version.version;
    const near = await cached(id);
    if (near !== null && (await this.#takes(version, near))) return;
    const object = imageStub(env, id);
    const kept = await object.image(ENGINE_ID);
    const isWhole = kept !== null && (await this.#takes(version, kept));
    const image = isWhole ? kept : await rebuilt(object, version);
    if (!isWhole) await this.#sandbox.load(id, image);
    cacheImage(id, image);
  }

  /** False for an image that is not whole. */
  async #takes({ name, version }: FunctionVersion, image: StoredImage): Promise<boolean> {
    try {
      await this.#sandbox.load(version, image);
      return true;
    } catch (error) {
      console.warn(`an image of "${name}" cannot be used: ${String(error)}`);
      return false;
    }
  }

  #keep(version: string, bundle: string): void {
    this.#drop(version);
    this.#bundles.set(version, bundle);
    this.#bundleBytes += bundle.length * CHAR_BYTES;
    for (const oldest of this.#bundles.keys()) {
      if (this.#bundleBytes <= BUNDLES_BYTES_MAX || oldest === version) return;
      this.#drop(oldest);
    }
  }

  #drop(version: string): void {
    this.#bundleBytes -= (this.#bundles.get(version)?.length ?? 0) * CHAR_BYTES;
    this.#bundles.delete(version);
  }

  /** One at a time for each version. */
  async #once(version: string, load: () => Promise<void>): Promise<void> {
    const known = this.#loading.get(version);
    if (known !== undefined) return this.#waitFor(version, known);
    const loading = load().finally(() => this.#forget(version, loading));
    this.#loading.set(version, loading);
    waitUntil(loading.catch(() => undefined));
    return loading;
  }

  /** A request that has ended may leave its promise open for ever, so nobody waits for another's for long. */
  async #waitFor(version: string, loading: Promise<void>): Promise<void> {
    const patience = Promise.withResolvers<void>();
    const timer = setTimeout(() => {
      this.#forget(version, loading);
      patience.resolve();
    }, IMAGE_WAIT_MS);
    await Promise.race([loading, patience.promise]).finally(() => clearTimeout(timer));
  }

  /** By now somebody else may be loading it. */
  #forget(version: string, loading: Promise<void>): void {
    if (this.#loading.get(version) === loading) this.#loading.delete(version);
  }
}
