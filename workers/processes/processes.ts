/**
 * The processes that executors have, as this one knows them. A batch goes to
 * the one with the fewest, if it answers: one that has just ended is started
 * again by whoever started it, and takes nothing meanwhile. Each batch asks
 * first, because tasks whose executor is lost three times count as poison.
 */
import type { ProcessRpc } from "../../shared/rpc-processes.ts";
import { within } from "../kit/within.ts";

/** One that is not there is left alone for so long. */
const GONE_REST_MS = 250;
/** One that is busy answers late, and one that hangs never does: others are asked first for so long. */
const LATE_REST_MS = 5_000;
const ANSWER_MS = 250;
/** For all of them together: a lease goes on meanwhile. */
const TAKE_MS = 1_000;

type Answer = "ready" | "gone" | "late";

interface Place {
  readonly process: ProcessRpc;
  readonly seats: Set<Seat>;
  goneAtMs: number;
  lateAtMs: number;
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

  /** The process broke off. */
  lost(): void {
    this.#place.goneAtMs = Date.now();
  }

  leave(): void {
    this.#place.seats.delete(this);
  }
}

async function ask(place: Place, withinMs: number): Promise<Answer> {
  const ready = place.process.ready().then(
    () => "ready" as const,
    () => "gone" as const,
  );
  const answer = (await within(ready, withinMs)) ?? "late";
  if (answer === "gone") place.goneAtMs = Date.now();
  if (answer === "late") place.lateAtMs = Date.now();
  if (answer === "ready") place.lateAtMs = -Infinity;
  return answer;
}

export class Processes {
  readonly #places: readonly Place[];

  constructor(processes: readonly ProcessRpc[]) {
    this.#places = processes.map((process) => ({ process, seats: new Set(), goneAtMs: -Infinity, lateAtMs: -Infinity }));
  }

  /** All of them, whether they answer or not. */
  get all(): readonly ProcessRpc[] {
    return this.#places.map(({ process }) => process);
  }

  /**
   * Null: none is there. One that is there and late takes it where no other
   * does: what keeps it busy, perhaps for ever, must not come here.
   */
  async take(goalIds: readonly string[]): Promise<Seat | null> {
    const startedAtMs = Date.now();
    let late: Place | null = null;
    for (const place of this.#inOrder(startedAtMs)) {
      const leftMs = startedAtMs + TAKE_MS - Date.now();
      if (leftMs <= 0) break;
      // Taken while it is asked, or all that come in one moment would take the same.
      const seat = new Seat(place, goalIds);
      const answer = await ask(place, Math.min(ANSWER_MS, leftMs));
      if (answer === "ready") return seat;
      seat.leave();
      if (answer === "late") late ??= place;
    }
    return late === null ? null : new Seat(late, goalIds);
  }

  /** Those that work for a goal that has ended, or for one below it, hear it at once. A hint: one that is lost does no harm. */
  tellEnded(goalId: string): void {
    for (const { process, seats } of this.#places) {
      const isConcerned = [...seats].some(({ goalIds }) => goalIds.includes(goalId));
      if (isConcerned) process.ended(goalId).catch(() => undefined);
    }
  }

  #inOrder(nowMs: number): Place[] {
    const isLate = ({ lateAtMs }: Place): number => Number(nowMs - lateAtMs < LATE_REST_MS);
    return this.#places
      .filter(({ goneAtMs }) => nowMs - goneAtMs >= GONE_REST_MS)
      .toSorted((a, b) => isLate(a) - isLate(b) || a.seats.size - b.seats.size);
  }
}
