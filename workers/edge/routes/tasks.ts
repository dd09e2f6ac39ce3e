/** Tasks: submitted and listed below their goal, read and steered by their own id. */
import * as v from "valibot";
import { TASKS_PER_GOAL_MAX } from "../../../shared/limits.ts";
import { TASK_STATUSES } from "../../../shared/protocol/goal.ts";
import type { CallResult } from "../../../shared/protocol/line.ts";
import { integer } from "../../../shared/protocol/task-schema.ts";
import { ok } from "../../../shared/result.ts";
import { bearerIn, type EdgeContext, withGoal, withTask } from "../context.ts";
import { jsonText, readBody, taskFormat } from "../middleware/body.ts";
import { bySchema, readAs } from "../middleware/shape.ts";
import { idempotencyOf } from "../middleware/idempotency.ts";
import { waitSeconds } from "../prefer.ts";
import { Query } from "../query.ts";
import { json, jsonOnce, problem, respond } from "../reply.ts";

const resolution = v.pipe(
  v.strictObject({
    as: v.picklist(["succeeded", "failed", "retry"]),
    result: v.optional(v.strictObject({ status: v.optional(integer(100, 599)), body: v.optional(v.unknown()) })),
  }),
  v.check(({ as, result }) => as !== "retry" || result === undefined, "a task that is retried has no result yet"),
);

/** The one quota of a submission, as draft-ietf-httpapi-ratelimit-headers-10 writes it: a goal's tasks. It does not refill. */
function quotaHeaders(tasksLeft: number | undefined): Record<string, string> {
  if (tasksLeft === undefined) return {};
  return { "ratelimit-policy": `"tasks";q=${TASKS_PER_GOAL_MAX};qu="tasks"`, ratelimit: `"tasks";r=${tasksLeft}` };
}

/** The hot path: the bytes go to the goal as they came, and are hashed only where there is a key. */
export const submitTasks = withGoal(async (c, goal) => {
  const query = new Query(c);
  const allReceipts = query.choice("receipts", ["all"]) === "all";
  const atomic = query.flag("atomic");
  const fault = query.failure();
  if (fault !== null) return problem(fault);
  const body = await readBody(c.req.raw);
  if (!body.ok) return problem(body.error);
  const format = taskFormat(body.value);
  if (!format.ok) return problem(format.error);
  const idempotency = await idempotencyOf(c, "/v1/goals/{id}/tasks", body.value);
  if (!idempotency.ok) return problem(idempotency.error);
  const request = {
    body: body.value.bytes,
    format: format.value,
    allReceipts,
    atomic,
    idempotency: idempotency.value,
    bearer: bearerIn(c),
  };
  return respond(await goal.submit(request), (reply) => jsonOnce(reply, 202, quotaHeaders(reply.tasksLeft)));
});

export const listTasks = withGoal(async (c, goal) => {
  const query = new Query(c);
  const request = {
    status: query.choice("status", TASK_STATUSES),
    parentTaskId: query.text("parentTaskId"),
    label: query.text("label"),
    cursor: query.text("cursor"),
    limit: query.limit(),
  };
  const fault = query.failure();
  if (fault !== null) return problem(fault);
  return respond(await goal.listTasks(request, bearerIn(c)), json);
});

export const getTask = withTask(async (c, goal, index) => {
  const wait = waitSeconds(c.req.header("prefer"));
  const task = await goal.getTask(index, (wait ?? 0) * 1000, bearerIn(c));
  return respond(task, (value) => json(value.json, 200, wait === null ? {} : { "preference-applied": `wait=${wait}` }));
});

export const cancelTask = withTask(async (c, goal, index) => respond(await goal.cancelTask(index, bearerIn(c)), json));

/** The route admits the two verdicts only. */
export const decideTask = withTask(async (c, goal, index) => {
  return respond(await goal.decideTask(index, c.req.param("verdict") as "approve" | "deny", bearerIn(c)), json);
});

export const retryTask = withTask(async (c, goal, index) => {
  const body = await readBody(c.req.raw);
  if (!body.ok) return problem(body.error);
  const idempotency = await idempotencyOf(c, "/v1/tasks/{id}/retry", body.value);
  if (!idempotency.ok) return problem(idempotency.error);
  const made = await goal.retryTask(index, idempotency.value, bearerIn(c));
  return respond(made, (reply) => jsonOnce(reply, 201, { location: `/v1/tasks/${(JSON.parse(reply.json) as { id: string }).id}` }));
});

export const resolveTask = withTask(async (c: EdgeContext, goal, index) => {
  const request = await readAs(c.req.raw, "the resolution", bySchema(resolution));
  if (!request.ok) return problem(request.error);
  const { as, result } = request.value.value;
  const given =
    result === undefined ? ok(undefined) : jsonText({ status: result.status ?? 200, body: result.body ?? null } satisfies CallResult);
  if (!given.ok) return problem(given.error);
  return respond(await goal.resolveTask(index, as, given.value, bearerIn(c)), json);
});
