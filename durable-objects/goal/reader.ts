/** Reads tasks with their results, in pages. Rows that were read last are kept split, because neighbours share them. */
import { taskIdOf } from "../../shared/ids.ts";
import type { TaskSpec } from "../../shared/protocol/task.ts";
import type { TaskQuery } from "../../shared/rpc.ts";
import { type Failure, failure } from "../../shared/errors.ts";
import { err, ok, type Result } from "../../shared/result.ts";
import { resolve } from "./core/add.ts";
import { STATUS_WORDS } from "./core/codes.ts";
import { type GoalState, ROOT } from "./core/state.ts";
import type { GoalStore } from "./store.ts";
import { countsOf, taskJson } from "./views.ts";
import { TREE_NODES_MAX } from "../../shared/limits.ts";

const ROWS_KEPT = 4;
/** A page ends early at this size, so that large results never gather in memory. */
const PAGE_CHARS_MAX = 4_000_000;

export class TaskReader {
  readonly #store: GoalStore;
  readonly #rows = new Map<number, readonly string[]>();

  constructor(store: GoalStore) {
    this.#store = store;
  }

  /** The task as JSON, with its result. */
  json(state: GoalState, task: number): string {
    return taskJson(state, task, this.#line(state, task));
  }

  #line(state: GoalState, task: number): string | null {
    const row = state.tasks.resultRow[task]!;
    if (row === 0) return null;
    const index = state.tasks.resultIndex[task]!;
    return this.#store.whole(this.#lines(row)[index]!, row, index);
  }

  #lines(row: number): readonly string[] {
    const kept = this.#rows.get(row);
    if (kept !== undefined) return kept;
    const lines = this.#store.lines(row);
    this.#rows.set(row, lines);
    if (this.#rows.size > ROWS_KEPT) this.#rows.delete(this.#rows.keys().next().value!);
    return lines;
  }

  /** A page of tasks in the order of their numbers: `{items, nextCursor}`. */
  page(state: GoalState, query: TaskQuery): Result<string, Failure> {
    const start = query.cursor === undefined ? 0 : parseCursor(query.cursor);
    if (start === null) return err(badCursor());
    const parent = query.parentTaskId === undefined ? null : resolve(state, query.parentTaskId);
    if (parent === -1) return err(failure("not_found", `there is no task "${query.parentTaskId}" in this goal`));
    const items: string[] = [];
    let chars = 0;
    let task = start;
    const labelsOf = this.#labels();
    for (; task < state.tasks.n && items.length < query.limit && chars < PAGE_CHARS_MAX; task++) {
      if (!matches(state, task, query, parent, labelsOf)) continue;
      const json = this.json(state, task);
      chars += json.length;
      items.push(json);
    }
    const nextCursor = task < state.tasks.n ? `"${task}"` : "null";
    return ok(`{"items":[${items.join(",")}],"nextCursor":${nextCursor}}`);
  }

  /** Looks labels up, and reads each offer once while it does. */
  #labels(): LabelsOf {
    const offers = new Map<number, readonly unknown[]>();
    return ({ tasks }, task) => {
      const offer = tasks.offer[task]!;
      const specs = offers.get(offer) ?? this.#store.specs(offer);
      offers.clear();
      offers.set(offer, specs);
      return (specs[tasks.position[task]!] as TaskSpec).labels;
    };
  }

  /** Tasks that have ended, as NDJSON in the order of their ends, from `cursor` on: at most `limit`, and no more once there are `charsMax` characters. */
  ended(state: GoalState, cursor: number, limit: number, charsMax: number): { text: string; next: number } {
    let text = "";
    let next = cursor;
    for (; next < state.ended.length && next - cursor < limit && text.length < charsMax; next++) {
      text += `${this.json(state, state.ended[next]!)}\n`;
    }
    return { text, next };
  }
}

type LabelsOf = (state: GoalState, task: number) => TaskSpec["labels"];

function matches(state: GoalState, task: number, { status, label }: TaskQuery, parent: number | null, labelsOf: LabelsOf): boolean {
  if (status !== undefined && STATUS_WORDS[state.tasks.status[task]!] !== status) return false;
  if (parent !== null && state.tasks.parent[task] !== parent) return false;
  if (label === undefined) return true;
  const [name, value] = splitLabel(label);
  const found = labelsOf(state, task)?.[name];
  return found !== undefined && (value === undefined || found === value);
}

function splitLabel(label: string): [string, string | undefined] {
  const at = label.indexOf("=");
  return at < 0 ? [label, undefined] : [label.slice(0, at), label.slice(at + 1)];
}

export function parseCursor(cursor: string): number | null {
  return /^[0-9]{1,9}$/.test(cursor) ? Number(cursor) : null;
}

export const badCursor = (): Failure => failure("invalid_request", "the cursor is not one that Drover gave out");

/** The tree below a task, or of the whole goal, as nested nodes: at most `TREE_NODES_MAX` of them. */
export function treeJson(state: GoalState, root: string | undefined, depth: number): Result<string, Failure> {
  const top = root === undefined ? ROOT : resolve(state, root);
  if (root !== undefined && top < 0) return err(failure("not_found", `there is no task "${root}" in this goal`));
  let left = TREE_NODES_MAX;
  const node = (task: number, levels: number): unknown => {
    left--;
    const family = state.families.get(task);
    const { status, parent } = state.tasks;
    const own =
      task === ROOT
        ? { goalId: state.goal!.id }
        : { taskId: taskIdOf(state.goal!.id, task), key: state.names[task], status: STATUS_WORDS[status[task]!] };
    if (family === undefined) return own;
    const children: unknown[] = [];
    const members = task === ROOT ? rootsOf(state) : childrenOf(state, family.first);
    for (const child of members) {
      if (levels <= 0 || left <= 0) break;
      // Only tasks with children are worth a node of their own; the others are in the counts.
      if (state.families.has(child) && parent[child] === task) children.push(node(child, levels - 1));
    }
    return { ...own, counts: countsOf(family.counts), children };
  };
  return ok(JSON.stringify({ ...(node(top, depth) as object), truncated: left <= 0 }));
}

function* rootsOf(state: GoalState): Iterable<number> {
  for (let task = 0; task < state.tasks.n; task++) if (state.tasks.parent[task] === ROOT) yield task;
}

function* childrenOf(state: GoalState, first: number): Iterable<number> {
  for (let task = first; task >= 0; task = state.tasks.sibling[task]!) yield task;
}
