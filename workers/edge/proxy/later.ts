/**
 * `Prefer: respond-async` (RFC 7240 §4.1): a call that cannot run in time
 * becomes a task, which its caller asks for later. Calls made for no goal
 * belong to a standing goal of their caller, a new one every hour.
 */
import { type GoalId, goalIdFrom } from "../../../shared/ids.ts";
import { HEADER_CHARS_MAX, HEADERS_MAX, RETENTION_MS_DEFAULT } from "../../../shared/limits.ts";
import { HEADER_VALUE, METHODS, RESERVED_HEADER, type Reserve } from "../../../shared/protocol/task.ts";
import type { GoalRpc } from "../../../shared/rpc.ts";
import type { Bearer } from "../../../shared/token/claims.ts";
import { base64Of } from "../../kit/base64.ts";
import { json, problem } from "../reply.ts";
import { requestHeaders } from "./headers.ts";

const HOUR_MS = 3_600_000;
const CHANCE_BYTES = 16;

export interface LaterCall {
  readonly upstream: string;
  readonly method: string;
  readonly path: string;
  readonly headers: Headers;
  readonly body: Uint8Array;
  /** The caller's idempotency key: the task joins the one that has it. */
  readonly key: string | undefined;
  readonly reserve: Reserve | undefined;
}

/** Whether tasks can be made of calls with this method. */
export function canWait(method: string): boolean {
  return (METHODS as readonly string[]).includes(method);
}

/** The same id for every call of a subject within the hour. */
export async function standingGoalId(subject: string, nowMs: number): Promise<GoalId> {
  const hourMs = nowMs - (nowMs % HOUR_MS);
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(`standing goal of ${subject} at ${hourMs}`));
  return goalIdFrom(hourMs, new Uint8Array(digest).subarray(0, CHANCE_BYTES));
}

/** Makes the standing goal, or finds it made. */
export async function makeStanding(goal: GoalRpc, goalId: GoalId, subject: string): Promise<Response | null> {
  const name = `calls passed through for ${subject}`;
  const spec = { name, labels: {}, deadlineMs: null, retentionMs: RETENTION_MS_DEFAULT, completion: {}, sealed: false, weight: 1 };
  const made = await goal.create({ goalId, spec, tasksJson: "" });
  return made.ok ? null : problem(made.error);
}

/** The headers that a task can carry; the others are the connection's or Drover's. */
function taskHeaders(from: Headers): Record<string, string> {
  const all = [...requestHeaders(from, {})].filter(([name, value]) => {
    return !RESERVED_HEADER.test(name) && value.length <= HEADER_CHARS_MAX && HEADER_VALUE.test(value);
  });
  return Object.fromEntries(all.slice(0, HEADERS_MAX));
}

interface Accepted {
  readonly receipts: readonly [
    { readonly taskId: string; readonly status: string; readonly position?: number; readonly estimatedStartMs?: number },
  ];
}

/** Makes the call a task of the goal: 202 once that is durable. */
export async function queueCall(goal: GoalRpc, goalId: string, call: LaterCall, bearer: Bearer | undefined): Promise<Response> {
  const { upstream, method, path, headers, body, key, reserve } = call;
  const sent = body.byteLength === 0 ? {} : { bodyBase64: base64Of(body) };
  const own = { ...(key !== undefined && { key }), ...(reserve !== undefined && { reserve }) };
  const task = { ...own, call: { upstream, method, path, headers: taskHeaders(headers), ...sent } };
  const bytes = new TextEncoder().encode(JSON.stringify({ tasks: [task] }));
  const reply = await goal.submit({ body: bytes, format: "json", allReceipts: true, atomic: true, bearer });
  if (!reply.ok) return problem(reply.error);
  const [{ taskId, status, position = 0, estimatedStartMs = 0 }] = (JSON.parse(reply.value.json) as Accepted).receipts;
  const seconds = String(Math.max(1, Math.ceil(estimatedStartMs / 1_000)));
  return json(JSON.stringify({ goalId, taskId, status, position, estimatedStartMs }), 202, {
    location: `/v1/tasks/${taskId}`,
    "preference-applied": "respond-async",
    "retry-after": seconds,
  });
}
