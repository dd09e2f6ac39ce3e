/**
 * The HTTP face of Drover: every route in one list, in the order in which
 * they are tried. What stands above `auth` is public; nothing else answers
 * without a token, not even to say that it does not exist.
 */
import { Hono } from "hono/tiny";
import { failure } from "../../shared/errors.ts";
import { SCOPES } from "../../shared/token/caveats.ts";
import type { EdgeContext, EdgeEnv, Handler } from "./context.ts";
import { doorOf, passDoor } from "./coalesce/door.ts";
import { auth } from "./middleware/auth.ts";
import { passUnread } from "./middleware/body.ts";
import { type Access, permitted } from "./middleware/permit.ts";
import { onError } from "./middleware/problem.ts";
import { problem } from "./reply.ts";
import { type RunLone, runLoneHere } from "../sandbox/lone.ts";
import { claimTasks, heartbeatClaims, settleClaims } from "./routes/claims.ts";
import {
  getBudget,
  getTenantBudget,
  putTenantBudget,
  releaseReservation,
  reserveBudget,
  settleReservation,
  topUpBudget,
} from "./routes/budget.ts";
import { getEvents } from "./routes/events.ts";
import { controlGoal, createGoal, getGoal, getTree, listGoals } from "./routes/goals.ts";
import { deleteFunction, getFunction, listFunctions, putFunction } from "./routes/functions.ts";
import { health, ready } from "./routes/health.ts";
import { invokedBy } from "./routes/invoke.ts";
import { deleteGoalLock, deleteLock, getGoalLock, getLock, putGoalLock, putLock } from "./routes/locks.ts";
import { getPolicy, putPolicy } from "./routes/policy.ts";
import { proxied } from "./routes/proxy.ts";
import { getResults } from "./routes/results.ts";
import { deleteState, getState, putState } from "./routes/state.ts";
import { cancelTask, decideTask, getTask, listTasks, resolveTask, retryTask, submitTasks } from "./routes/tasks.ts";
import { createToken, revokeTokens } from "./routes/tokens.ts";
import { deleteUpstream, getUpstream, listUpstreams, putUpstream } from "./routes/upstreams.ts";

const METHODS = ["GET", "POST", "PUT", "DELETE"] as const;
type Method = (typeof METHODS)[number];
type PublicRoute = readonly [Method, path: string, Handler];
type Route = readonly [Method, path: string, Access, Handler];

const PUBLIC_ROUTES: readonly PublicRoute[] = [
  ["GET", "/healthz", health],
  ["GET", "/readyz", ready],
];

const READ: Access = { scopes: ["read"] };
const READ_ALL: Access = { scopes: ["read"], isTenantWide: true };
const SUBMIT: Access = { scopes: ["submit"] };
const SUBMIT_TASKS: Access = { scopes: ["submit"], isExact: true };
const CREATE: Access = { scopes: ["submit"], isTenantWide: true, isExact: true };
const WORK: Access = { scopes: ["work"] };
/** Whoever submits or works spends. */
const SPEND: Access = { scopes: ["submit", "work"] };
/** Whoever submits or works locks what its work needs. */
const LOCK: Access = { scopes: ["submit", "work"], isTenantWide: true };
const APPROVE: Access = { scopes: ["approve"] };
const CONFIGURE: Access = { scopes: ["admin"], isTenantWide: true, isExact: true };
/** Of a goal's tokens, or of all. */
const REVOKE: Access = { scopes: ["admin"], isExact: true };
/** Whoever holds a token may give a part of it away. */
const NARROW: Access = { scopes: SCOPES, isExact: true };

/** The hottest first: routes are tried one after the other. */
const routesOf = (runLone: RunLone): readonly Route[] => [
  ["POST", "/v1/goals/:goalId/tasks", SUBMIT_TASKS, submitTasks],
  ["GET", "/v1/tasks/:taskId", READ, getTask],
  ["POST", "/v1/goals/:goalId/claims", WORK, claimTasks],
  ["POST", "/v1/goals/:goalId/claims/settle", WORK, settleClaims],
  ["POST", "/v1/goals/:goalId/claims/heartbeat", WORK, heartbeatClaims],
  ["POST", "/v1/goals", CREATE, createGoal],
  ["GET", "/v1/goals", READ_ALL, listGoals],
  ["GET", "/v1/goals/:goalId", READ, getGoal],
  ["POST", "/v1/goals/:goalId/:verb{cancel|pause|resume|seal}", SUBMIT, controlGoal],
  ["GET", "/v1/goals/:goalId/tasks", READ, listTasks],
  ["GET", "/v1/goals/:goalId/results", READ, getResults],
  ["GET", "/v1/goals/:goalId/events", READ, getEvents],
  ["GET", "/v1/goals/:goalId/tree", READ, getTree],
  ["PUT", "/v1/locks/:name", LOCK, putLock],
  ["GET", "/v1/locks/:name", READ_ALL, getLock],
  ["DELETE", "/v1/locks/:name", LOCK, deleteLock],
  ["PUT", "/v1/goals/:goalId/locks/:name", SPEND, putGoalLock],
  ["GET", "/v1/goals/:goalId/locks/:name", READ, getGoalLock],
  ["DELETE", "/v1/goals/:goalId/locks/:name", SPEND, deleteGoalLock],
  ["GET", "/v1/goals/:goalId/state/:key", READ, getState],
  ["PUT", "/v1/goals/:goalId/state/:key", SPEND, putState],
  ["DELETE", "/v1/goals/:goalId/state/:key", SPEND, deleteState],
  ["GET", "/v1/goals/:goalId/budget", READ, getBudget],
  ["POST", "/v1/goals/:goalId/budget/topups", SUBMIT, topUpBudget],
  ["POST", "/v1/goals/:goalId/budget/reservations", SPEND, reserveBudget],
  ["POST", "/v1/goals/:goalId/budget/reservations/:reservationId/settle", SPEND, settleReservation],
  ["POST", "/v1/goals/:goalId/budget/reservations/:reservationId/release", SPEND, releaseReservation],
  ["POST", "/v1/tasks/:taskId/cancel", SUBMIT, cancelTask],
  ["POST", "/v1/tasks/:taskId/retry", SUBMIT, retryTask],
  ["POST", "/v1/tasks/:taskId/resolve", SUBMIT, resolveTask],
  ["POST", "/v1/tasks/:taskId/:verdict{approve|deny}", APPROVE, decideTask],
  ["POST", "/v1/tokens", NARROW, createToken],
  ["POST", "/v1/tokens/revoke", REVOKE, revokeTokens],
  ["GET", "/v1/policy", CONFIGURE, getPolicy],
  ["PUT", "/v1/policy", CONFIGURE, putPolicy],
  ["GET", "/v1/budget", CONFIGURE, getTenantBudget],
  ["PUT", "/v1/budget", CONFIGURE, putTenantBudget],
  ["POST", "/v1/functions/:name/invoke", CREATE, invokedBy(runLone)],
  ["PUT", "/v1/functions/:name", CONFIGURE, putFunction],
  ["GET", "/v1/functions", READ_ALL, listFunctions],
  ["GET", "/v1/functions/:name", READ_ALL, getFunction],
  ["DELETE", "/v1/functions/:name", CONFIGURE, deleteFunction],
  ["PUT", "/v1/upstreams/:name", CONFIGURE, putUpstream],
  ["GET", "/v1/upstreams", CONFIGURE, listUpstreams],
  ["GET", "/v1/upstreams/:name", CONFIGURE, getUpstream],
  ["DELETE", "/v1/upstreams/:name", CONFIGURE, deleteUpstream],
];

type App = Hono<EdgeEnv>;

/** The methods that the path takes; none where there is no such path. */
function methodsOf(app: App, path: string): string[] {
  const taken = METHODS.filter((method) => app.router.match(method, path)[0].some(([[, route]]) => route.method === method));
  return taken.flatMap((method) => (method === "GET" ? ["GET", "HEAD"] : [method]));
}

function noRoute(app: App, c: EdgeContext): Response {
  const methods = methodsOf(app, c.req.path);
  if (methods.length === 0) return problem(failure("not_found", `there is no route for ${c.req.path.slice(0, 256)}`));
  const allow = methods.join(", ");
  return problem(failure("method_not_allowed", `${c.req.path} takes ${allow}, not ${c.req.method}`), { allow });
}

/** `runLone` has the functions run that are invoked outside any goal. */
export function createApp(runLone: RunLone = runLoneHere): App {
  const app: App = new Hono();
  app.onError(onError);
  app.notFound((c) => noRoute(app, c));
  app.use("*", passUnread);
  for (const [method, path, handler] of PUBLIC_ROUTES) app.on(method, path, handler);
  app.use("*", auth);
  for (const [method, path, access, handler] of routesOf(runLone)) app.on(method, path, permitted(access, handler));
  app.all("/v1/proxy/*", permitted(SUBMIT, proxied));
  return app;
}

interface Edge {
  fetch(request: Request, env: Env, context: ExecutionContext): Response | Promise<Response>;
}

/** The app, behind the doors of calls that are under way. */
export function createEdge(runLone?: RunLone): Edge {
  const app = createApp(runLone);
  return {
    fetch(request, env, context) {
      const door = doorOf(request);
      if (door === null) return app.fetch(request, env, context);
      return passDoor(door, request, env).then((answer) => answer ?? app.fetch(request, env, context));
    },
  };
}
