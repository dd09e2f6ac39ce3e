/** Simulated worlds of locks, in a process of their own as `npm run sim -- --world locks` runs them; and each planted bug, which must be found. */
import { expect, test } from "vitest";
import { expectFound, expectSound, TIMEOUT } from "./command.ts";
import { LOCK_BUGS } from "./locks/bugs.ts";

test("no world of locks out of 40 breaks a rule, and each gives the same log twice", TIMEOUT, () => expectSound("locks", 40));

test("each bug planted in the world of locks is found within 1,000 seeds of where its hunt begins", TIMEOUT, async () => {
  const names = Object.keys(LOCK_BUGS);
  expect(names.length).toBeGreaterThanOrEqual(11);
  for (const name of names) await expectFound("locks", name);
});
