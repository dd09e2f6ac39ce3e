/** The functions of one isolate: their images, bounded in bytes, and their invocations. */
import { FUNCTION_STRIKE_CPU_MS_MIN, FUNCTION_STRIKE_MS, FUNCTION_STRIKE_SHARE, SANDBOX_IMAGES_BYTES_MAX } from "../../../shared/limits.ts";
import type { StoredImage } from "../../../shared/rpc-functions.ts";
import { failed } from "../endings.ts";
import type { Invocation } from "../types.ts";
import type { Ended } from "../../../shared/protocol/function.ts";
import { ENGINE_ID } from "./engine-id.ts";
import { Instances, Shelf } from "./instances.ts";
import { lengthOf } from "./extents.ts";
import { type Manifest, unpacked } from "./manifest.ts";

interface Version {
  readonly shelf: Shelf;
  readonly imageBytes: number;
  /** How often in a row it overran its time, and when it last did. */
  strikes: number;
  struckAtMs: number;
  /** The most that an invocation took which ended by itself. */
  longestCpuMs: number;
}

const NOT_BEGUN = failed("canceled", "the attempt was ended before the function began");

export class Sandbox {
  /** The least recently used first. */
  readonly #versions = new Map<string, Version>();
  readonly #instances = new Instances();
  #imageBytes = 0;

  has(version: string): boolean {
    return this.#versions.has(version);
  }

  /** Bytes of instances and images, and how many instances there are, in use or not. */
  get size(): { readonly instances: number; readonly instanceBytes: number; readonly imageBytes: number } {
    return { instances: this.#instances.count, instanceBytes: this.#instances.bytes, imageBytes: this.#imageBytes };
  }

  /** Takes an image in. Throws for one of another engine, whose addresses mean nothing here. */
  async load(version: string, stored: StoredImage): Promise<void> {
    if (stored.engineId !== ENGINE_ID) {
      throw new Error(
        `the image was made by the engine ${stored.engineId} and cannot be restored by ${ENGINE_ID}; build it anew from its bundle`,
      );
    }
    if (this.has(version)) return;
    const manifest = JSON.parse(stored.manifest) as Manifest;
    const bytes = await unpacked(stored.bytes);
    if (bytes.length !== lengthOf(manifest.extents)) throw new Error("the image is not whole");
    if (this.has(version)) return;
    const shelf = new Shelf({ manifest, bytes });
    this.#versions.set(version, { shelf, imageBytes: bytes.length, strikes: 0, struckAtMs: 0, longestCpuMs: 0 });
    this.#imageBytes += bytes.length;
    this.#evict(version);
  }

  /** Makes instances for so many invocations at once, as far as there is room; others may run between two of them. */
  async warm(version: string, count: number): Promise<void> {
    for (;;) {
      const known = this.#versions.get(version);
      if (known === undefined || known.shelf.count >= count || !this.#instances.prepare(known.shelf)) return;
      await new Promise((resolve) => setTimeout(resolve, 0));
    }
  }

  /** Runs the version's handler once. Never rejects but for a version that was not loaded. */
  async invoke(name: string, invocation: Invocation): Promise<Ended> {
    const version = this.#versions.get(name);
    if (version === undefined) throw new Error(`the version ${name} is not loaded`);
    this.#versions.delete(name);
    this.#versions.set(name, version);
    const { shelf } = version;
    const taken = this.#instances.take(shelf, invocation.timeoutMs, invocation.cutoff);
    const instance = taken instanceof Promise ? await taken : taken;
    if (instance === null) return NOT_BEGUN;
    invocation.begun?.();
    const cpuMs = cpuMsOf(version, invocation.limits.cpuMs);
    const ended = await instance.invoke(invocation, cpuMs, () => this.#instances.grew(shelf, instance));
    const isOverrun = ended.isOverrun === true;
    version.strikes = isOverrun ? version.strikes + 1 : 0;
    if (isOverrun) version.struckAtMs = Date.now();
    else version.longestCpuMs = Math.max(version.longestCpuMs, ended.cpuMs);
    // Whoever waits for the answer hears of it before the instance is restored, which takes a while.
    // A promise costs less than `queueMicrotask`, which is the platform's.
    void Promise.resolve()
      .then(() => undefined)
      .then(() => this.#instances.giveBack(shelf, instance, instance.isSound && !isOverrun));
    return ended;
  }

  #evict(kept: string): void {
    for (const [name, { shelf, imageBytes }] of this.#versions) {
      if (this.#imageBytes <= SANDBOX_IMAGES_BYTES_MAX) return;
      if (name === kept || !shelf.isIdle) continue;
      this.#versions.delete(name);
      this.#imageBytes -= imageBytes;
      this.#instances.clear(shelf);
    }
  }
}

/** Whoever overran just before gets less, so that it cannot take the processor from its neighbours again and again; but twice of what was ever enough. */
function cpuMsOf({ strikes, struckAtMs, longestCpuMs }: Version, cpuMs: number): number {
  if (strikes === 0 || Date.now() - struckAtMs > FUNCTION_STRIKE_MS) return cpuMs;
  const least = Math.max(FUNCTION_STRIKE_CPU_MS_MIN, 2 * longestCpuMs);
  return Math.min(cpuMs, Math.max(least, cpuMs * FUNCTION_STRIKE_SHARE ** strikes));
}
