/**
 * What every route works with: the request's context, and the objects behind
 * it as the interfaces of `shared/rpc.ts`. A path that names no goal or task
 * ends here with 404, so no route sees an id that does not parse.
 */
import type { Context } from "hono";
import { failure } from "../../shared/errors.ts";
import { type GoalId, parseGoalId, parseTaskId } from "../../shared/ids.ts";
import type { FlightRpc } from "../../shared/rpc-flight.ts";
import type { FunctionRegistryRpc } from "../../shared/rpc-functions.ts";
import type { LocksRpc } from "../../shared/rpc-locks.ts";
import type { GoalRpc, GovernorRpc, TenantRpc } from "../../shared/rpc.ts";
import type { Bearer } from "../../shared/token/claims.ts";
import { problem } from "./reply.ts";
import type { Caller } from "./tokens/caller.ts";

/** What the routes of the app have at hand: `auth` says who calls. */
export interface EdgeEnv {
  readonly Bindings: Env;
  readonly Variables: { caller: Caller };
}
export type EdgeContext = Context<EdgeEnv>;
export type Handler = (c: EdgeContext) => Response | Promise<Response>;

const SHOWN_CHARS_MAX = 64;
export const TENANT_NAME = "default";

/** The edge knows an object by its contract, never by its class; the compiler holds the class to it. */
export function goalStub(env: Env, goalId: GoalId, hint?: DurableObjectLocationHint): GoalRpc {
  return env.GOAL.get(env.GOAL.idFromName(goalId), hint === undefined ? {} : { locationHint: hint });
}

/** Cloudflare's continents, as hints where an object should live. */
const HINTS: Readonly<Record<string, DurableObjectLocationHint>> = {
  AF: "afr",
  AS: "apac",
  EU: "weur",
  NA: "enam",
  OC: "oc",
  SA: "sam",
};
/** West of this, North America is nearer to the Pacific. */
const NA_WEST_LONGITUDE = -100;

/** Near the caller, who will talk to the object most. Counts for an object's first request only. */
export function hintOf(request: Request): DurableObjectLocationHint | undefined {
  // Absent on a laptop.
  const { continent, longitude } = (request.cf ?? {}) as Partial<IncomingRequestCfProperties>;
  if (continent === "NA" && Number(longitude) < NA_WEST_LONGITUDE) return "wnam";
  return HINTS[continent ?? ""];
}

export function tenantStub(env: Env): TenantRpc & FunctionRegistryRpc {
  return env.TENANT.get(env.TENANT.idFromName(TENANT_NAME));
}

export function governorStub(env: Env, upstream: string): GovernorRpc {
  return env.GOVERNOR.get(env.GOVERNOR.idFromName(upstream));
}

/** A shard of the tenant's locks. */
export function locksStub(env: Env, shard: number): LocksRpc {
  return env.LOCKS.get(env.LOCKS.idFromName(String(shard)));
}

/** A shard of the tenant's flights. */
export function flightStub(env: Env, shard: number): FlightRpc {
  return env.FLIGHT.get(env.FLIGHT.idFromName(`${TENANT_NAME}-${shard}`)) as unknown as FlightRpc;
}

/** What the goal has to know of the caller's token. */
export const bearerIn = (c: EdgeContext): Bearer | undefined => c.get("caller").bearer;

/** A handler of a route below `/v1/goals/:goalId`. */
export function withGoal(handler: (c: EdgeContext, goal: GoalRpc, goalId: GoalId) => Promise<Response>): Handler {
  return (c) => {
    const text = c.req.param("goalId") ?? "";
    const goalId = parseGoalId(text);
    if (goalId === null) return problem(failure("not_found", `there is no goal "${text.slice(0, SHOWN_CHARS_MAX)}"`));
    return handler(c, goalStub(c.env, goalId), goalId);
  };
}

/** A handler of a route below `/v1/tasks/:taskId`; `index` is the task's number in its goal. */
export function withTask(handler: (c: EdgeContext, goal: GoalRpc, index: number) => Promise<Response>): Handler {
  return (c) => {
    const text = c.req.param("taskId") ?? "";
    const parsed = parseTaskId(text);
    if (parsed === null) return problem(failure("not_found", `there is no task "${text.slice(0, SHOWN_CHARS_MAX)}"`));
    return handler(c, goalStub(c.env, parsed.goalId), parsed.index);
  };
}
