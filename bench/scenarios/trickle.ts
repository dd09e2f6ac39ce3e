/** `trickle`: results that come a few at a time. What counts is how many rows they cost. */
import { putUpstream, runGoal } from "../goals.ts";
import { type Figure, figure } from "../report.ts";
import { directoryRows } from "../rows.ts";
import type { Stage } from "../stage.ts";
import { pathsOf } from "../workload.ts";

const RATE_PER_SECOND = 50;

/** 1,500 rows in 100 s. A goal may begin with a burst of commits, however long it lasts. */
const boundOf = (seconds: number): number => 100 + seconds * 14;

/** 5,000 results over 100 s; a fifth of both where there is no time. */
export function trickleOf(seconds: number): (stage: Stage) => Promise<Figure[]> {
  return async (stage) => {
    const drover = stage.drover();
    await putUpstream(stage, { ratePerSecond: RATE_PER_SECOND });
    const { doneMs, goal } = await runGoal(drover, pathsOf(seconds * RATE_PER_SECOND, 0), `trickle-${seconds}`);
    return [
      figure("trickle", `${seconds * RATE_PER_SECOND} results at ${RATE_PER_SECOND} a second: done`, "s", [doneMs / 1_000]),
      figure(
        "trickle",
        "rows written in all objects, alarms included",
        "rows",
        [goal.storage.rowsWritten + directoryRows(doneMs)],
        boundOf(seconds),
      ),
      figure("trickle", "rows that another SQLite finds in the files", "rows", [await stage.rowsOnDisk()]),
    ];
  };
}
