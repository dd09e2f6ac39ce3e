/** Simulated worlds of flights, in a process of their own as `npm run sim -- --world flights` runs them; and each planted bug, which must be found. */
import { expect, test } from "vitest";
import { expectFound, expectSound, TIMEOUT } from "./command.ts";
import { FLIGHT_BUGS } from "./flights/bugs.ts";

test("no world of flights out of 120 breaks a rule, and each gives the same log twice", TIMEOUT, () => expectSound("flights", 120));

test("each bug planted in the world of flights is found within 1,000 seeds of where its hunt begins", TIMEOUT, async () => {
  const names = Object.keys(FLIGHT_BUGS);
  expect(names.length).toBeGreaterThanOrEqual(15);
  for (const name of names) await expectFound("flights", name);
});
