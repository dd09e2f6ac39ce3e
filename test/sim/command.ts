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
/** Hundreds of processes load the same modules. */
const ENV = { ...process.env, NODE_COMPILE_CACHE: "node_modules/.cache/compiled" };
/** The first world of a goal is a large one, and shows few bugs that the second does not. */
const HUNT_FROM: Readonly<Record<string, number>> = { goal: 2 };

interface Ended {
  readonly code: number;
  readonly text: string;
}

export async function sim(...args: string[]): Promise<Ended> {
  try {
    const { stdout } = await run(process.execPath, ["test/sim/run.ts", ...args], { timeout: TIMEOUT_MS, env: ENV });
    return { code: 0, text: stdout };
  } catch (error) {
    const { code, stdout, stderr } = error as { code?: number; stdout: string; stderr: string };
    return { code: code ?? -1, text: stdout + stderr };
  }
}

/** So many worlds break no rule, and each gives the same log twice. One half a core. */
export async function expectSound(world: string, count: number): Promise<void> {
  const half = Math.ceil(count / 2);
  const part = (from: number, seeds: number) => sim("--world", world, "--from", String(from), "--seeds", String(seeds), "--twice");
  for (const { code, text } of await Promise.all([part(1, half), part(1 + half, count - half)])) {
    expect(text).toContain("none failed");
    expect(code).toBe(0);
  }
}

/** The planted bug is found within a thousand seeds of where its hunt begins, with the command that shows it again. */
export async function expectFound(world: string, bug: string): Promise<void> {
  const from = FIRST_SEEDS[world]?.[bug] ?? HUNT_FROM[world] ?? 1;
  const { code, text } = await sim("--world", world, "--bug", bug, "--from", String(from), "--seeds", String(SEEDS));
  expect(text, bug).toMatch(/^seed \d+ failed: [\s\S]*see it again: node test\/sim\/run\.ts --seeds 1 --from \d+ --verbose.* --bug /);
  expect(code).toBe(1);
}
