/** Goals as the benchmarks use them: a body of 260 bytes a task, and the calls to the API. */
import type { Drover } from "../client/cli/server/child.ts";
import type { Stage } from "./stage.ts";

export interface GoalView {
  readonly id: string;
  readonly status: string;
  readonly counts: Readonly<Record<string, number>>;
  readonly latency: Readonly<Record<string, number | null>>;
  readonly storage: { readonly rowsWritten: number };
}

export async function api<T>(drover: Drover, method: string, path: string, body?: string): Promise<T> {
  const headers = { authorization: `Bearer ${drover.token}`, "content-type": "application/json" };
  const response = await fetch(drover.url + path, { method, headers, ...(body === undefined ? {} : { body }) });
  const text = await response.text();
  if (!response.ok) throw new Error(`${method} ${path} answered ${response.status}: ${text.slice(0, 400)}`);
  return JSON.parse(text) as T;
}

/** `{"tasks": […]}`, one task a path; `round` keeps the keys of rounds apart. */
export function bodyOf(paths: readonly string[], round: string): string {
  const tasks = paths.map((path, n) => ({
    key: `${round}/page-${n}`,
    call: { upstream: "bench", method: "GET", path },
    labels: {
      team: "research",
      kind: "page",
      batch: `b${n % 50}`,
      shard: `s${n % 7}`,
      note: "as long as labels are in real life, more or less",
    },
    priority: "normal",
  }));
  return JSON.stringify({ tasks });
}

/** Points the upstream `bench` at the stage's. */
export async function putUpstream(stage: Stage, fields: object = {}): Promise<void> {
  await api(stage.drover(), "PUT", "/v1/upstreams/bench", JSON.stringify({ origin: stage.upstream, ...fields }));
}

export const newGoal = (drover: Drover, fields: object = {}): Promise<GoalView> =>
  api<GoalView>(drover, "POST", "/v1/goals", JSON.stringify(fields));

export const viewGoal = (drover: Drover, id: string): Promise<GoalView> => api<GoalView>(drover, "GET", `/v1/goals/${id}`);

/** Waits for the end of a sealed goal, with one request and nothing sent meanwhile. */
async function untilEnded(drover: Drover, id: string, count: number): Promise<void> {
  const headers = { authorization: `Bearer ${drover.token}` };
  const response = await fetch(`${drover.url}/v1/goals/${id}/results?follow=true&cursor=${count - 1}`, { headers });
  await response.text();
}

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
