/**
 * Checks the names in one request before any of its tasks exists: parents and
 * dependencies may be tasks of the goal or of the same request, in any order.
 * A name that means nothing, a parent that has ended, a tree too deep, or a
 * circle of waiting rejects the task, and every task that relied on it.
 */
import type { Failure, Fault } from "../../../shared/errors.ts";
import { failure } from "../../../shared/errors.ts";
import { DEPTH_MAX } from "../../../shared/limits.ts";
import type { Bound, Rules } from "../../../shared/policy/rules.ts";
import type { TaskSpec } from "../../../shared/protocol/task.ts";
import { resolve } from "./add.ts";
import { isTerminal } from "./codes.ts";
import type { KeyIndex } from "./key-index.ts";
import { permissionDenied } from "./rights.ts";
import { type GoalState, ROOT, totalCount } from "./state.ts";

/** The specs of a request and what is decided of each so far. */
export interface Draft {
  readonly specs: readonly (TaskSpec | null)[];
  /** Places that are rejected, with the reason. */
  readonly rejected: Map<number, Failure>;
  /** Key to the place that brings it, for keys new to the goal. */
  readonly places: KeyIndex;
  /** Places that join a task: one of the goal (its number) or an earlier one of the request (its key). */
  readonly joins: ReadonlyMap<number, number | string>;
  /** Places of tasks whose work is a goal of its own. */
  readonly nested: readonly number[];
  /** Places of new tasks that name other tasks. */
  readonly linked: readonly number[];
  /** Places of tasks that need approval. */
  readonly approvals: readonly number[];
}

/** A node that something waits for: a place of the request, or (negative) an existing task. */
const existing = (task: number): number => -1 - task;

/** `base`: levels of tasks above the goal's own. */
export function checkLinks(state: GoalState, draft: Draft, rules: Rules | null, base: number): void {
  const { linked } = draft;
  if (linked.length === 0) return;
  for (const place of linked) checkNames(state, draft, place);
  spread(draft, linked);
  rejectCircles(state, draft, linked);
  // A circle of parents has no depth: it must be gone, with all below it, before depths are counted.
  spread(draft, linked);
  rejectDeep(state, draft, linked, base, rules?.depth ?? null);
  if (rules !== null && rules.children !== null) rejectCrowded(state, draft, linked, rules.children);
  spread(draft, linked);
}

function nodeOf(state: GoalState, draft: Draft, name: string): number | null {
  const place = draft.places.get(name);
  if (place !== undefined) return place;
  const task = resolve(state, name);
  return task >= 0 ? existing(task) : null;
}

function* namesOf(spec: TaskSpec): Iterable<{ name: string; pointer: string }> {
  if (spec.parentTaskId !== undefined) yield { name: spec.parentTaskId, pointer: "/parentTaskId" };
  for (const [i, name] of (spec.after ?? []).entries()) yield { name, pointer: `/after/${i}` };
  for (const [i, name] of (spec.afterEnd ?? []).entries()) yield { name, pointer: `/afterEnd/${i}` };
}

function reject(draft: Draft, place: number, detail: string, errors: Fault[]): void {
  draft.rejected.set(place, failure("invalid_request", detail, { errors }));
}

function checkNames(state: GoalState, draft: Draft, place: number): void {
  const spec = draft.specs[place]!;
  const faults: Fault[] = [];
  for (const { name, pointer } of namesOf(spec)) {
    const node = nodeOf(state, draft, name);
    if (node === null) faults.push({ pointer, detail: `there is no task "${name}" in this goal or this request` });
    else if (node === place) faults.push({ pointer, detail: "a task cannot wait for itself" });
    else if (pointer === "/parentTaskId" && node < 0 && isTerminal(state.tasks.status[-1 - node]!)) {
      faults.push({ pointer, detail: `the parent "${name}" has ended and takes no more children` });
    }
  }
  if (faults.length > 0) reject(draft, place, faults[0]!.detail, faults);
}

/** Rejects what relies on something rejected, and what relies on that. */
function spread(draft: Draft, linked: readonly number[]): void {
  if (draft.rejected.size === 0) return;
  const relying = new Map<number, { place: number; name: string; pointer: string }[]>();
  for (const place of linked) {
    for (const { name, pointer } of namesOf(draft.specs[place]!)) {
      const other = draft.places.get(name);
      if (other === undefined) continue;
      const list = relying.get(other);
      if (list === undefined) relying.set(other, [{ place, name, pointer }]);
      else list.push({ place, name, pointer });
    }
  }
  const work = [...draft.rejected.keys()];
  for (let at = 0; at < work.length; at++) {
    for (const { place, name, pointer } of relying.get(work[at]!) ?? []) {
      if (draft.rejected.has(place)) continue;
      const detail = `the task "${name}" of this request was rejected`;
      reject(draft, place, detail, [{ pointer, detail }]);
      work.push(place);
    }
  }
}

/** Kahn's algorithm over "cannot end before": what never gets free is in a circle, or behind one. */
function rejectCircles(state: GoalState, draft: Draft, linked: readonly number[]): void {
  const waits = new Map<number, number>();
  const followers = new Map<number, number[]>();
  const edge = (waiter: number, other: number): void => {
    waits.set(waiter, (waits.get(waiter) ?? 0) + 1);
    const list = followers.get(other);
    if (list === undefined) followers.set(other, [waiter]);
    else list.push(waiter);
  };
  const parents = new Set<number>();
  const live = linked.filter((place) => !draft.rejected.has(place));
  for (const place of live) {
    const spec = draft.specs[place]!;
    for (const { name, pointer } of namesOf(spec)) {
      const node = nodeOf(state, draft, name)!;
      if (pointer === "/parentTaskId") {
        edge(node, place);
        if (node < 0) parents.add(-1 - node);
      } else edge(place, node);
    }
  }
  // An existing task that waits for an existing parent closes a circle too.
  for (const parent of parents) {
    for (const waiter of waitersOf(state, parent)) if (followers.has(existing(waiter))) edge(existing(waiter), existing(parent));
  }
  const free = [...followers.keys()].filter((node) => !waits.has(node));
  for (let at = 0; at < free.length; at++) {
    for (const waiter of followers.get(free[at]!) ?? []) {
      const left = waits.get(waiter)! - 1;
      if (left === 0) {
        waits.delete(waiter);
        free.push(waiter);
      } else waits.set(waiter, left);
    }
  }
  const detail = "the task waits, through its parent or its dependencies, for itself";
  for (const place of live) if (waits.has(place)) reject(draft, place, detail, [{ pointer: "", detail }]);
}

/** Every existing task that cannot end before `task` does. */
function waitersOf(state: GoalState, task: number): Set<number> {
  const found = new Set<number>();
  const work = [task];
  for (let at = 0; at < work.length; at++) {
    const parent = state.tasks.parent[work[at]!]!;
    const next = (state.dependents.get(work[at]!) ?? []).map((entry) => entry >> 1);
    if (parent !== ROOT) next.push(parent);
    for (const waiter of next) {
      // What has ended waits for nothing.
      if (found.has(waiter) || isTerminal(state.tasks.status[waiter]!)) continue;
      found.add(waiter);
      work.push(waiter);
    }
  }
  return found;
}

/** Levels of tasks of this goal above a task of the request. Names that mean nothing, and circles, are somebody else's fault. */
export function depthOf(state: GoalState, draft: Draft, place: number): number {
  let depth = 0;
  for (let at: number = place; at >= 0 && depth <= DEPTH_MAX;) {
    const name = draft.specs[at]?.parentTaskId;
    const node = name === undefined ? null : nodeOf(state, draft, name);
    if (node === null) break;
    depth += node < 0 ? state.tasks.depth[-1 - node]! + 1 : 1;
    at = node;
  }
  return depth;
}

function rejectDeep(state: GoalState, draft: Draft, linked: readonly number[], base: number, bound: Bound | null): void {
  for (const place of linked) {
    if (draft.rejected.has(place)) continue;
    const depth = depthOf(state, draft, place);
    if (base + depth > DEPTH_MAX) {
      const detail = `the task would be more than ${DEPTH_MAX} levels deep`;
      reject(draft, place, detail, [{ pointer: "/parentTaskId", detail }]);
    } else if (bound !== null && depth > bound.max) {
      const detail = `${bound.from} does not allow tasks more than ${bound.max} levels deep (rule "maxDepth")`;
      draft.rejected.set(place, permissionDenied(detail, "/parentTaskId"));
    }
  }
}

/** Rejects the children that a parent would have more than the policy allows, the last ones first. */
function rejectCrowded(state: GoalState, draft: Draft, linked: readonly number[], { max, from }: Bound): void {
  const children = new Map<number, number>();
  for (const place of linked) {
    const name = draft.specs[place]!.parentTaskId;
    if (name === undefined || draft.rejected.has(place)) continue;
    const parent = nodeOf(state, draft, name)!;
    const there = children.get(parent) ?? (parent < 0 ? totalCount(state.families.get(-1 - parent)?.counts ?? []) : 0);
    children.set(parent, there + 1);
    if (there < max) continue;
    const detail = `${from} does not allow more than ${max} children of a task (rule "maxChildrenPerTask")`;
    draft.rejected.set(place, permissionDenied(detail, "/parentTaskId"));
  }
}
