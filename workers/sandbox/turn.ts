/**
 * Waiting in line for something that is lent. A request that the platform has
 * canceled neither leaves the line nor takes what it is given, so what is
 * handed over is lent for a moment only, until whoever waited has come for it.
 */
import { SANDBOX_LOOK_MS } from "../../shared/limits.ts";
import type { Cutoff } from "../kit/cutoff.ts";

export interface Line<T> {
  /** Puts somebody into the line, each time at the same place, and gives what takes it out again. Null is for whoever was taken out. */
  enter(resolve: (lent: T | null) => void): () => void;
  /** Whether what was lent is there still; then it is lent for as long as it is needed. */
  keep(lent: T): boolean;
  /** Looks whether there is something to be had. */
  look(): void;
}

/** Null for whoever goes away while it waits. */
export async function inTurn<T>(line: Line<T>, cutoff: Cutoff): Promise<T | null> {
  // Whoever should wake this one may never come, so it looks by itself.
  const looking = setInterval(() => line.look(), SANDBOX_LOOK_MS);
  let leave = (): void => undefined;
  const gone = (): void => leave();
  cutoff.watch(gone);
  try {
    for (;;) {
      // Not `new Promise`: once that is compiled by the optimizing compiler of V8, workerd does not know
      // any more whose request it is of, and what follows would run in the request of whoever resolves it.
      const { promise, resolve } = Promise.withResolvers<T | null>();
      leave = line.enter(resolve);
      const lent = await promise;
      if (lent === null || line.keep(lent)) return lent;
    }
  } finally {
    clearInterval(looking);
    cutoff.forget(gone);
  }
}

/** Puts it where its number belongs. */
export function insert<W extends { readonly number: number }>(line: W[], waiter: W): void {
  const behind = line.findIndex(({ number }) => number > waiter.number);
  line.splice(behind < 0 ? line.length : behind, 0, waiter);
}
