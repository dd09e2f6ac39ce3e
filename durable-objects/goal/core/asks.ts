/** What running functions ask of their goal, each for its own task. Only the current attempt is heard. */
import { type Failure, failure } from "../../../shared/errors.ts";
import { taskIdOf } from "../../../shared/ids.ts";
import { err, type Result } from "../../../shared/result.ts";
import type { Bearer } from "../../../shared/token/claims.ts";
import { addChildren } from "./claims.ts";
import { RUN, RUNNING } from "./codes.ts";
import type { Recorder } from "./recorder.ts";
import type { GoalState } from "./state.ts";
import type { Receipts, Submit } from "./submit.ts";

export interface SpawnRuns {
  readonly kind: "spawn";
  readonly asks: readonly {
    readonly task: number;
    readonly attempt: number;
    /** Its children's places among the specs: from the first on, up to the second. */
    readonly range: readonly [number, number];
  }[];
  /** The children of all asks. */
  readonly spawn: Pick<Submit, "specs" | "failures" | "contentKeys">;
}

export type Spawned = Result<Receipts, Failure>;

/** Why the attempt is not heard; null where it is the one that runs. */
export function staleness({ goal, tasks }: GoalState, task: number, attempt: number): Failure | null {
  const isRun = goal !== null && task < tasks.n && (tasks.flags[task]! & RUN) !== 0;
  if (!isRun) return failure("stale_attempt", "there is no such run in this goal");
  if (tasks.status[task] === RUNNING && tasks.attempt[task] === attempt) return null;
  const taskId = taskIdOf(goal.id, task);
  return failure("stale_attempt", `attempt ${attempt} of the task has ended, and nobody waits for what it asks`, { taskId });
}

/** Adds children, ask by ask: those of one all or none. One that is there already is joined, so a run that is repeated doubles nothing. */
export function spawnRuns(rec: Recorder, { asks, spawn }: SpawnRuns, bearer: Bearer): Spawned[] {
  const offer = rec.state.nextOffer;
  return asks.map(({ task, attempt, range }) => {
    const stale = staleness(rec.state, task, attempt);
    return stale === null ? addChildren(rec, task, range, spawn, offer, bearer) : err(stale);
  });
}
