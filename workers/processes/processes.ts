/**
 * The processes that executors have, as this one knows them. A batch goes to
 * the one with the fewest, if it answers: one that has just ended is started
 * again by whoever started it, and takes nothing meanwhile. Each batch asks
 * first, because tasks whose executor is lost three times count as poison.
 */
import type { ProcessRpc } from "../../shared/rpc-processes.ts";

/** One that did not answer is left alone for so long. */
const REST_MS = 250;
/** One that is busy answers late; one that hangs never does. */
const ANSWER_MS = 2_000;

interface Place {
  readonly process: ProcessRpc;
  readonly seats: Set<Seat>;
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

  /** It does not answer. */
  lost(): void {
    this.#place.lostAtMs = Date.now();
  }

  leave(): void {
    this.#place.seats.delete(this);
  }

  async isTaken(): Promise<boolean> {
    const { process, lostAtMs } = this.#place;
    if (Date.now() - lostAtMs < REST_MS) return false;
    const hasAnswered = await answers(process);
    if (!hasAnswered) this.lost();
    return hasAnswered;
  }
}

async function answers(process: ProcessRpc): Promise<boolean> {
  const late = Promise.withResolvers<boolean>();
  const timer = setTimeout(() => late.resolve(false), ANSWER_MS);
  const ready = process.ready().then(
    () => true,
    () => false,
  );
  const hasAnswered = await Promise.race([ready, late.promise]);
  clearTimeout(timer);
  return hasAnswered;
}

export class Processes {
  readonly #places: readonly Place[];

  constructor(processes: readonly ProcessRpc[]) {
    this.#places = processes.map((process) => ({ process, seats: new Set(), lostAtMs: -Infinity }));
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
