/** Simulated worlds of flights, in a process of their own as `npm run sim -- --world flights` runs them; and each planted bug, which must be found. */
import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { FIRST_SEEDS } from "./first-seeds.ts";
import { FLIGHT_BUGS } from "./flights/bugs.ts";

const run = promisify(execFile);
const TIMEOUT_MS = 300_000;

async function sim(...args: string[]): Promise<string> {
  try {
    return (await run(process.execPath, ["test/sim/run.ts", "--world", "flights", ...args], { timeout: TIMEOUT_MS })).stdout;
  } catch (error) {
    return (error as { stdout: string }).stdout;
  }
}

test(
  "no world of flights out of 200 breaks a rule, and each of the first forty gives the same log twice",
  { timeout: TIMEOUT_MS },
  async () => {
    const parts = [sim("--seeds", "40", "--twice"), sim("--seeds", "160", "--from", "41")];
    for (const text of await Promise.all(parts)) expect(text).toContain("none failed");
  },
);

test("each bug planted in the world of flights is found within 1,000 seeds", { timeout: TIMEOUT_MS }, async () => {
  const names = Object.keys(FLIGHT_BUGS);
  expect(names.length).toBeGreaterThanOrEqual(12);
  for (const name of names) {
    const from = FIRST_SEEDS["flights"]?.[name] ?? 1;
    expect(await sim("--bug", name, "--from", String(from), "--seeds", String(1_001 - from)), name).toMatch(/^seed \d+ failed: /);
  }
});
