/** Second tries of calls that wait for leave: the gate answers each of them, and soon. */
import { HAND_SECONDS_MAX } from "../../../shared/limits-hedging.ts";
import type { HandNews, SecondAsked } from "../../../shared/rpc-functions.ts";

/** A permit for one call, and the number that it is paid by. */
export interface Second {
  readonly id: number;
  readonly place: number;
  readonly draw: number;
}

interface Pending {
  readonly asked: SecondAsked;
  isSent: boolean;
  readonly resolve: (second: Second | null) => void;
}

export class Seconds {
  readonly #pending = new Map<number, Pending>();

  get size(): number {
    return this.#pending.size;
  }

  /** There are some to ask for. */
  get isDue(): boolean {
    return [...this.#pending.values()].some(({ isSent }) => !isSent);
  }

  /** Null: none is to be made. `open`: so many are under way. */
  ask(asked: SecondAsked, open: number): Promise<Second | null> {
    if (open + this.#pending.size >= HAND_SECONDS_MAX) return Promise.resolve(null);
    return new Promise((resolve) => this.#pending.set(asked.id, { asked, isSent: false, resolve }));
  }

  /** Those that are asked for now. */
  take(): SecondAsked[] {
    const due = [...this.#pending.values()].filter(({ isSent }) => !isSent);
    for (const pending of due) pending.isSent = true;
    return due.map(({ asked }) => asked);
  }

  hear(news: NonNullable<HandNews["seconds"]>): void {
    for (const { id, permit } of news) {
      const pending = this.#pending.get(id);
      this.#pending.delete(id);
      pending?.resolve(permit === undefined ? null : { id: permit[0], place: permit[1], draw: id });
    }
  }

  /** None of those that wait is made. Their numbers. */
  cancel(): number[] {
    const ids = [...this.#pending.keys()];
    for (const { resolve } of this.#pending.values()) resolve(null);
    this.#pending.clear();
    return ids;
  }
}
