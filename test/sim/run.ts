/**
 * Runs simulated worlds: `node test/sim/run.ts --seeds N --from S`. Says at the
 * first failing seed what was violated and how to see it again, and exits 1.
 * `--world` chooses between the worlds of a goal, of budgets and of a governor,
 * `--verbose` prints a world's log, `--twice` runs each seed twice and compares
 * the logs (a goal's world has no checkers the second time), `--bug NAME` plants
 * one of the world's bugs.
 */
import { parseArgs } from "node:util";
import { assertPlanted, BUGS, plant } from "./bugs.ts";
import { BUGS as BUDGET_BUGS } from "./budgets/bugs.ts";
import { FLIGHT_BUGS } from "./flights/bugs.ts";
import { LOCK_BUGS } from "./locks/bugs.ts";
import { BUGS as GOVERNOR_BUGS } from "./governor/bugs.ts";
import { BUGS as SUBGOAL_BUGS } from "./subgoals/bugs.ts";

interface Outcome {
  readonly hash: string;
  readonly violation: string | null;
}

interface World {
  /** What a good run counts. */
  readonly counts: readonly [string, string];
  readonly bugs: typeof BUGS;
  /** Loads the world only when it is called, so that a planted bug is in what is loaded. */
  readonly load: () => Promise<(seed: number, print?: (line: string) => void, isWatched?: boolean) => Outcome>;
}

const WORLDS: Readonly<Record<string, World>> = {
  goal: { counts: ["tasks", "turns"], bugs: BUGS, load: async () => (await import("./world.ts")).runSeed },
  budgets: { counts: ["calls", "turns"], bugs: BUDGET_BUGS, load: async () => (await import("./budgets/world.ts")).runSeed },
  subgoals: { counts: ["goals", "messages"], bugs: SUBGOAL_BUGS, load: async () => (await import("./subgoals/world.ts")).runSeed },
  locks: { counts: ["grants", "tasks"], bugs: LOCK_BUGS, load: async () => (await import("./locks/world.ts")).runSeed },
  flights: { counts: ["calls", "tasks"], bugs: FLIGHT_BUGS, load: async () => (await import("./flights/world.ts")).runSeed },
  governor: { counts: ["calls", "messages"], bugs: GOVERNOR_BUGS, load: async () => (await import("./governor/world.ts")).runSeed },
};

const { values } = parseArgs({
  options: {
    world: { type: "string", default: "goal" },
    seeds: { type: "string", default: "100" },
    from: { type: "string", default: "1" },
    verbose: { type: "boolean", default: false },
    twice: { type: "boolean", default: false },
    bug: { type: "string" },
  },
});

function refuse(why: string): never {
  console.error(why);
  process.exit(2);
}

const seeds = Number(values.seeds);
const from = Number(values.from);
if (!Number.isInteger(seeds) || seeds < 1 || !Number.isInteger(from) || from < 0) {
  refuse("--seeds takes a count from 1, --from a seed from 0");
}
const world = WORLDS[values.world] ?? refuse(`there is no world "${values.world}"; there are: ${Object.keys(WORLDS).join(", ")}`);
if (values.bug !== undefined) {
  plant(world.bugs[values.bug] ?? refuse(`there is no bug "${values.bug}"; there are: ${Object.keys(world.bugs).join(", ")}`));
}

const runSeed = await world.load();
if (values.bug !== undefined) assertPlanted();
const startedMs = performance.now();
const sums = [0, 0];

function fail(seed: number, why: string): never {
  const which = values.world === "goal" ? "" : ` --world ${values.world}`;
  const bug = values.bug === undefined ? "" : ` --bug ${values.bug}`;
  console.log(`seed ${seed} failed: ${why}`);
  console.log(`see it again: node test/sim/run.ts --seeds 1 --from ${seed} --verbose${which}${bug}`);
  process.exit(1);
}

for (let seed = from; seed < from + seeds; seed++) {
  const outcome = runSeed(seed, values.verbose ? (line) => console.log(line) : undefined);
  if (outcome.violation !== null) fail(seed, outcome.violation);
  if (values.twice && runSeed(seed, undefined, false).hash !== outcome.hash) fail(seed, "two runs of one seed have different logs");
  world.counts.forEach((name, i) => (sums[i]! += Number((outcome as unknown as Record<string, unknown>)[name])));
}
const seconds = Math.round((performance.now() - startedMs) / 100) / 10;
console.log(`${seeds} seeds from ${from}: none failed; ${sums[0]} ${world.counts[0]}, ${sums[1]} ${world.counts[1]}, ${seconds} s`);
