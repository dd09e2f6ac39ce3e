/**
 * Runs simulated worlds: `node test/sim/run.ts --seeds N --from S`. Says at the
 * first failing seed what was violated and how to see it again, and exits 1.
 * `--verbose` prints a world's log, `--twice` runs each seed twice and compares
 * the logs, `--bug NAME` plants one of the bugs in bugs.ts.
 */
import { parseArgs } from "node:util";
import { assertPlanted, BUGS, plant } from "./bugs.ts";

const { values } = parseArgs({
  options: {
    seeds: { type: "string", default: "100" },
    from: { type: "string", default: "1" },
    verbose: { type: "boolean", default: false },
    twice: { type: "boolean", default: false },
    bug: { type: "string" },
  },
});

const seeds = Number(values.seeds);
const from = Number(values.from);
if (!Number.isInteger(seeds) || seeds < 1 || !Number.isInteger(from) || from < 0) {
  console.error("--seeds takes a count from 1, --from a seed from 0");
  process.exit(2);
}
if (values.bug !== undefined) {
  const bug = BUGS[values.bug];
  if (bug === undefined) {
    console.error(`there is no bug "${values.bug}"; there are: ${Object.keys(BUGS).join(", ")}`);
    process.exit(2);
  }
  plant(bug);
}

// Loaded only now, so that a planted bug is in what is loaded.
const { runSeed } = await import("./world.ts");
if (values.bug !== undefined) assertPlanted();
const startedMs = performance.now();
let turns = 0;
let tasks = 0;

function fail(seed: number, why: string): never {
  const bug = values.bug === undefined ? "" : ` --bug ${values.bug}`;
  console.log(`seed ${seed} failed: ${why}`);
  console.log(`see it again: node test/sim/run.ts --seeds 1 --from ${seed} --verbose${bug}`);
  process.exit(1);
}

for (let seed = from; seed < from + seeds; seed++) {
  const outcome = runSeed(seed, values.verbose ? (line) => console.log(line) : undefined);
  if (outcome.violation !== null) fail(seed, outcome.violation);
  if (values.twice && runSeed(seed).hash !== outcome.hash) fail(seed, "two runs of one seed have different logs");
  turns += outcome.turns;
  tasks += outcome.tasks;
}
const seconds = Math.round((performance.now() - startedMs) / 100) / 10;
console.log(`${seeds} seeds from ${from}: none failed; ${tasks} tasks, ${turns} turns, ${seconds} s`);
