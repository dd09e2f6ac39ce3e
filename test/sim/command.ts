/** What tests of simulated worlds share: worlds and hunts, each in a process of its own, as `npm run sim` runs them. */
import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { expect } from "vitest";
import { FIRST_SEEDS } from "./first-seeds.ts";

const run = promisify(execFile);
/** Generous: the other tests share the cores. */
const TIMEOUT_MS = 300_000;
export const TIMEOUT = { timeout: TIMEOUT_MS };
const SEEDS = 1_000;

interface Ended {
  readonly code: number;
  readonly text: string;
}

export async function sim(...args: string[]): Promise<Ended> {
  try {
    const { stdout } = await run(process.execPath, ["test/sim/run.ts", ...args], { timeout: TIMEOUT_MS });
    return { code: 0, text: stdout };
  } catch (error) {
    const { code, stdout, stderr } = error as { code?: number; stdout: string; stderr: string };
    return { code: code ?? -1, text: stdout + stderr };
  }
}

/** So many worlds break no rule, the first of them run twice. */
export async function expectSound(world: string, count: number, twice: number): Promise<void> {
  const parts = [sim("--world", world, "--seeds", String(twice), "--twice")];
  if (count > twice) parts.push(sim("--world", world, "--seeds", String(count - twice), "--from", String(1 + twice)));
  for (const { code, text } of await Promise.all(parts)) {
    expect(text).toContain("none failed");
    expect(code).toBe(0);
  }
}

/** The planted bug is found within a thousand seeds of where its hunt begins, with the command that shows it again. */
export async function expectFound(world: string, bug: string): Promise<void> {
  const from = FIRST_SEEDS[world]?.[bug] ?? 1;
  const { code, text } = await sim("--world", world, "--bug", bug, "--from", String(from), "--seeds", String(SEEDS));
  expect(text, bug).toMatch(/^seed \d+ failed: [\s\S]*see it again: node test\/sim\/run\.ts --seeds 1 --from \d+ --verbose.* --bug /);
  expect(code).toBe(1);
}
