/**
 * What the goal's tests share: the API in process, and a laboratory where a
 * real goal on real storage meets an executor, a tenant and a governor of the
 * test's own.
 */
import { runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { inject } from "vitest";
import { Goal } from "../../durable-objects/goal/object.ts";
import { type GoalId, goalIdFrom } from "../../shared/ids.ts";
import { LANES_DEFAULT, LEASE_TTL_MS_MAX } from "../../shared/limits.ts";
import type { Grant } from "../../shared/protocol/admission.ts";
import type { GoalView } from "../../shared/protocol/goal.ts";
import { formatLine, type Outcome } from "../../shared/protocol/line.ts";
import type { Upstream } from "../../shared/protocol/upstream.ts";
import type { GovernorRpc, Registry, TenantRpc } from "../../shared/rpc.ts";
import type { Batch, BatchReply } from "../../shared/rpc-batch.ts";
import type { RunBatch } from "../../shared/rpc-functions.ts";
import { call, put } from "./edge-kit.ts";

export const delay = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

export interface TaskView {
  readonly id: string;
  readonly key?: string;
  readonly status: string;
  readonly reason?: string;
  readonly attempt: number;
  readonly problem?: { readonly code: string };
  readonly result?: { readonly status: number; readonly body: unknown };
}

export interface Page {
  readonly items: readonly TaskView[];
  readonly nextCursor: string | null;
}

const JSON_HEADERS = { "content-type": "application/json" };

export const post = (path: string, value: unknown = {}, headers: Record<string, string> = {}): Promise<Response> =>
  call("POST", path, { body: JSON.stringify(value), headers: { ...JSON_HEADERS, ...headers } });

/** The JSON of an answer that must be good. */
export async function good<T>(answer: Promise<Response>): Promise<T> {
  const response = await answer;
  if (!response.ok) throw new Error(`answered with ${response.status}: ${await response.text()}`);
  return response.json();
}

export const get = <T>(path: string, headers: Record<string, string> = {}): Promise<T> => good(call("GET", path, { headers }));
/** The text of a stream that ends. */
export async function textOf(path: string): Promise<string> {
  return new TextDecoder().decode(await (await call("GET", path)).arrayBuffer());
}

export const goalOf = (id: string): Promise<GoalView> => get(`/v1/goals/${id}`);

/** Registers the test upstream under `name`. */
export async function register(name: string, settings: object = {}): Promise<void> {
  const answer = await put(`/v1/upstreams/${name}`, { origin: inject("upstreamUrl"), ...settings });
  if (!answer.ok) throw new Error(await answer.text());
}

export async function tasksOf(id: string, query = ""): Promise<TaskView[]> {
  const tasks: TaskView[] = [];
  for (let cursor: string | null = ""; cursor !== null;) {
    const page: Page = await get(`/v1/goals/${id}/tasks?limit=1000&cursor=${cursor}${query}`);
    tasks.push(...page.items);
    cursor = page.nextCursor;
  }
  return tasks;
}

export async function until(what: string, condition: () => Promise<boolean> | boolean, withinMs = 15_000): Promise<void> {
  const deadline = Date.now() + withinMs;
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error(`waited ${withinMs} ms in vain until ${what}`);
    await delay(10);
  }
}

export function newGoalId(): GoalId {
  return goalIdFrom(Date.now(), crypto.getRandomValues(new Uint8Array(16)));
}

export function goalStub(id: string): DurableObjectStub<Goal> {
  return env.GOAL.get(env.GOAL.idFromName(id));
}

// The laboratory.

export type Run = (batch: Batch) => Promise<BatchReply>;

export interface Laboratory {
  readonly run: Run;
  readonly runFunctions?: (batch: RunBatch) => Promise<BatchReply>;
  readonly tenant?: Partial<TenantRpc>;
  readonly governor?: Partial<GovernorRpc>;
}

const UPSTREAM: Upstream = {
  name: "real",
  origins: ["http://upstream.test"],
  maxConcurrency: 12,
  ratePerSecond: null,
  tokensPerMinute: null,
  reserve: { tokens: 0 },
  usage: { tokens: null },
  timeoutMs: 10_000,
  idempotency: "none",
  retry: { maxAttempts: 5 },
  headers: {},
};
export const REGISTRY: Registry = { version: 1, upstreams: [UPSTREAM] };

const quietTenant = { registry: async () => REGISTRY, report: async () => null, forget: async () => undefined } as const;

/** Grants to whoever has work all that the upstream declares, as if there were nobody else. */
export function generous(over: Partial<Grant> = {}): GovernorRpc["exchange"] {
  let number = 0;
  return async ({ seq, wants, upstream: { maxConcurrency } }) => ({
    epoch: 1,
    number: ++number,
    seq,
    calls: wants.every((count) => count === 0) ? 0 : (maxConcurrency ?? LANES_DEFAULT),
    starts: null,
    ttlMs: LEASE_TTL_MS_MAX,
    gateMs: 0,
    isOpen: false,
    origins: null,
    callsPerSecond: 0,
    ...over,
  });
}

const namespaceOf = (object: unknown): unknown => ({ idFromName: (name: string) => name, get: () => object });

/** Gives `work` a real goal whose executor, tenant and governor are the test's. */
export async function inLaboratory<T>(
  laboratory: Laboratory,
  work: (goal: Goal, id: GoalId, ctx: DurableObjectState) => Promise<T>,
): Promise<T> {
  const id = newGoalId();
  const tenant = { ...quietTenant, ...laboratory.tenant };
  return runInDurableObject(goalStub(id), (_object: Goal, ctx: DurableObjectState) => {
    const bindings = {
      ...env,
      EXECUTOR_TRANSPORT: "pool",
      EXECUTOR_POOL: namespaceOf({ run: laboratory.run, runFunctions: laboratory.runFunctions, warm: async () => undefined }),
      TENANT: namespaceOf(tenant),
      GOVERNOR: namespaceOf({ exchange: generous(), outlook: async () => 0, ...laboratory.governor }),
    };
    return work(new Goal(ctx, bindings as unknown as Env), id, ctx);
  });
}

export async function create(goal: Goal, goalId: GoalId, tasks: readonly object[], sealed = false, retentionMs = 60_000): Promise<void> {
  const spec = { name: "", labels: {}, deadlineMs: null, retentionMs, completion: {}, sealed, weight: 1 };
  const made = await goal.create({ goalId, spec, tasksJson: JSON.stringify(tasks) });
  if (!made.ok) throw new Error(made.error.detail);
}

export async function viewOf(goal: Goal): Promise<GoalView> {
  const view = await goal.view();
  if (!view.ok) throw new Error(view.error.detail);
  return view.value;
}

/** The line that an executor writes when the upstream answered a task with 200. */
export function answered(batch: Batch, place: number, outcome: Outcome = "answered"): string {
  const { task, attempt } = batch.items[place]!;
  const at = Date.now();
  const payload = outcome === "answered" ? '{"status":200,"body":null}' : '{"code":"upstream_error","detail":"it broke"}';
  return formatLine({ task, attempt, outcome, status: 200, retryAfterMs: 0, startedAtMs: at, endedAtMs: at }, payload);
}

export const allAnswered = (batch: Batch): string => batch.items.map((_, place) => answered(batch, place)).join("");

/** An error with the marks that the runtime puts on it. */
export function marked(message: string, marks: { overloaded?: true; retryable?: true; durableObjectReset?: true }): Error {
  return Object.assign(new Error(message), marks);
}
