/** Simulated worlds of goals inside goals, in a process of their own as `npm run sim -- --world subgoals` runs them; and each planted bug, which must be found. */
import { expect, test } from "vitest";
import { expectFound, expectSound, TIMEOUT } from "./command.ts";
import { BUGS } from "./subgoals/bugs.ts";

test("no world of goals inside goals out of 100 breaks a rule, and each seed gives the same log twice", TIMEOUT, () =>
  expectSound("subgoals", 100),
);

test("each bug planted in the world of goals inside goals is found within 1,000 seeds of where its hunt begins", TIMEOUT, async () => {
  const names = Object.keys(BUGS);
  expect(names.length).toBeGreaterThanOrEqual(8);
  for (const name of names) await expectFound("subgoals", name);
});
