/** A world of flights: isolates that make equal calls, and goals that have equal tasks, each kind with a shard of its own. */
import { Clock } from "../clock.ts";
import { Random } from "../random.ts";
import { runWorld } from "../seed.ts";
import { Calls } from "./calls.ts";
import { Goals } from "./goals.ts";

const START_MS = 1_800_000_000_000;
const END_AFTER_MS = 120_000;

interface Outcome {
  readonly seed: number;
  readonly hash: string;
  readonly violation: string | null;
  readonly calls: number;
  readonly tasks: number;
}

class World {
  readonly clock = new Clock(START_MS);
  readonly calls: Calls;
  readonly goals: Goals;
  readonly #random: Random;

  constructor(seed: number, say: (text: string) => void) {
    const random = new Random(seed);
    this.#random = random;
    this.calls = new Calls(this.clock, random.fork(), say);
    this.goals = new Goals(this.clock, random.fork(), say);
  }

  run(): void {
    const { clock } = this;
    this.calls.start(this.#random.fork());
    this.goals.start();
    while (clock.nowMs < START_MS + END_AFTER_MS && clock.step());
    this.calls.judgeEnd();
    this.goals.judgeEnd();
  }
}

/** Runs one seed. `print` gets every line of its log. */
export function runSeed(seed: number, print: (line: string) => void = () => undefined): Outcome {
  const { world, ...outcome } = runWorld(seed, print, (say) => new World(seed, say));
  return { ...outcome, calls: world.calls.calls, tasks: world.goals.tasks };
}
