/**
 * The processes that executors have, as this one knows them. A batch goes to
 * the one with the fewest, if it answers: one that has just ended is started
 * again by whoever started it, and takes nothing meanwhile.
 */
import type { ProcessRpc } from "../../shared/rpc-processes.ts";

/** One that answered so recently is not asked whether it does. */
const FRESH_MS = 1_000;
/** One that did not is left alone for so long. */
const REST_MS = 250;

interface Place {
  readonly process: ProcessRpc;
  readonly seats: Set<Seat>;
  heardAtMs: number;
  lostAtMs: number;
}

/** A process for one batch. */
export class Seat {
  readonly #place: Place;
  /** The goal of the batch, and those above it. */
  readonly goalIds: readonly string[];

  constructor(place: Place, goalIds: readonly string[]) {
    this.#place = place;
    this.goalIds = goalIds;
    place.seats.add(this);
  }

  get process(): ProcessRpc {
    return this.#place.process;
  }

  /** It has answered. */
  saw(): void {
    this.#place.heardAtMs = Date.now();
  }

  /** It did not. */
  lost(): void {
    this.#place.heardAtMs = -Infinity;
    this.#place.lostAtMs = Date.now();
  }

  leave(): void {
    this.#place.seats.delete(this);
  }

  /** Whether it answers, as far as one knows. */
  async isTaken(): Promise<boolean> {
    const { process, heardAtMs, lostAtMs } = this.#place;
    const nowMs = Date.now();
    if (nowMs - heardAtMs < FRESH_MS) return true;
    if (nowMs - lostAtMs < REST_MS) return false;
    try {
      await process.ready();
      this.saw();
      return true;
    } catch {
      this.lost();
      return false;
    }
  }
}

export class Processes {
  readonly #places: readonly Place[];

  constructor(processes: readonly ProcessRpc[]) {
    this.#places = processes.map((process) => ({ process, seats: new Set(), heardAtMs: -Infinity, lostAtMs: -Infinity }));
  }

  /** All of them, whether they answer or not. */
  get all(): readonly ProcessRpc[] {
    return this.#places.map(({ process }) => process);
  }

  /** Null: none answers. */
  async take(goalIds: readonly string[]): Promise<Seat | null> {
    const places = this.#places.toSorted((a, b) => a.seats.size - b.seats.size);
    for (const place of places) {
      const seat = new Seat(place, goalIds);
      if (await seat.isTaken()) return seat;
      seat.leave();
    }
    return null;
  }

  /** Those that work for a goal that has ended, or for one below it, hear it at once. A hint: one that is lost does no harm. */
  tellEnded(goalId: string): void {
    for (const { process, seats } of this.#places) {
      const isConcerned = [...seats].some(({ goalIds }) => goalIds.includes(goalId));
      if (isConcerned) process.ended(goalId).catch(() => undefined);
    }
  }
}
