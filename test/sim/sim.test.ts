/**
 * Five hundred simulated worlds of a goal and as many of a governor, some run
 * twice, in processes of their own as `npm run sim` runs them; and each planted
 * bug, which must be found.
 */
import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { BUGS } from "./bugs.ts";
import { BUGS as BUDGET_BUGS } from "./budgets/bugs.ts";
import { FIRST_SEEDS } from "./first-seeds.ts";
import { BUGS as GOVERNOR_BUGS } from "./governor/bugs.ts";

const run = promisify(execFile);
/** Generous: the other tests share the cores. */
const TIMEOUT_MS = 300_000;
const TIMEOUT = { timeout: TIMEOUT_MS };
const CORES = 2;
const SEEDS = 1_000;
/** Worlds of each kind in a test run; `npm run sim -- --seeds 1000` runs more. */
const WORLDS_RUN = 500;
const SEEDS_TWICE = 100;

interface Ended {
  readonly code: number;
  readonly text: string;
}

async function sim(...args: string[]): Promise<Ended> {
  try {
    const { stdout } = await run(process.execPath, ["test/sim/run.ts", ...args], { timeout: TIMEOUT_MS });
    return { code: 0, text: stdout };
  } catch (error) {
    const { code, stdout, stderr } = error as { code?: number; stdout: string; stderr: string };
    return { code: code ?? -1, text: stdout + stderr };
  }
}

const WORLDS = [
  ["goal", BUGS],
  ["budgets", BUDGET_BUGS],
  ["governor", GOVERNOR_BUGS],
] as const;

test.for(WORLDS)(
  "no world of a %s out of 500 breaks a rule, and each of the first 100 gives the same log twice",
  TIMEOUT,
  async ([world]) => {
    const rest = WORLDS_RUN - SEEDS_TWICE;
    const parts = [
      sim("--world", world, "--seeds", String(SEEDS_TWICE), "--twice"),
      sim("--world", world, "--seeds", String(rest), "--from", String(1 + SEEDS_TWICE)),
    ];
    for (const { code, text } of await Promise.all(parts)) {
      expect(text).toContain("none failed");
      expect(code).toBe(0);
    }
  },
);

test.for(WORLDS)(
  "each bug planted in the world of a %s is found within 1,000 seeds, with the command that shows it again",
  TIMEOUT,
  async ([world, bugs]) => {
    const names = Object.keys(bugs);
    expect(names.length).toBeGreaterThanOrEqual(10);
    const hunt = async (): Promise<void> => {
      for (let name = names.shift(); name !== undefined; name = names.shift()) {
        const from = FIRST_SEEDS[world]?.[name] ?? 1;
        const { code, text } = await sim("--world", world, "--bug", name, "--from", String(from), "--seeds", String(SEEDS + 1 - from));
        expect(text, name).toMatch(
          /^seed \d+ failed: [\s\S]*see it again: node test\/sim\/run\.ts --seeds 1 --from \d+ --verbose.* --bug /,
        );
        expect(code).toBe(1);
      }
    };
    await Promise.all(Array.from({ length: CORES }, hunt));
  },
);

test("a failing seed fails again alone, with its log and its faults first", async () => {
  const found = await sim("--bug", "forget-counter", "--seeds", "10", "--from", "77");
  const seed = /^seed (\d+) failed/.exec(found.text)![1]!;
  const again = await sim("--bug", "forget-counter", "--seeds", "1", "--from", seed, "--verbose");
  expect(again.text.split("\n")[0]).toMatch(new RegExp(`^seed ${seed} \\{"faults":\\{`));
  expect(again.text).toContain("counters equal the tasks");
});

test("bad arguments are refused with a sentence", async () => {
  expect(await sim("--seeds", "none")).toEqual({ code: 2, text: "--seeds takes a count from 1, --from a seed from 0\n" });
  expect((await sim("--bug", "no-such")).text).toContain("there is no bug");
  expect((await sim("--world", "no-such")).text).toContain("there are: goal, budgets, subgoals, locks, flights, governor");
});
