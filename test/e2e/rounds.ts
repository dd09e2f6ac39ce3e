/** What the runs that are started by hand print: their options, a line a round, and how many faults there were. */
interface Round {
  readonly faults: readonly string[];
}

/** Exits with 1 where a round had faults. */
export async function report<O>(
  options: O,
  run: (options: O, tell: (figures: Round, round: number) => void) => Promise<unknown>,
): Promise<void> {
  console.log(JSON.stringify(options));
  let faults = 0;
  await run(options, (figures, round) => {
    faults += figures.faults.length;
    console.log(`${round + 1}`.padStart(3), JSON.stringify(figures));
  });
  console.log(faults === 0 ? "no faults" : `${faults} faults`);
  process.exitCode = faults === 0 ? 0 : 1;
}
