/**
 * The instances of one isolate, bounded in bytes: those in use by what they
 * have grown to, or by what runs of their version usually grow to, so that few
 * of the large run at once. Whoever finds no room waits in line, first come,
 * first served within a version; of versions that wait the one that has least
 * is next. What is in use is a lease that ends: a request that the platform
 * has canceled gives nothing back, and never says so.
 */
import {
  FUNCTION_MEMORY_BYTES_DEFAULT,
  SANDBOX_GROWN_BYTES_MAX,
  SANDBOX_HANDOVER_MS,
  SANDBOX_INSTANCES_BYTES_MAX,
  SANDBOX_INSTANCES_MAX,
  SANDBOX_LEASE_GRACE_MS,
} from "../../../shared/limits.ts";
import type { Cutoff } from "../../kit/cutoff.ts";
import { inTurn, insert, type Line } from "../turn.ts";
import { type Image, Instance, instanceBytesOf } from "./instance.ts";

interface Lease {
  /** By then it is back, or it never comes. */
  untilMs: number;
  bytes: number;
}

interface Waiter {
  /** Counts those who waited. */
  readonly number: number;
  readonly resolve: (instance: Instance | null) => void;
}

/** A run of a version that grew less brings what is set aside for the next by this share nearer to that. */
const FALL_SHARE = 1 / 16;

/** Instances of one image. */
export class Shelf {
  readonly image: Image;
  /** Of an instance that is not in use. */
  readonly bytes: number;
  readonly free: Instance[] = [];
  readonly busy = new Map<Instance, Lease>();
  readonly line: Waiter[] = [];
  busyBytes = 0;
  /** What its runs grow to. */
  #usualBytes: number;
  /** What its limit lets it allocate beyond what any version may. */
  readonly #extraBytes: number;

  constructor(image: Image) {
    this.image = image;
    this.bytes = instanceBytesOf(image.manifest);
    this.#usualBytes = this.bytes;
    this.#extraBytes = Math.max(0, image.manifest.memoryBytes - FUNCTION_MEMORY_BYTES_DEFAULT);
  }

  get count(): number {
    return this.free.length + this.busy.size;
  }

  get isIdle(): boolean {
    return this.busy.size === 0 && this.line.length === 0;
  }

  /** What is set aside for a run. */
  get leaseBytes(): number {
    return Math.max(this.bytes + this.#extraBytes, this.#usualBytes);
  }

  /** What a run has grown to. */
  saw(bytes: number): void {
    this.#usualBytes = Math.max(bytes, Math.floor(this.#usualBytes - (this.#usualBytes - bytes) * FALL_SHARE));
  }
}

export class Instances {
  /** The least recently used first. */
  readonly #shelves = new Set<Shelf>();
  #busyBytes = 0;
  #freeBytes = 0;
  #waiting = 0;
  #waited = 0;
  /** No lease ends before. */
  #endsAtMs = Infinity;

  get bytes(): number {
    return this.#busyBytes + this.#freeBytes;
  }

  get count(): number {
    return [...this.#shelves].reduce((sum, { count }) => sum + count, 0);
  }

  /** One more to be had without waiting; false where there is no room. */
  prepare(shelf: Shelf): boolean {
    if (shelf.count >= SANDBOX_INSTANCES_MAX || this.#busyBytes + shelf.bytes * (shelf.free.length + 1) > SANDBOX_INSTANCES_BYTES_MAX) {
      return false;
    }
    this.#shelves.add(shelf);
    shelf.free.push(new Instance(shelf.image));
    this.#freeBytes += shelf.bytes;
    this.#fit(SANDBOX_INSTANCES_BYTES_MAX, shelf);
    return true;
  }

  /** A clean instance, for at most so long. Null for whoever goes away while it waits. */
  take(shelf: Shelf, leaseMs: number, cutoff: Cutoff): Instance | null | Promise<Instance | null> {
    if (cutoff.isOver) return null;
    this.#shelves.delete(shelf);
    this.#shelves.add(shelf);
    if (this.#waiting === 0 && this.#hasRoom(shelf)) return this.#lend(shelf, leaseMs + SANDBOX_LEASE_GRACE_MS);
    return inTurn(this.lineOf(shelf, leaseMs), cutoff);
  }

  /** The end of the line for an instance, for at most so long. */
  lineOf(shelf: Shelf, leaseMs: number): Line<Instance> {
    const number = ++this.#waited;
    return {
      enter: (resolve) => {
        const waiter = { number, resolve };
        insert(shelf.line, waiter);
        this.#waiting++;
        this.#serve();
        return () => this.#leave(shelf, waiter);
      },
      keep: (instance) => {
        const lease = shelf.busy.get(instance);
        if (lease !== undefined) lease.untilMs = Date.now() + leaseMs + SANDBOX_LEASE_GRACE_MS;
        return lease !== undefined;
      },
      look: () => this.#serve(),
    };
  }

  /** Counts what an instance in use has grown to. False: there is no room for it, and it has to end. */
  grew(shelf: Shelf, instance: Instance): boolean {
    const lease = shelf.busy.get(instance);
    if (lease === undefined) return true;
    shelf.saw(instance.bytes);
    const more = Math.max(0, instance.bytes - lease.bytes);
    lease.bytes += more;
    shelf.busyBytes += more;
    this.#busyBytes += more;
    const isAlone = this.#busyBytes === lease.bytes;
    return this.#fit(SANDBOX_GROWN_BYTES_MAX, null) || isAlone;
  }

  /** Takes an instance back: restored where it can be used again, thrown away where not. */
  giveBack(shelf: Shelf, instance: Instance, isReusable: boolean): void {
    // It came too late and was given up.
    if (!this.#end(shelf, instance)) return;
    shelf.saw(instance.bytes);
    if (isReusable) {
      instance.restore();
      shelf.free.push(instance);
      this.#freeBytes += shelf.bytes;
      this.#fit(SANDBOX_INSTANCES_BYTES_MAX, shelf);
    }
    this.#serve();
  }

  /** Throws away what an idle shelf has. */
  clear(shelf: Shelf): void {
    this.#freeBytes -= shelf.bytes * shelf.free.length;
    shelf.free.length = 0;
    this.#shelves.delete(shelf);
  }

  #leave(shelf: Shelf, waiter: Waiter): void {
    const at = shelf.line.indexOf(waiter);
    if (at < 0) return;
    shelf.line.splice(at, 1);
    this.#waiting--;
    waiter.resolve(null);
    // Others may have been held up for it.
    this.#serve();
  }

  /** Gives what there is to those who wait. A request that has ended does not take what it is given, so that is a short lease first. */
  #serve(): void {
    while (this.#waiting > 0) {
      const shelf = this.#next();
      if (shelf === null) return;
      const instance = this.#lend(shelf, SANDBOX_HANDOVER_MS);
      this.#waiting--;
      shelf.line.shift()!.resolve(instance);
    }
  }

  /** Of the versions that wait, the one that has least and for which there is room. While one waits for its share, others take nothing beyond theirs. */
  #next(): Shelf | null {
    const waiting = [...this.#shelves].filter(({ line }) => line.length > 0);
    // Mostly one version runs, and this is asked for each of its runs.
    if (waiting.length === 1) return this.#hasRoom(waiting[0]!) ? waiting[0]! : null;
    const inOrder = waiting.toSorted((a, b) => a.busyBytes - b.busyBytes || a.line[0]!.number - b.line[0]!.number);
    const share = this.#shares();
    let isOwed = false;
    for (const shelf of inOrder) {
      const isWithin = shelf.busy.size === 0 || shelf.busyBytes + shelf.leaseBytes <= share(shelf);
      if (isOwed && !isWithin) continue;
      if (this.#hasRoom(shelf)) return shelf;
      isOwed ||= isWithin && shelf.busy.size < SANDBOX_INSTANCES_MAX;
    }
    return null;
  }

  /** Equal shares of the bytes for all versions that run or wait; one run where that is more. */
  #shares(): (shelf: Shelf) => number {
    const active = [...this.#shelves].filter(({ isIdle }) => !isIdle);
    const equal = SANDBOX_INSTANCES_BYTES_MAX / active.length;
    const large = active.filter(({ leaseBytes }) => leaseBytes > equal);
    const left = large.reduce((sum, { leaseBytes }) => sum - leaseBytes, SANDBOX_INSTANCES_BYTES_MAX);
    const rest = left / Math.max(1, active.length - large.length);
    return ({ leaseBytes }) => (leaseBytes > equal ? leaseBytes : rest);
  }

  #hasRoom(shelf: Shelf): boolean {
    if (this.#fits(shelf)) return true;
    this.#giveUp();
    return this.#fits(shelf);
  }

  /** One alone always fits, or it could wait for ever. */
  #fits(shelf: Shelf): boolean {
    const isInTime = this.#busyBytes + shelf.leaseBytes <= SANDBOX_INSTANCES_BYTES_MAX || this.#busyBytes === 0;
    return isInTime && shelf.busy.size < SANDBOX_INSTANCES_MAX;
  }

  #lend(shelf: Shelf, ms: number): Instance {
    const known = shelf.free.pop();
    if (known !== undefined) this.#freeBytes -= shelf.bytes;
    const instance = known ?? new Instance(shelf.image);
    const lease = { untilMs: Date.now() + ms, bytes: shelf.leaseBytes };
    shelf.busy.set(instance, lease);
    shelf.busyBytes += lease.bytes;
    this.#busyBytes += lease.bytes;
    this.#endsAtMs = Math.min(this.#endsAtMs, lease.untilMs);
    this.#fit(SANDBOX_INSTANCES_BYTES_MAX, shelf);
    return instance;
  }

  /** False for one that was given up. */
  #end(shelf: Shelf, instance: Instance): boolean {
    const lease = shelf.busy.get(instance);
    if (lease === undefined) return false;
    shelf.busy.delete(instance);
    shelf.busyBytes -= lease.bytes;
    this.#busyBytes -= lease.bytes;
    return true;
  }

  /** Throws away instances that nobody uses until all fit into so many bytes, those of the version that was used least lately first and of this one last. */
  #fit(bytesMax: number, kept: Shelf | null): boolean {
    if (this.bytes <= bytesMax) return true;
    const others = [...this.#shelves].filter((shelf) => shelf !== kept);
    for (const shelf of kept === null ? others : [...others, kept]) {
      while (this.bytes > bytesMax && shelf.free.pop() !== undefined) this.#freeBytes -= shelf.bytes;
    }
    return this.bytes <= bytesMax;
  }

  /** Gives up what should be back. */
  #giveUp(): void {
    const nowMs = Date.now();
    if (nowMs < this.#endsAtMs) return;
    this.#endsAtMs = Infinity;
    for (const shelf of this.#shelves) {
      for (const [instance, { untilMs }] of shelf.busy) {
        if (untilMs <= nowMs) this.#end(shelf, instance);
        else this.#endsAtMs = Math.min(this.#endsAtMs, untilMs);
      }
    }
  }
}
