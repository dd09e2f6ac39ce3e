/** `/v1/goals/{goalId}/claims`: workers outside pull tasks of kind `work`, keep their claims, and settle them. */
import * as v from "valibot";
import { failure, type Fault } from "../../../shared/errors.ts";
import { type GoalId, parseTaskId } from "../../../shared/ids.ts";
import {
  CLAIM_LEASE_MS_DEFAULT,
  CLAIM_LEASE_MS_MAX,
  CLAIM_LEASE_MS_MIN,
  CLAIMS_PER_REQUEST_MAX,
  ATTEMPT_MAX,
  PROBLEM_CHARS_MAX,
  TASKS_PER_REQUEST_MAX,
  TOKENS_MAX,
  WAIT_SECONDS_MAX,
} from "../../../shared/limits.ts";
import { boundsFrom } from "../../../shared/policy/account.ts";
import { faultsOf } from "../../../shared/protocol/faults.ts";
import type { CallResult } from "../../../shared/protocol/line.ts";
import { integer, object, queueName } from "../../../shared/protocol/task-schema.ts";
import { err, ok } from "../../../shared/result.ts";
import type { Answer, ClaimPlaceRpc, ClaimRequest, ClaimSettlement, GoalRpc, JsonReply } from "../../../shared/rpc.ts";
import { bearerIn, type EdgeContext, withGoal } from "../context.ts";
import { jsonText } from "../middleware/body.ts";
import { bySchema, invalid, readAs } from "../middleware/shape.ts";
import { idempotencyOf } from "../middleware/idempotency.ts";
import { refused } from "../middleware/permit.ts";
import { whenLeft } from "../left.ts";
import { json, jsonOnce, problem, respond } from "../reply.ts";

const leaseMs = v.optional(integer(CLAIM_LEASE_MS_MIN, CLAIM_LEASE_MS_MAX), CLAIM_LEASE_MS_DEFAULT);
const attempt = integer(1, ATTEMPT_MAX);
const many = <T extends v.GenericSchema>(item: T) =>
  v.pipe(v.array(item), v.maxLength(CLAIMS_PER_REQUEST_MAX, `must have at most ${CLAIMS_PER_REQUEST_MAX} of them`));
const text = (max: number) => v.pipe(v.string(), v.maxLength(max, `must have at most ${max} characters`));

const claimRequest = object({
  queue: queueName,
  max: v.optional(integer(1, CLAIMS_PER_REQUEST_MAX), 1),
  leaseMs,
  waitMs: v.optional(integer(0, WAIT_SECONDS_MAX * 1_000), 0),
});
const heartbeatRequest = object({ claims: many(object({ taskId: v.string(), attempt })), leaseMs });
const settleRequest = object({ settlements: many(v.unknown()) });

const amount = v.optional(integer(0, TOKENS_MAX));
const settlement = v.pipe(
  object({
    taskId: v.string(),
    attempt,
    result: v.optional(v.unknown()),
    problem: v.optional(
      object({ code: v.optional(text(PROBLEM_CHARS_MAX)), detail: text(PROBLEM_CHARS_MAX), retryable: v.optional(v.boolean()) }),
    ),
    usage: v.optional(object({ calls: amount, tokens: amount, costMicros: amount })),
    spawn: v.optional(v.array(v.unknown())),
  }),
  v.check((spec) => "result" in spec !== (spec.problem !== undefined), "needs exactly one of result, problem"),
  v.check(
    (spec) => spec.spawn === undefined || "result" in spec,
    "spawns children only with a result: those of a failed task would be canceled",
  ),
);

function indexIn(goalId: GoalId, taskId: string): number {
  const parsed = parseTaskId(taskId);
  return parsed?.goalId === goalId ? parsed.index : -1;
}

export const claimTasks = withGoal(async (c, goal, goalId) => {
  const request = await readAs(c.req.raw, "the claim request", bySchema(claimRequest));
  if (!request.ok) return problem(request.error);
  const refusal = refused(c, { scopes: ["work"], goalId, queue: request.value.value.queue });
  if (refusal !== null) return refusal;
  const idempotency = await idempotencyOf(c, "/v1/goals/{id}/claims", request.value.body);
  if (!idempotency.ok) return problem(idempotency.error);
  const claims = await claim(c, goal, { ...request.value.value, idempotency: idempotency.value, bearer: bearerIn(c) });
  return respond(claims, (reply) => jsonOnce(reply, 200));
});

const NO_CLAIMS = '{"claims":[]}';

/** Most requests find something, and need no place in the line. */
async function claim(c: EdgeContext, goal: GoalRpc, request: ClaimRequest): Promise<Answer<JsonReply>> {
  const now = await goal.claim(request);
  if (!now.ok || now.value.json !== NO_CLAIMS || request.waitMs === 0) return now;
  const { signal } = c.req.raw;
  // The place goes with the caller: what is claimed for nobody would be lost until its lease ends.
  if (signal.aborted) return now;
  const placing = goal.awaitClaims(request);
  whenLeft(signal, () => c.executionCtx.waitUntil(placing.then((place) => place.leave()).catch(() => undefined)));
  // One message takes the place and waits.
  const [place, claimed] = await Promise.all([placing, (placing as unknown as ClaimPlaceRpc).claimed()]);
  (place as Partial<Disposable>)[Symbol.dispose]?.();
  return claimed;
}

export const settleClaims = withGoal(async (c, goal, goalId) => {
  const request = await readAs(c.req.raw, "the request", bySchema(settleRequest));
  if (!request.ok) return problem(request.error);
  const idempotency = await idempotencyOf(c, "/v1/goals/{id}/claims/settle", request.value.body);
  if (!idempotency.ok) return problem(idempotency.error);
  const spawned: unknown[] = [];
  const settlements = request.value.value.settlements.map((value) => settlementOf(value, goalId, spawned));
  if (spawned.length > TASKS_PER_REQUEST_MAX) {
    const detail = `a request spawns at most ${TASKS_PER_REQUEST_MAX} tasks, and this one has ${spawned.length}`;
    return problem(failure("payload_too_large", detail));
  }
  const spawnedJson = spawned.length === 0 ? ok("") : jsonText(spawned);
  if (!spawnedJson.ok) return problem(spawnedJson.error);
  const settled = await goal.settleClaims({
    settlements,
    spawnedJson: spawnedJson.value,
    idempotency: idempotency.value,
    bearer: bearerIn(c),
  });
  return respond(settled, (reply) => jsonOnce(reply, 200));
});

/** One settlement as the goal takes it; its children are added to `spawned`. A bad one is told so on its own line. */
function settlementOf(value: unknown, goalId: GoalId, spawned: unknown[]): ClaimSettlement {
  const parsed = v.safeParse(settlement, value);
  if (!parsed.success) {
    const { taskId } = (value ?? {}) as { taskId?: unknown };
    return { taskId: typeof taskId === "string" ? taskId : "", fault: invalid("the settlement", faultsOf(parsed, "")) };
  }
  const { taskId, result, problem: reported, usage, spawn = [] } = parsed.output;
  const payload = jsonText(reported ?? ({ status: 200, body: result ?? null } satisfies CallResult));
  if (!payload.ok) return { taskId, fault: payload.error };
  const children = childrenOf(spawn, taskId);
  if (!children.ok) return { taskId, fault: children.error };
  spawned.push(...children.value);
  return {
    taskId,
    task: indexIn(goalId, taskId),
    attempt: parsed.output.attempt,
    problem: reported === undefined ? null : { retryable: reported.retryable ?? false },
    payload: payload.value,
    usage: boundsFrom(usage ?? {}),
    spawns: spawn.length,
  };
}

const isObject = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

/** Children of the task itself, or of one another. */
function childrenOf(spawn: readonly unknown[], taskId: string): Answer<unknown[]> {
  const keys = new Set(spawn.map((spec) => (isObject(spec) ? spec["key"] : undefined)));
  const faults: Fault[] = [];
  const children = spawn.map((spec, place) => {
    if (!isObject(spec)) return spec;
    const { parentTaskId = taskId } = spec;
    if (parentTaskId !== taskId && !keys.has(parentTaskId)) {
      faults.push({
        pointer: `/spawn/${place}/parentTaskId`,
        detail: "must be the key of a task in the same spawn; without it, the settled task is the parent",
      });
    }
    return { ...spec, parentTaskId };
  });
  return faults.length > 0 ? err(invalid("the settlement", faults)) : ok(children);
}

export const heartbeatClaims = withGoal(async (c, goal, goalId) => {
  const request = await readAs(c.req.raw, "the request", bySchema(heartbeatRequest));
  if (!request.ok) return problem(request.error);
  const { claims: held, leaseMs } = request.value.value;
  const claims = held.map((one) => ({ ...one, task: indexIn(goalId, one.taskId) }));
  return respond(await goal.heartbeat({ claims, leaseMs, bearer: bearerIn(c) }), json);
});
