/** `/v1/goals`: making, finding and steering goals. The goal itself decides; the directory lists. */
import { failure } from "../../../shared/errors.ts";
import { type GoalId, goalIdFrom, parseGoalId } from "../../../shared/ids.ts";
import { DEPTH_MAX } from "../../../shared/limits.ts";
import { narrow } from "../../../shared/policy/rules.ts";
import { GOAL_STATUSES, type GoalSpec, type GoalView, parseGoal } from "../../../shared/protocol/goal.ts";
import { ok } from "../../../shared/result.ts";
import type { Answer, GoalReport, GoalVerb, IdempotencyKey } from "../../../shared/rpc.ts";
import type { Ceilings } from "../../../shared/token/caveats.ts";
import { type Bearer, lower } from "../../../shared/token/claims.ts";
import { bearerIn, type EdgeContext, goalStub, hintOf, tenantStub, withGoal } from "../context.ts";
import { type Body, jsonText, readJsonObject } from "../middleware/body.ts";
import { idempotencyOf } from "../middleware/idempotency.ts";
import { Query } from "../query.ts";
import { json, jsonOnce, problem, respond } from "../reply.ts";

const CHANCE_BYTES = 16;

const timestamp = (ms: number): string => new Date(ms).toISOString();

/** The goal as far as the directory knows it. */
function listed(report: GoalReport): Partial<GoalView> {
  return {
    id: report.goalId,
    name: report.name,
    labels: report.labels,
    status: report.status,
    createdAt: timestamp(report.createdAtMs),
    deadlineAt: report.deadlineAtMs === null ? null : timestamp(report.deadlineAtMs),
    ...(report.endedAtMs === null ? {} : { endedAt: timestamp(report.endedAtMs) }),
    sealed: report.sealed,
    counts: report.counts,
  };
}

/** A new id, or the one that the idempotency key was given first. */
async function goalIdFor(env: Env, idempotency: IdempotencyKey | undefined): Promise<Answer<{ goalId: string }>> {
  const goalId = goalIdFrom(Date.now(), crypto.getRandomValues(new Uint8Array(CHANCE_BYTES)));
  return idempotency === undefined ? ok({ goalId }) : tenantStub(env).claimGoalId(idempotency, goalId);
}

/** A goal may never do, nor spend, more than the token that it was made with. */
function within(spec: GoalSpec, bearer: Bearer | undefined, ceilings: Ceilings): GoalSpec {
  const allowed = bearer === undefined ? spec : { ...spec, policies: narrow(bearer.policies, spec.policies ?? [], 0) };
  return Object.keys(ceilings).length === 0 ? allowed : { ...allowed, budget: lower(spec.budget ?? {}, ceilings) };
}

export async function createGoal(c: EdgeContext): Promise<Response> {
  const request = await readJsonObject(c.req.raw);
  if (!request.ok) return problem(request.error);
  const parsed = parseGoal(request.value.value);
  if (!parsed.ok) return problem(failure("invalid_request", "the goal is not valid; see errors", { errors: parsed.error }));
  const { spec, tasks, parentGoalId } = parsed.value;
  if (parentGoalId !== undefined) return createSubgoal(c, parentGoalId, spec, request.value);
  const tasksJson = tasks.length === 0 ? ok("") : jsonText(tasks);
  if (!tasksJson.ok) return problem(tasksJson.error);
  const idempotency = await idempotencyOf(c, "/v1/goals", request.value.body);
  if (!idempotency.ok) return problem(idempotency.error);
  const claimed = await goalIdFor(c.env, idempotency.value);
  if (!claimed.ok) return problem(claimed.error);
  const goalId = parseGoalId(claimed.value.goalId)!;
  const created = await goalStub(c.env, goalId, hintOf(c.req.raw)).create({
    goalId,
    spec: within(spec, bearerIn(c), c.get("caller").claims.ceilings),
    tasksJson: tasksJson.value,
    idempotency: idempotency.value,
  });
  return respond(created, (reply) => jsonOnce(reply, 201, { location: `/v1/goals/${goalId}` }));
}

/** A goal inside another one is that one's task, and answers once it is there. */
async function createSubgoal(
  c: EdgeContext,
  parentGoalId: GoalId,
  spec: GoalSpec,
  { value, body }: { value: unknown; body: Body },
): Promise<Response> {
  const { parentGoalId: _, ...described } = value as Record<string, unknown>;
  const { ceilings } = c.get("caller").claims;
  const budget = Object.keys(ceilings).length === 0 ? {} : { budget: lower(spec.budget ?? {}, ceilings) };
  const goalJson = jsonText({ sealed: false, ...described, ...budget });
  if (!goalJson.ok) return problem(goalJson.error);
  const idempotency = await idempotencyOf(c, "/v1/goals", body);
  if (!idempotency.ok) return problem(idempotency.error);
  const claimed = await goalIdFor(c.env, idempotency.value);
  if (!claimed.ok) return problem(claimed.error);
  const created = await goalStub(c.env, parentGoalId).createSubgoal({
    goalJson: goalJson.value,
    idempotency: idempotency.value,
    bearer: bearerIn(c),
  });
  if (!created.ok) return problem(created.error);
  const { goalId, taskId, isMade } = JSON.parse(created.value.json) as { goalId: GoalId; taskId: string; isMade: boolean };
  const headers = { location: `/v1/goals/${goalId}` };
  // The parent stands still, or has much to begin before it.
  const later = (): Response =>
    jsonOnce({ ...created.value, json: JSON.stringify({ id: goalId, parentGoalId, parentTaskId: taskId }) }, 202, headers);
  if (!isMade) return later();
  const view = await goalStub(c.env, goalId).view(bearerIn(c));
  if (!view.ok && view.error.code === "not_found") return later();
  return respond(view, (goal) => jsonOnce({ ...created.value, json: JSON.stringify(goal) }, 201, headers));
}

export async function listGoals(c: EdgeContext): Promise<Response> {
  const query = new Query(c);
  const request = { cursor: query.text("cursor"), limit: query.limit(), status: query.choice("status", GOAL_STATUSES) };
  if (request.cursor !== undefined && parseGoalId(request.cursor) === null) query.fault("cursor", "must be a nextCursor of this list");
  const fault = query.failure();
  if (fault !== null) return problem(fault);
  const page = await tenantStub(c.env).listGoals(request);
  return respond(page, ({ items, nextCursor }) => json(JSON.stringify({ items: items.map(listed), nextCursor })));
}

export const getGoal = withGoal(async (c, goal) => respond(await goal.view(bearerIn(c)), (view) => json(JSON.stringify(view))));

/** The route admits the four verbs only. */
export const controlGoal = withGoal(async (c, goal) => {
  const view = await goal.control(c.req.param("verb") as GoalVerb, bearerIn(c));
  return respond(view, (value) => json(JSON.stringify(value)));
});

export const getTree = withGoal(async (c, goal) => {
  const query = new Query(c);
  const root = query.text("root");
  const depth = query.integer("depth", 1, DEPTH_MAX, DEPTH_MAX);
  const fault = query.failure();
  if (fault !== null) return problem(fault);
  return respond(await goal.tree(root, depth, bearerIn(c)), json);
});
