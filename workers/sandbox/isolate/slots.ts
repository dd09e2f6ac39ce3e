/**
 * Counts the distinct dynamic Workers in flight, of which the platform takes
 * 4 in a request of a Worker and 10 in a Durable Object; workerd on a laptop
 * takes any number. Invocations of the same Worker count as one. What goes
 * beyond waits, first come, first served: once somebody waits nobody passes,
 * so that a busy Worker cannot keep its place for ever. A place is a lease
 * that ends, because a request that the platform has canceled never leaves.
 */
import { assert } from "../../../shared/assert.ts";
import { SANDBOX_HANDOVER_MS, SANDBOX_LEASE_GRACE_MS } from "../../../shared/limits.ts";
import type { Cutoff } from "../../kit/cutoff.ts";
import { inTurn, insert, type Line } from "../turn.ts";

interface Waiter {
  readonly number: number;
  readonly id: string;
  readonly resolve: (place: Place | null) => void;
}

export interface Place {
  readonly id: string;
  /** By then it is left, or nobody is there to leave it. */
  untilMs: number;
}

export class Slots {
  readonly #max: number;
  readonly #open = new Map<string, Set<Place>>();
  readonly #waiting: Waiter[] = [];
  #waited = 0;

  constructor(max: number) {
    this.#max = max;
  }

  /** Distinct Workers in flight. */
  get inFlight(): number {
    return this.#open.size;
  }

  /** Takes a place for an invocation of `id`, for at most so long. Null for whoever goes away while it waits. */
  enter(id: string, leaseMs: number, cutoff: Cutoff): Place | null | Promise<Place | null> {
    if (cutoff.isOver) return null;
    const isFirst = this.#waiting.length === 0;
    if (isFirst && this.#hasRoom(id)) return this.#take(id, leaseMs + SANDBOX_LEASE_GRACE_MS);
    const number = ++this.#waited;
    const line: Line<Place> = {
      enter: (resolve) => {
        const waiter = { number, id, resolve };
        insert(this.#waiting, waiter);
        this.#admit();
        return () => this.#give(waiter);
      },
      keep: (place) => {
        place.untilMs = Date.now() + leaseMs + SANDBOX_LEASE_GRACE_MS;
        return this.#open.get(id)?.has(place) === true;
      },
      look: () => this.#admit(),
    };
    return inTurn(line, cutoff);
  }

  leave(place: Place): void {
    // It came too late and was given up.
    if (this.#end(place)) this.#admit();
  }

  #give(waiter: Waiter): void {
    const at = this.#waiting.indexOf(waiter);
    if (at < 0) return;
    this.#waiting.splice(at, 1);
    waiter.resolve(null);
    // Those behind it may have waited for nothing but their turn.
    this.#admit();
  }

  #end(place: Place): boolean {
    const places = this.#open.get(place.id);
    if (places === undefined || !places.delete(place)) return false;
    if (places.size === 0) this.#open.delete(place.id);
    return true;
  }

  #hasRoom(id: string): boolean {
    if (this.#fits(id)) return true;
    const nowMs = Date.now();
    for (const places of this.#open.values()) {
      for (const place of places) if (place.untilMs <= nowMs) this.#end(place);
    }
    return this.#fits(id);
  }

  #fits(id: string): boolean {
    return this.#open.has(id) || this.#open.size < this.#max;
  }

  #take(id: string, ms: number): Place {
    const place = { id, untilMs: Date.now() + ms };
    const places = this.#open.get(id);
    if (places === undefined) this.#open.set(id, new Set([place]));
    else places.add(place);
    assert(this.#open.size <= this.#max, "no more distinct dynamic Workers than the platform takes");
    return place;
  }

  #admit(): void {
    for (let next = this.#waiting[0]; next !== undefined && this.#hasRoom(next.id); next = this.#waiting[0]) {
      this.#waiting.shift();
      next.resolve(this.#take(next.id, SANDBOX_HANDOVER_MS));
    }
  }
}
