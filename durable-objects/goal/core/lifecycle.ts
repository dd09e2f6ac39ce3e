/**
 * What an end brings about: dependents are released or canceled, parents
 * decided, subtrees taken along, and at last the goal itself. Everything is
 * one worklist, so a deep tree costs no stack.
 */
import {
  CANCELED,
  codeOf,
  DEPENDENCY_FAILED,
  FAILED,
  FOR_AFTER,
  FOR_CHILDREN,
  FOR_FLIGHT,
  isTerminal,
  RUNNING,
  SUCCEEDED,
  WAITING,
} from "./codes.ts";
import type { Rest } from "./change.ts";
import { crewOf } from "./flights.ts";
import { verdictOf } from "./completion.ts";
import type { Place, Recorder } from "./recorder.ts";
import { type GoalState, liveCount, ROOT, totalCount } from "./state.ts";

/** How a task ends: with a result or problem at `place`, or by decision alone. */
export interface End {
  readonly task: number;
  readonly status: number;
  readonly code: number;
  readonly place?: Place | undefined;
  /** The attempt that ended it; left out, or 0, where no attempt did. */
  readonly startedAtMs?: number;
  readonly endedAtMs?: number;
}

/** Ends a task and everything that follows from it. */
export function finish(rec: Recorder, end: End): void {
  endOne(rec, end);
  cascade(rec, [end.task]);
}

function endOne(rec: Recorder, { task, status, code, place, startedAtMs = 0, endedAtMs = 0 }: End): void {
  const { tasks } = rec.state;
  const isCutOff = tasks.status[task] === RUNNING && endedAtMs === 0;
  if (isCutOff) rec.abort(task);
  const resultRow = place?.row ?? 0;
  rec.end({ task, status, code, resultRow, resultIndex: place?.index ?? 0, startedAtMs, endedAtMs });
}

/** Follows the ends in `ended`, and those that they cause, to the last one. */
export function cascade(rec: Recorder, ended: number[]): void {
  for (let at = 0; at < ended.length; at++) {
    const task = ended[at]!;
    freeDependents(rec, task, ended);
    cancelChildren(rec, task, ended);
    const parent = rec.state.tasks.parent[task]!;
    if (parent !== ROOT) decideParent(rec, parent, ended);
  }
}

function freeDependents(rec: Recorder, task: number, ended: number[]): void {
  for (const entry of rec.state.dependents.get(task) ?? []) freeDependent(rec, entry >> 1, ended);
}

/** Releases a task that waited for others, or cancels it where one of them did not succeed. */
export function freeDependent(rec: Recorder, task: number, ended: number[]): void {
  const { tasks } = rec.state;
  if (tasks.status[task] !== WAITING || tasks.reason[task] !== FOR_AFTER) return;
  if ((tasks.flags[task]! & DEPENDENCY_FAILED) !== 0) {
    endOne(rec, { task, status: CANCELED, code: codeOf("dependency_failed") });
    ended.push(task);
  } else if (tasks.unmet[task] === 0) {
    rec.release(task);
    decideParent(rec, task, ended);
  }
}

function cancelChildren(rec: Recorder, parent: number, ended: number[]): void {
  const { state } = rec;
  const family = state.families.get(parent);
  if (family === undefined || liveCount(family.counts) === 0) return;
  for (let child = family.first; child >= 0; child = state.tasks.sibling[child]!) {
    if (isTerminal(state.tasks.status[child]!)) continue;
    endOne(rec, { task: child, status: CANCELED, code: codeOf("parent_failed") });
    ended.push(child);
  }
}

/** Ends a parent whose own work is done, once the rule over its children says how. */
function decideParent(rec: Recorder, parent: number, ended: number[]): void {
  const { state } = rec;
  const { tasks } = state;
  if (tasks.status[parent] !== WAITING || tasks.reason[parent] !== FOR_CHILDREN) return;
  const verdict = parentVerdict(state, parent);
  if (verdict === "open") return;
  const failed = verdict === "failed";
  endOne(rec, { task: parent, status: failed ? FAILED : SUCCEEDED, code: failed ? codeOf("children_failed") : 0 });
  ended.push(parent);
}

/** The task's own work has succeeded, and with it that of all who wait for its result: they made no call. */
export function succeed(rec: Recorder, task: number, place: Place, startedAtMs: number, endedAtMs: number): void {
  const crew = crewOf(rec.state, task);
  succeedOne(rec, task, place, startedAtMs, endedAtMs);
  const { status, reason } = rec.state.tasks;
  // The end of one may take another one along.
  for (const other of crew) if (status[other] === WAITING && reason[other] === FOR_FLIGHT) succeedOne(rec, other, place, 0, 0);
}

/** The task's own work has succeeded: it ends, unless its children have not. */
function succeedOne(rec: Recorder, task: number, place: Place, startedAtMs: number, endedAtMs: number): void {
  const family = rec.state.families.get(task);
  if (family === undefined || family.counts.every((count) => count === 0)) {
    return finish(rec, { task, status: SUCCEEDED, code: 0, place, startedAtMs, endedAtMs });
  }
  const verdict = parentVerdict(rec.state, task);
  if (verdict === "open" && liveCount(family.counts) > 0) return rec.keepWork(task, place, startedAtMs, endedAtMs);
  const failed = verdict === "failed";
  finish(rec, { task, status: failed ? FAILED : SUCCEEDED, code: failed ? codeOf("children_failed") : 0, place, startedAtMs, endedAtMs });
}

/** Ends a parent that has come to wait for children, if they have all ended. */
export function settleParent(rec: Recorder, parent: number): void {
  const ended: number[] = [];
  decideParent(rec, parent, ended);
  cascade(rec, ended);
}

/** What the children say of a parent whose own work has succeeded. A group without any stays open until the goal is sealed. */
export function parentVerdict(state: GoalState, parent: number): "open" | "succeeded" | "failed" {
  const family = state.families.get(parent);
  if (family === undefined || totalCount(family.counts) === 0) return state.goal!.sealed ? "succeeded" : "open";
  return verdictOf(family.rule, family.counts, false);
}

/** After sealing, a group that never got a child has nothing to wait for. Looks at tasks from `first` on. */
export function closeEmptyGroups(rec: Recorder, first = 0): void {
  const { tasks } = rec.state;
  const ended: number[] = [];
  for (let task = first; task < tasks.n; task++) decideParent(rec, task, ended);
  cascade(rec, ended);
}

/** Ends a sealed goal whose rule over its root tasks is decided. */
export function decideGoal(rec: Recorder): void {
  const goal = rec.state.goal;
  if (goal === null || goal.phase !== "active" || !goal.sealed) return;
  const roots = rec.state.families.get(ROOT)!;
  const verdict = verdictOf(goal.spec.completion, roots.counts, true);
  if (verdict !== "open") stopGoal(rec, verdict, "canceled");
}

/** Ends the goal with all that has not ended, and aborts what runs. */
export function stopGoal(rec: Recorder, phase: "succeeded" | "failed" | "canceled" | "expired", rest: Rest): void {
  const { tasks, batches } = rec.state;
  for (let task = 0; batches.size > 0 && task < tasks.n; task++) {
    if (tasks.status[task] === RUNNING) rec.abort(task);
  }
  rec.endGoal(phase, rest);
}
