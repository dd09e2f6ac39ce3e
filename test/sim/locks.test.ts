/** Simulated worlds of locks, in a process of their own as `npm run sim -- --world locks` runs them; and each planted bug, which must be found. */
import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { FIRST_SEEDS } from "./first-seeds.ts";
import { LOCK_BUGS } from "./locks/bugs.ts";

const run = promisify(execFile);
const TIMEOUT_MS = 300_000;

async function sim(...args: string[]): Promise<string> {
  try {
    return (await run(process.execPath, ["test/sim/run.ts", "--world", "locks", ...args], { timeout: TIMEOUT_MS })).stdout;
  } catch (error) {
    return (error as { stdout: string }).stdout;
  }
}

test("no world of locks out of 40 breaks a rule, and each of the first ten gives the same log twice", { timeout: TIMEOUT_MS }, async () => {
  const parts = [sim("--seeds", "10", "--twice"), sim("--seeds", "30", "--from", "11")];
  for (const text of await Promise.all(parts)) expect(text).toContain("none failed");
});

test("each bug planted in the world of locks is found within 1,000 seeds", { timeout: TIMEOUT_MS }, async () => {
  const names = Object.keys(LOCK_BUGS);
  expect(names.length).toBeGreaterThanOrEqual(11);
  for (const name of names) {
    const from = FIRST_SEEDS["locks"]?.[name] ?? 1;
    expect(await sim("--bug", name, "--from", String(from), "--seeds", String(1_001 - from)), name).toMatch(/^seed \d+ failed: /);
  }
});
