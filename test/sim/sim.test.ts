/**
 * Six hundred simulated worlds of a goal, and half as many of budgets and of a
 * governor, each run twice, in processes of their own as `npm run sim` runs them; and each planted
 * bug, which must be found.
 */
import { expect, test } from "vitest";
import { BUGS } from "./bugs.ts";
import { BUGS as BUDGET_BUGS } from "./budgets/bugs.ts";
import { expectFound, expectSound, sim, TIMEOUT } from "./command.ts";
import { BUGS as GOVERNOR_BUGS } from "./governor/bugs.ts";

const CORES = 2;
/** `npm run sim -- --seeds 20000` runs more. */
const WORLDS = [
  ["goal", 500, BUGS],
  ["budgets", 250, BUDGET_BUGS],
  ["governor", 250, GOVERNOR_BUGS],
] as const;

test.for(WORLDS)("no world of a %s out of %i breaks a rule, and each gives the same log twice", TIMEOUT, ([world, count]) =>
  expectSound(world, count),
);

test.for(WORLDS)(
  "each bug planted in the world of a %s is found within 1,000 seeds of where its hunt begins, with the command that shows it again",
  TIMEOUT,
  async ([world, , bugs]) => {
    const names = Object.keys(bugs);
    expect(names.length).toBeGreaterThanOrEqual(10);
    const hunt = async (): Promise<void> => {
      for (let name = names.shift(); name !== undefined; name = names.shift()) await expectFound(world, name);
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
