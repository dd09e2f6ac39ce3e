/** One run of a world: every line of its log is hashed, so that two runs of a seed can be compared. */
import { createHash } from "node:crypto";
import { Violation } from "./violation.ts";

/** What every run comes to. */
export interface SeedRun<W> {
  readonly seed: number;
  readonly hash: string;
  readonly violation: string | null;
  readonly world: W;
}

/** Runs the world that `make` builds. `print` gets every line; `broken` may print more of a world that broke a rule. */
export function runWorld<W extends { run(): void }>(
  seed: number,
  print: (line: string) => void,
  make: (say: (line: string) => void) => W,
  broken: (world: W) => void = () => undefined,
): SeedRun<W> {
  const hash = createHash("sha256");
  const say = (line: string): void => {
    hash.update(line).update("\n");
    print(line);
  };
  const world = make(say);
  let violation: string | null = null;
  try {
    world.run();
  } catch (error) {
    violation = error instanceof Violation ? error.message : (error as Error).stack!;
    broken(world);
    say(`violation ${violation.split("\n")[0]!}`);
  }
  return { seed, hash: hash.digest("hex"), violation, world };
}
