/** How many functions a world runs, and what goes wrong in them. From a chance of its own, so that other worlds stay as they are. */
import type { FunctionVersion } from "../../../shared/protocol/function.ts";
import type { TaskSpec } from "../../../shared/protocol/task.ts";
import type { Random } from "../random.ts";

/** Probabilities, each for one run. */
export interface RunFaults {
  /** It ends with an error. */
  throws: number;
  /** The error says that another attempt may fare better. */
  mayRepeat: number;
  /** It goes beyond a limit. */
  limit: number;
  /** Its executor is full, and gives it back. */
  givesBack: number;
  /** A word between its call and the goal's budget gets lost. */
  lost: number;
}

const CEILINGS: Readonly<RunFaults> = { throws: 0.3, mayRepeat: 0.7, limit: 0.2, givesBack: 0.3, lost: 0.1 };

export interface RunPlan {
  /** None where the world has no functions. */
  readonly functions: readonly FunctionVersion[];
  /** The most calls that one run makes, one after the other. */
  readonly calls: number;
  readonly faults: RunFaults;
}

export const NO_FAULTS = Object.fromEntries(Object.keys(CEILINGS).map((name) => [name, 0])) as unknown as RunFaults;

export function runPlanOf(random: Random): RunPlan {
  const faults = { ...NO_FAULTS };
  for (const name of Object.keys(CEILINGS) as (keyof RunFaults)[]) {
    if (random.chance(0.5)) faults[name] = Math.round(random.next() * CEILINGS[name] * 1_000) / 1_000;
  }
  const count = random.chance(0.7) ? 0 : random.between(1, 2);
  return { functions: Array.from({ length: count }, (_, i) => versionOf(`f${i}`)), calls: random.between(0, 3), faults };
}

const versionOf = (name: string): FunctionVersion => ({
  ...{ name, version: name, engine: "snapshot", limits: { cpuMs: 100, memoryBytes: 1_000 } },
  ...{ bundleBytes: 1, snapshotBytes: 1, initMs: 1, createdAtMs: 0 },
});

/** A task's work, now and then, that is a function. */
export function runOf(random: Random, { functions }: RunPlan): Pick<TaskSpec, "run" | "reserve"> | null {
  if (functions.length === 0 || !random.chance(0.4)) return null;
  const name = random.chance(0.02) ? "nowhere" : random.pick(functions).name;
  return { run: { function: name, input: random.between(0, 9) }, ...(random.chance(0.25) && { reserve: { calls: random.between(1, 2) } }) };
}

/** The functions after somebody has deleted one, perhaps. */
export const someOf = (random: Random, { functions }: RunPlan): readonly FunctionVersion[] => functions.filter(() => !random.chance(0.3));
