/**
 * `npm run bench`: every figure that Drover promises, measured on this machine
 * beside the smallest program that does the same input and output.
 *
 *   npm run bench -- [absorb] [goal] [stragglers] [wake] [trickle] [--rounds 5] [--fast] [--executors N] [--save]
 */
import { parseArgs } from "node:util";
import { type Finding, lineOf, machine, save } from "./report.ts";
import { absorb } from "./scenarios/absorb.ts";
import { capacityOf } from "./scenarios/capacity.ts";
import { claims } from "./scenarios/claims.ts";
import { coalesceOf } from "./scenarios/coalesce.ts";
import { coldOf } from "./scenarios/cold.ts";
import { estimate } from "./scenarios/estimate.ts";
import { fairnessOf } from "./scenarios/fairness.ts";
import { functionsOf } from "./scenarios/functions.ts";
import { goal } from "./scenarios/goal.ts";
import { herdOf } from "./scenarios/herd.ts";
import { hostile } from "./scenarios/hostile.ts";
import { invocations } from "./scenarios/invocations.ts";
import { locksOf } from "./scenarios/locks.ts";
import { origins } from "./scenarios/origins.ts";
import { outageOf } from "./scenarios/outage.ts";
import { proxyOf } from "./scenarios/proxy.ts";
import { stragglers } from "./scenarios/stragglers.ts";
import { tokensOf } from "./scenarios/tokens.ts";
import { trickleOf } from "./scenarios/trickle.ts";
import { wake } from "./scenarios/wake.ts";
import { setStage, type Stage } from "./stage.ts";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    rounds: { type: "string", default: "5" },
    executors: { type: "string" },
    fast: { type: "boolean", default: false },
    save: { type: "boolean", default: false },
  },
});

const SCENARIOS: Readonly<Record<string, (stage: Stage, rounds: number) => Promise<Finding[]>>> = {
  absorb,
  goal,
  stragglers,
  wake,
  herd: herdOf(values.fast),
  fairness: fairnessOf(values.fast),
  outage: outageOf(values.fast ? 5_000 : 10_000),
  origins,
  estimate,
  claims,
  locks: locksOf(values.fast),
  proxy: proxyOf(values.fast),
  coalesce: coalesceOf(values.fast),
  capacity: capacityOf(values.fast ? 8_000 : 16_000),
  tokens: tokensOf(values.fast),
  functions: functionsOf(values.fast),
  cold: coldOf(values.fast),
  hostile,
  invocations,
  trickle: trickleOf(values.fast ? 20 : 100),
};

const rounds = Number(values.rounds);
const unknown = positionals.find((name) => !(name in SCENARIOS));
if (unknown !== undefined || !Number.isInteger(rounds) || rounds < 1) {
  console.error(`usage: npm run bench -- [${Object.keys(SCENARIOS).join("] [")}] [--rounds N] [--fast] [--executors N] [--save]`);
  process.exit(2);
}

console.log(machine());
console.log("medians, with quartiles in brackets; ratios are taken within a round\n");
const figures: Finding[] = [];
for (const name of positionals.length === 0 ? Object.keys(SCENARIOS) : positionals) {
  // Each scenario has processes of its own, so none pays for another's memory.
  const stage = await setStage(values.executors === undefined ? undefined : Number(values.executors));
  try {
    const found = await SCENARIOS[name]!(stage, rounds);
    for (const one of found) console.log(lineOf(one));
    figures.push(...found);
  } finally {
    await stage.end();
  }
}
if (values.save) console.log(`\nkept in ${save(figures)}`);
