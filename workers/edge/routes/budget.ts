/** Budgets: the tenant's, and a goal's with its top-ups and reservations. */
import { failure, type Fault } from "../../../shared/errors.ts";
import { boundsFrom } from "../../../shared/policy/account.ts";
import { parseBudget, parseReservation, parseSettlement, parseTopUp } from "../../../shared/protocol/budget.ts";
import { ok, type Result } from "../../../shared/result.ts";
import type { Answer, GoalRpc, IdempotencyKey } from "../../../shared/rpc.ts";
import { bearerIn, type EdgeContext, tenantStub, withGoal } from "../context.ts";
import { readBody } from "../middleware/body.ts";
import { readAs } from "../middleware/shape.ts";
import { idempotencyOf } from "../middleware/idempotency.ts";
import { json, jsonOnce, problem, respond } from "../reply.ts";

const RESERVATION = /^rsv_([1-9][0-9]{0,14})$/;
const SHOWN_CHARS_MAX = 64;

export async function getTenantBudget(c: EdgeContext): Promise<Response> {
  return respond(await tenantStub(c.env).budget(), (view) => json(JSON.stringify(view)));
}

export async function putTenantBudget(c: EdgeContext): Promise<Response> {
  const limit = await readAs(c.req.raw, "the budget", parseBudget);
  if (!limit.ok) return problem(limit.error);
  return respond(await tenantStub(c.env).putBudget(limit.value.value), (view) => json(JSON.stringify(view)));
}

export const getBudget = withGoal(async (c, goal) => respond(await goal.budget(bearerIn(c)), (view) => json(JSON.stringify(view))));

interface Asked<T> {
  readonly value: T;
  readonly idempotency: IdempotencyKey | undefined;
}

/** The body as `parse` reads it, with the request's key. */
async function asked<T>(
  c: EdgeContext,
  what: string,
  route: string,
  parse: (body: unknown) => Result<T, Fault[]>,
): Promise<Answer<Asked<T>>> {
  const request = await readAs(c.req.raw, `the ${what}`, parse);
  if (!request.ok) return request;
  const idempotency = await idempotencyOf(c, route, request.value.body);
  return idempotency.ok ? ok({ value: request.value.value, idempotency: idempotency.value }) : idempotency;
}

export const topUpBudget = withGoal(async (c, goal) => {
  const request = await asked(c, "top-up", "/v1/goals/{id}/budget/topups", parseTopUp);
  if (!request.ok) return problem(request.error);
  const ceilings = boundsFrom(c.get("caller").claims.ceilings);
  return respond(await goal.topUp(request.value.value, ceilings, request.value.idempotency, bearerIn(c)), (reply) => jsonOnce(reply, 200));
});

export const reserveBudget = withGoal(async (c, goal, goalId) => {
  const request = await asked(c, "reservation", "/v1/goals/{id}/budget/reservations", parseReservation);
  if (!request.ok) return problem(request.error);
  const { amounts, ttlMs } = request.value.value;
  return respond(await goal.reserve("caller", amounts, ttlMs, { idempotency: request.value.idempotency, bearer: bearerIn(c) }), (reply) => {
    const { reservationId } = JSON.parse(reply.json) as { reservationId: string };
    return jsonOnce(reply, 201, { location: `/v1/goals/${goalId}/budget/reservations/${reservationId}` });
  });
});

function reservationOf(c: EdgeContext): Answer<number> {
  const text = c.req.param("reservationId") ?? "";
  const [, number] = RESERVATION.exec(text) ?? [];
  if (number !== undefined) return ok(Number(number));
  return { ok: false, error: failure("not_found", `there is no reservation "${text.slice(0, SHOWN_CHARS_MAX)}"`) };
}

type Settle = (c: EdgeContext, goal: GoalRpc, reservation: number) => Promise<Response>;

const withReservation = (settle: Settle) =>
  withGoal(async (c, goal) => {
    const reservation = reservationOf(c);
    return reservation.ok ? settle(c, goal, reservation.value) : problem(reservation.error);
  });

export const settleReservation = withReservation(async (c, goal, reservation) => {
  const request = await asked(c, "settlement", "/v1/goals/{id}/budget/reservations/{id}/settle", parseSettlement);
  if (!request.ok) return problem(request.error);
  return respond(
    await goal.settleReservation("caller", reservation, request.value.value, request.value.idempotency, bearerIn(c)),
    (reply) => jsonOnce(reply, 200),
  );
});

export const releaseReservation = withReservation(async (c, goal, reservation) => {
  const body = await readBody(c.req.raw);
  if (!body.ok) return problem(body.error);
  const idempotency = await idempotencyOf(c, "/v1/goals/{id}/budget/reservations/{id}/release", body.value);
  if (!idempotency.ok) return problem(idempotency.error);
  return respond(await goal.settleReservation("caller", reservation, null, idempotency.value, bearerIn(c)), (reply) =>
    jsonOnce(reply, 200),
  );
});
