/**
 * The snapshots and instances of one isolate, each bounded in bytes. Whoever
 * needs an instance and finds none waits in line; what is given back is
 * restored after its answer has gone, so the next one finds it clean.
 */
import {
  FUNCTION_STRIKE_CPU_MS_MIN,
  FUNCTION_STRIKE_MS,
  FUNCTION_STRIKE_SHARE,
  SANDBOX_IMAGES_BYTES_MAX,
  SANDBOX_INSTANCES_BYTES_MAX,
  SANDBOX_INSTANCES_MAX,
} from "../../../shared/limits.ts";
import type { StoredImage } from "../../../shared/rpc-functions.ts";
import type { Ended, Invocation } from "../types.ts";
import { ENGINE_ID } from "./engine-id.ts";
import { type Image, Instance } from "./instance.ts";
import { type Manifest, unpacked } from "./manifest.ts";

interface Version {
  readonly name: string;
  readonly image: Image;
  readonly free: Instance[];
  /** Instances, in use or free. */
  count: number;
  /** How often in a row it overran its time, and when it last did. */
  strikes: number;
  struckAtMs: number;
  /** The most that an invocation took which ended by itself. */
  longestCpuMs: number;
}

interface Waiter {
  readonly version: Version;
  readonly resolve: (instance: Instance) => void;
}

export class Sandbox {
  /** The least recently used first. */
  readonly #versions = new Map<string, Version>();
  readonly #line: Waiter[] = [];
  #instanceBytes = 0;
  #imageBytes = 0;

  has(version: string): boolean {
    return this.#versions.has(version);
  }

  /** Bytes of instances and images, and how many instances there are. */
  get size(): { readonly instances: number; readonly instanceBytes: number; readonly imageBytes: number } {
    const instances = [...this.#versions.values()].reduce((sum, { count }) => sum + count, 0);
    return { instances, instanceBytes: this.#instanceBytes, imageBytes: this.#imageBytes };
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
    if (bytes.length !== manifest.bytes) throw new Error("the image is not whole");
    if (this.has(version)) return;
    this.#versions.set(version, {
      name: version,
      image: { manifest, bytes },
      free: [],
      count: 0,
      strikes: 0,
      struckAtMs: 0,
      longestCpuMs: 0,
    });
    this.#imageBytes += bytes.length;
    this.#evict(version);
  }

  /** Fills the pool with instances for so many invocations at once, as far as there is room. */
  warm(version: string, count: number): void {
    const known = this.#versions.get(version);
    if (known === undefined) return;
    for (let more = count - known.count; more > 0; more--) {
      const instance = this.#make(known);
      if (instance === null) return;
      known.free.push(instance);
    }
  }

  /** Runs the version's handler once. Never rejects but for a version that was not loaded. */
  async invoke(name: string, invocation: Invocation): Promise<Ended> {
    const version = this.#versions.get(name);
    if (version === undefined) throw new Error(`the version ${name} is not loaded`);
    this.#versions.delete(name);
    this.#versions.set(name, version);
    const instance = await this.#take(version, invocation.signal);
    if (instance === null)
      return { outcome: "failed", code: "canceled", detail: "the attempt was ended before the function began", cpuMs: 0 };
    invocation.begun?.();
    const ended = await instance.invoke(invocation, this.#cpuMs(version, invocation.limits.cpuMs));
    const isOverrun = ended.outcome === "failed" && ended.isOverrun === true;
    version.strikes = isOverrun ? version.strikes + 1 : 0;
    if (isOverrun) version.struckAtMs = Date.now();
    else version.longestCpuMs = Math.max(version.longestCpuMs, ended.cpuMs);
    // The answer goes first.
    queueMicrotask(() => this.#giveBack(version, instance, isOverrun));
    return ended;
  }

  /** Whoever overran just before gets less, so that it cannot take the processor from its neighbours again and again; but twice of what was ever enough. */
  #cpuMs({ strikes, struckAtMs, longestCpuMs }: Version, cpuMs: number): number {
    if (strikes === 0 || Date.now() - struckAtMs > FUNCTION_STRIKE_MS) return cpuMs;
    const least = Math.max(FUNCTION_STRIKE_CPU_MS_MIN, 2 * longestCpuMs);
    return Math.min(cpuMs, Math.max(least, cpuMs * FUNCTION_STRIKE_SHARE ** strikes));
  }

  /** Null for whoever went away while it waited. */
  async #take(version: Version, signal: AbortSignal): Promise<Instance | null> {
    const isFirst = !this.#line.some((waiter) => waiter.version === version);
    const instance = isFirst ? (version.free.pop() ?? this.#make(version)) : null;
    return instance ?? this.#wait(version, signal);
  }

  #wait(version: Version, signal: AbortSignal): Promise<Instance | null> {
    return new Promise((resolve) => {
      const leave = (): void => {
        this.#line.splice(this.#line.indexOf(waiter), 1);
        resolve(null);
      };
      const waiter: Waiter = {
        version,
        resolve(instance) {
          signal.removeEventListener("abort", leave);
          resolve(instance);
        },
      };
      if (signal.aborted) return resolve(null);
      this.#line.push(waiter);
      signal.addEventListener("abort", leave, { once: true });
    });
  }

  #make(version: Version): Instance | null {
    if (version.count >= SANDBOX_INSTANCES_MAX) return null;
    const bytes = version.image.manifest.pages * 65_536;
    while (this.#instanceBytes + bytes > SANDBOX_INSTANCES_BYTES_MAX) if (!this.#drop(version)) break;
    // One instance is always to be had, or a version could wait for ever.
    if (this.#instanceBytes + bytes > SANDBOX_INSTANCES_BYTES_MAX && version.count > 0) return null;
    version.count++;
    this.#instanceBytes += bytes;
    return new Instance(version.image);
  }

  /** Throws away a free instance of the version that was used least lately, other than this one. */
  #drop(other: Version): boolean {
    for (const version of this.#versions.values()) {
      if (version === other || version.free.length === 0) continue;
      version.free.pop();
      this.#forget(version);
      return true;
    }
    return false;
  }

  #forget(version: Version): void {
    version.count--;
    this.#instanceBytes -= version.image.manifest.pages * 65_536;
  }

  #giveBack(version: Version, used: Instance, isOverrun: boolean): void {
    if (used.isSound && !isOverrun && this.#versions.get(version.name) === version) {
      used.restore();
      version.free.push(used);
    } else this.#forget(version);
    this.#serve();
  }

  /** Gives what is free, and the room that there is, to those who wait, the longest first. Whoever cannot be served holds up nobody of another version. */
  #serve(): void {
    const unserved = new Set<Version>();
    for (const waiter of [...this.#line]) {
      const { version } = waiter;
      if (unserved.has(version)) continue;
      const instance = version.free.pop() ?? this.#make(version);
      if (instance === null) {
        unserved.add(version);
        continue;
      }
      this.#line.splice(this.#line.indexOf(waiter), 1);
      waiter.resolve(instance);
    }
  }

  #evict(kept: string): void {
    for (const [name, version] of this.#versions) {
      if (this.#imageBytes <= SANDBOX_IMAGES_BYTES_MAX) return;
      if (name === kept || version.count > version.free.length) continue;
      this.#versions.delete(name);
      this.#imageBytes -= version.image.bytes.length;
      while (version.free.pop() !== undefined) this.#forget(version);
    }
  }
}
