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
  readonly binding: string;
  open: number;
  heardAtMs: number;
  lostAtMs: number;
}

/** A process for one batch. */
export interface Seat {
  readonly process: ProcessRpc;
  /** It has answered. */
  saw(): void;
  /** It did not. */
  lost(): void;
  leave(): void;
}

type Bindings = Readonly<Record<string, unknown>>;

export class Processes {
  readonly #places: readonly Place[];

  constructor(bindings: Bindings) {
    const names = Object.keys(bindings).filter((name) => name.startsWith("EXECUTOR_PROCESS_"));
    this.#places = names.map((binding) => ({ binding, open: 0, heardAtMs: -Infinity, lostAtMs: -Infinity }));
  }

  /** All that are bound, whether they answer or not. */
  all(bindings: Bindings): ProcessRpc[] {
    return this.#places.map(({ binding }) => bindings[binding] as ProcessRpc);
  }

  /** Null: none answers. */
  async take(bindings: Bindings): Promise<Seat | null> {
    const places = this.#places.toSorted((a, b) => a.open - b.open);
    for (const place of places) {
      const seat = seatAt(place, bindings);
      if (await answers(place, seat)) return seat;
      seat.leave();
    }
    return null;
  }
}

function seatAt(place: Place, bindings: Bindings): Seat {
  place.open++;
  return {
    process: bindings[place.binding] as ProcessRpc,
    saw: () => void (place.heardAtMs = Date.now()),
    lost() {
      place.heardAtMs = -Infinity;
      place.lostAtMs = Date.now();
    },
    leave: () => void place.open--,
  };
}

async function answers(place: Place, seat: Seat): Promise<boolean> {
  const nowMs = Date.now();
  if (nowMs - place.heardAtMs < FRESH_MS) return true;
  if (nowMs - place.lostAtMs < REST_MS) return false;
  try {
    await seat.process.ready();
    seat.saw();
    return true;
  } catch {
    seat.lost();
    return false;
  }
}
