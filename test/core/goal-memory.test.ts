/** Holds the core to its memory budget, in a process of its own where nothing else is on the heap. */
import { execFileSync } from "node:child_process";
import { expect, test } from "vitest";

const HEAP_MIB_MAX = 64;

test("50,000 live tasks with keys take at most 64 MiB", () => {
  const text = execFileSync(process.execPath, ["--expose-gc", "test/core/goal-memory.ts"], { encoding: "utf8", timeout: 50_000 });
  const figures = JSON.parse(text) as { tasks: number; heapMiB: number };
  expect(figures.tasks).toBe(50_000);
  expect(figures.heapMiB).toBeGreaterThan(1);
  expect(figures.heapMiB).toBeLessThanOrEqual(HEAP_MIB_MAX);
});
