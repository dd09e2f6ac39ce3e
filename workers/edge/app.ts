/**
 * The HTTP face of Drover: every route in one list, in the order in which
 * they are tried. What stands above `auth` is public; nothing else answers
 * without a token, not even to say that it does not exist.
 */
import { Hono } from "hono/tiny";
import { failure } from "../../shared/errors.ts";
import type { EdgeContext, Handler } from "./context.ts";
import { auth } from "./middleware/auth.ts";
import { passUnread } from "./middleware/body.ts";
import { onError } from "./middleware/problem.ts";
import { problem } from "./reply.ts";
import { claimTasks, heartbeatClaims, settleClaims } from "./routes/claims.ts";
import { getEvents } from "./routes/events.ts";
import { controlGoal, createGoal, getGoal, getTree, listGoals } from "./routes/goals.ts";
import { health, ready } from "./routes/health.ts";
import { deleteLock, getLock, putLock } from "./routes/locks.ts";
import { proxied } from "./routes/proxy.ts";
import { getResults } from "./routes/results.ts";
import { cancelTask, getTask, listTasks, resolveTask, retryTask, submitTasks } from "./routes/tasks.ts";
import { deleteUpstream, getUpstream, listUpstreams, putUpstream } from "./routes/upstreams.ts";

type Method = "GET" | "POST" | "PUT" | "DELETE";
type Route = readonly [Method, path: string, Handler];

const PUBLIC_ROUTES: readonly Route[] = [
  ["GET", "/healthz", health],
  ["GET", "/readyz", ready],
];

/** The hottest first: routes are tried one after the other. */
const ROUTES: readonly Route[] = [
  ["POST", "/v1/goals/:goalId/tasks", submitTasks],
  ["GET", "/v1/tasks/:taskId", getTask],
  ["POST", "/v1/goals/:goalId/claims", claimTasks],
  ["POST", "/v1/goals/:goalId/claims/settle", settleClaims],
  ["POST", "/v1/goals/:goalId/claims/heartbeat", heartbeatClaims],
  ["POST", "/v1/goals", createGoal],
  ["GET", "/v1/goals", listGoals],
  ["GET", "/v1/goals/:goalId", getGoal],
  ["POST", "/v1/goals/:goalId/:verb{cancel|pause|resume|seal}", controlGoal],
  ["GET", "/v1/goals/:goalId/tasks", listTasks],
  ["GET", "/v1/goals/:goalId/results", getResults],
  ["GET", "/v1/goals/:goalId/events", getEvents],
  ["GET", "/v1/goals/:goalId/tree", getTree],
  ["PUT", "/v1/locks/:name", putLock],
  ["GET", "/v1/locks/:name", getLock],
  ["DELETE", "/v1/locks/:name", deleteLock],
  ["POST", "/v1/tasks/:taskId/cancel", cancelTask],
  ["POST", "/v1/tasks/:taskId/retry", retryTask],
  ["POST", "/v1/tasks/:taskId/resolve", resolveTask],
  ["PUT", "/v1/upstreams/:name", putUpstream],
  ["GET", "/v1/upstreams", listUpstreams],
  ["GET", "/v1/upstreams/:name", getUpstream],
  ["DELETE", "/v1/upstreams/:name", deleteUpstream],
];

type App = Hono<{ Bindings: Env }>;

/** The methods that the path takes; none where there is no such path. */
function methodsOf(app: App, path: string): string[] {
  const methods = [...new Set([...PUBLIC_ROUTES, ...ROUTES].map(([method]) => method))];
  const taken = methods.filter((method) => app.router.match(method, path)[0].some(([[, route]]) => route.method === method));
  return taken.flatMap((method) => (method === "GET" ? ["GET", "HEAD"] : [method]));
}

function noRoute(app: App, c: EdgeContext): Response {
  const methods = methodsOf(app, c.req.path);
  if (methods.length === 0) return problem(failure("not_found", `there is no route for ${c.req.path.slice(0, 256)}`));
  const allow = methods.join(", ");
  return problem(failure("method_not_allowed", `${c.req.path} takes ${allow}, not ${c.req.method}`), { allow });
}

export function createApp(): App {
  const app: App = new Hono();
  app.onError(onError);
  app.notFound((c) => noRoute(app, c));
  app.use("*", passUnread);
  for (const [method, path, handler] of PUBLIC_ROUTES) app.on(method, path, handler);
  app.use("*", auth);
  for (const [method, path, handler] of ROUTES) app.on(method, path, handler);
  app.all("/v1/proxy/*", proxied);
  return app;
}
