/** Goals as the benchmarks use them: a body of 260 bytes a task, and the calls to the API. */
import type { Drover } from "../client/cli/server/child.ts";
import type { Stage } from "./stage.ts";

/** Calls that came to the upstream since this was asked last. */
export const callsAt = async (stage: Stage): Promise<number> =>
  ((await (await fetch(`${stage.upstream}/stats`)).json()) as { calls: number }).calls;

export interface GoalView {
  readonly id: string;
  readonly status: string;
  readonly counts: Readonly<Record<string, number>>;
  readonly latency: Readonly<Record<string, number | null>>;
  readonly storage: { readonly rowsWritten: number };
}

export async function api<T>(drover: Drover, method: string, path: string, body?: string, type = "application/json"): Promise<T> {
  const headers = { authorization: `Bearer ${drover.token}`, "content-type": type };
  const response = await fetch(drover.url + path, { method, headers, ...(body === undefined ? {} : { body }) });
  const text = await response.text();
  if (!response.ok) throw new Error(`${method} ${path} answered ${response.status}: ${text.slice(0, 400)}`);
  return JSON.parse(text) as T;
}

/** One task a path; `round` keeps the keys of rounds apart. */
export function tasksOf(paths: readonly string[], round: string, upstream = "bench"): object[] {
  return paths.map((path, n) => ({
    key: `${round}/page-${n}`,
    call: { upstream, method: "GET", path },
    labels: {
      team: "research",
      kind: "page",
      batch: `b${n % 50}`,
      shard: `s${n % 7}`,
      note: "as long as labels are in real life, more or less",
    },
    priority: "normal",
  }));
}

/** `{"tasks": […]}`. */
export const bodyOf = (paths: readonly string[], round: string, upstream = "bench"): string =>
  JSON.stringify({ tasks: tasksOf(paths, round, upstream) });

/** Points the upstream `bench` at the stage's. */
export async function putUpstream(stage: Stage, fields: object = {}): Promise<void> {
  await api(stage.drover(), "PUT", "/v1/upstreams/bench", JSON.stringify({ origin: stage.upstream, ...fields }));
}

export const newGoal = (drover: Drover, fields: object = {}): Promise<GoalView> =>
  api<GoalView>(drover, "POST", "/v1/goals", JSON.stringify(fields));

export const viewGoal = (drover: Drover, id: string): Promise<GoalView> => api<GoalView>(drover, "GET", `/v1/goals/${id}`);

/** Waits for the end of a sealed goal, with one request and nothing sent meanwhile. */
export async function untilEnded(drover: Drover, id: string, count: number): Promise<void> {
  const headers = { authorization: `Bearer ${drover.token}` };
  const response = await fetch(`${drover.url}/v1/goals/${id}/results?follow=true&cursor=${count - 1}`, { headers });
  await response.text();
}

export interface TaskView {
  readonly key?: string;
  readonly result?: { readonly body: unknown };
  readonly status: string;
  readonly attempt: number;
  readonly attempts: readonly { readonly outcome: string }[];
  readonly startedAt?: string;
  readonly endedAt?: string;
  readonly problem?: unknown;
}

/** Every task of a goal, in the order of submission. */
export async function viewTasks(drover: Drover, id: string): Promise<TaskView[]> {
  const all: TaskView[] = [];
  let cursor: string | null = "";
  while (cursor !== null) {
    const at: string = cursor === "" ? "" : `&cursor=${encodeURIComponent(cursor)}`;
    const page: { items: TaskView[]; nextCursor: string | null } = await api(drover, "GET", `/v1/goals/${id}/tasks?limit=1000${at}`);
    all.push(...page.items);
    cursor = page.nextCursor;
  }
  return all;
}

export interface LiveView {
  readonly limit: number | null;
  readonly messages: number;
  readonly calls: number;
  readonly circuit: string;
}

/** The state of an upstream's governor. */
export const viewLive = async (drover: Drover, name: string): Promise<LiveView> =>
  (await api<{ live: LiveView }>(drover, "GET", `/v1/upstreams/${name}`)).live;

/** Declares an upstream. A name that was never used has a governor that knows nothing yet. */
export const declare = (drover: Drover, name: string, fields: object): Promise<unknown> =>
  api(drover, "PUT", `/v1/upstreams/${name}`, JSON.stringify(fields));

/** A goal with all its tasks, in one request. */
export const submitGoal = (drover: Drover, upstream: string, paths: readonly string[], fields: object = {}): Promise<GoalView> =>
  newGoal(drover, { sealed: true, ...fields, tasks: tasksOf(paths, "only", upstream) });

export interface GoalRun {
  readonly ackMs: number;
  readonly doneMs: number;
  /** On the clock that the upstream shares. */
  readonly endedAtMs: number;
  readonly goal: GoalView;
}

/** Submits, seals, and waits for the end. Times are from the start of the submission, in milliseconds. */
export async function runGoal(drover: Drover, paths: readonly string[], round: string): Promise<GoalRun> {
  const { id } = await newGoal(drover);
  const body = bodyOf(paths, round);
  const startedAtMs = Date.now();
  const startedAt = performance.now();
  await api(drover, "POST", `/v1/goals/${id}/tasks`, body);
  const ackMs = performance.now() - startedAt;
  const ended = untilEnded(drover, id, paths.length);
  await api(drover, "POST", `/v1/goals/${id}/seal`);
  await ended;
  const doneMs = performance.now() - startedAt;
  const goal = await viewGoal(drover, id);
  if (goal.status !== "succeeded" || goal.counts["succeeded"] !== paths.length)
    throw new Error(`the goal went wrong: ${JSON.stringify(goal)}`);
  return { ackMs, doneMs, endedAtMs: startedAtMs + doneMs, goal };
}
