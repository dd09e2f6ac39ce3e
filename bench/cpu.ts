/** What processes have used of the processor. */
import { readFileSync } from "node:fs";

/** What Linux counts CPU time in. */
const TICKS_PER_SECOND = 100;

/** User and system time of the processes and their threads, in milliseconds. */
export function cpuMs(...pids: readonly number[]): number {
  return pids.reduce((sum, pid) => {
    const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]!.split(" ");
    return sum + ((Number(fields[11]) + Number(fields[12])) * 1_000) / TICKS_PER_SECOND;
  }, 0);
}
