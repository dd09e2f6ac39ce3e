/** Simulated worlds of goals inside goals, in a process of their own as `npm run sim -- --world subgoals` runs them; and each planted bug, which must be found. */
import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { FIRST_SEEDS } from "./first-seeds.ts";
import { BUGS } from "./subgoals/bugs.ts";

const run = promisify(execFile);
const TIMEOUT_MS = 300_000;

async function sim(...args: string[]): Promise<string> {
  try {
    return (await run(process.execPath, ["test/sim/run.ts", "--world", "subgoals", ...args], { timeout: TIMEOUT_MS })).stdout;
  } catch (error) {
    return (error as { stdout: string }).stdout;
  }
}

test(
  "no world of goals inside goals out of 100 breaks a rule, and each seed gives the same log twice",
  { timeout: TIMEOUT_MS },
  async () => {
    expect(await sim("--seeds", "100", "--twice")).toContain("none failed");
  },
);

test("each bug planted in the world of goals inside goals is found within 1,000 seeds", { timeout: TIMEOUT_MS }, async () => {
  const names = Object.keys(BUGS);
  expect(names.length).toBeGreaterThanOrEqual(8);
  for (const name of names) {
    const from = FIRST_SEEDS["subgoals"]?.[name] ?? 1;
    expect(await sim("--bug", name, "--from", String(from), "--seeds", String(1_001 - from)), name).toMatch(/^seed \d+ failed: /);
  }
});
