/**
 * SIGKILL in the middle of goals, seen from outside. `crash-run.ts` is the
 * program; by hand it kills more often, and larger goals.
 */
import { expect, test } from "vitest";
import { crashRun, type Figures } from "./crash-run.ts";

test(
  "whenever a server is killed, each acknowledged task ends once, and nothing that must not be repeated is",
  { timeout: 120_000 },
  async () => {
    const all: Figures[] = [];
    await crashRun({ kills: 3, parents: 1, tasks: 1_000, seed: 7 }, (figures) => all.push(figures));
    expect(all.flatMap(({ faults }) => faults)).toEqual([]);
    expect(all.map(({ what }) => what)).toEqual(["all", "all", "all", "parent"]);
    // A kill that came too early or too late for every goal would have shown nothing.
    expect(all.some(({ seenBefore }) => seenBefore > 0)).toBe(true);
    expect(all.some(({ resumedMs }) => resumedMs !== null)).toBe(true);
    expect(all.some(({ repeated }) => repeated > 0)).toBe(true);
  },
);
