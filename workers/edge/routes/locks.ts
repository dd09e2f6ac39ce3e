/** Locks by name: the tenant's, spread over shards, and each goal's own. */
import * as v from "valibot";
import { failure } from "../../../shared/errors.ts";
import { LOCK_PERMITS_MAX, LOCK_SHARDS, LOCK_TTL_MS_DEFAULT, LOCK_TTL_MS_MAX, LOCK_TTL_MS_MIN } from "../../../shared/limits.ts";
import type { Granted, LockView } from "../../../shared/policy/lock-steps.ts";
import { LOCK_MODES } from "../../../shared/policy/lock-table.ts";
import { HOLDER, LOCK_NAME, shardOf, TASK_HOLDER } from "../../../shared/protocol/lock.ts";
import { integer, object } from "../../../shared/protocol/task-schema.ts";
import { err, ok } from "../../../shared/result.ts";
import type { LocksRpc } from "../../../shared/rpc-locks.ts";
import type { Answer } from "../../../shared/rpc.ts";
import { bearerIn, type EdgeContext, type Handler, locksStub, withGoal } from "../context.ts";
import { bySchema, invalid, readAs } from "../middleware/shape.ts";
import { waitSeconds } from "../prefer.ts";
import { json, problem, respond } from "../reply.ts";

const holder = v.pipe(v.string(), v.regex(HOLDER, "must be 1 to 512 printable ASCII characters: a path of names with '/' between them"));
const fence = integer(1, Number.MAX_SAFE_INTEGER);

const asking = v.pipe(
  object({
    mode: v.optional(v.picklist(LOCK_MODES)),
    permits: v.optional(integer(1, LOCK_PERMITS_MAX)),
    ttlMs: v.optional(integer(LOCK_TTL_MS_MIN, LOCK_TTL_MS_MAX)),
    holder,
  }),
  v.check(({ mode, permits }) => permits === undefined || mode === "shared", "permits are for mode shared: so many may hold it at once"),
);

const releasing = v.pipe(
  object({ fence: v.optional(fence), holder: v.optional(holder) }),
  v.check(
    (body) => body.fence !== undefined || body.holder !== undefined,
    "needs the fence of the holder; or, to leave the queue, who waits as holder",
  ),
);

const timestamp = (ms: number | null): string | null => (ms === null ? null : new Date(ms).toISOString());

const shownGrant = ({ fence, mode, expiresAtMs, host }: Granted): string =>
  JSON.stringify({ fence, mode, expiresAt: timestamp(expiresAtMs), host });

function shownLock({ name, holders, held, queue }: LockView): string {
  const items = holders.map(({ expiresAtMs, ...rest }) => ({ ...rest, expiresAt: timestamp(expiresAtMs) }));
  return JSON.stringify({ name, holders: items, held, queue });
}

const WHAT = "the request for the lock";

function nameOf(c: EdgeContext): Answer<string> {
  const name = c.req.param("name") ?? "";
  if (LOCK_NAME.test(name)) return ok(name);
  const detail =
    "a lock's name has 1 to 128 of A-Z, a-z, 0-9, '_', '.', ':', '/', '@', '-', beginning with a letter or digit; '/' is sent as %2F";
  return err(failure("invalid_request", detail));
}

/** Whose lock it is: a goal's, or the tenant's. */
type Way = (c: EdgeContext, name: string) => LocksRpc;

async function acquire(c: EdgeContext, way: Way, isOurs: (holder: string) => boolean): Promise<Response> {
  const name = nameOf(c);
  if (!name.ok) return problem(name.error);
  const body = await readAs(c.req.raw, WHAT, bySchema(asking));
  if (!body.ok) return problem(body.error);
  const { mode = "exclusive", permits = 0, ttlMs = LOCK_TTL_MS_DEFAULT, holder } = body.value.value;
  if (!isOurs(holder)) {
    return problem(invalid(WHAT, [{ pointer: "/holder", detail: "is named as goals and their tasks are; choose another name" }]));
  }
  const wait = waitSeconds(c.req.header("prefer"));
  const ask = { name: name.value, mode, permits, ttlMs, holder, waitMs: (wait ?? 0) * 1_000 };
  const answer = await way(c, name.value).acquireLock(ask, bearerIn(c));
  const applied: Record<string, string> = wait === null ? {} : { "preference-applied": `wait=${wait}` };
  return answer.ok ? json(shownGrant(answer.value), 200, applied) : problem(answer.error, applied);
}

async function release(c: EdgeContext, way: Way): Promise<Response> {
  const name = nameOf(c);
  if (!name.ok) return problem(name.error);
  const body = await readAs(c.req.raw, WHAT, bySchema(releasing));
  if (!body.ok) return problem(body.error);
  const { fence = null, holder = null } = body.value.value;
  const released = await way(c, name.value).releaseLock({ name: name.value, fence, holder }, bearerIn(c));
  return respond(released, () => new Response(null, { status: 204 }));
}

async function look(c: EdgeContext, way: Way): Promise<Response> {
  const name = nameOf(c);
  if (!name.ok) return problem(name.error);
  return respond(await way(c, name.value).lookAtLock(name.value, bearerIn(c)), (view) => json(shownLock(view)));
}

const tenantWide: Way = (c, name) => locksStub(c.env, shardOf(name, LOCK_SHARDS));

/** Goals hold locks for their tasks under their own ids. */
const isNoGoal = (holder: string): boolean => !holder.startsWith("goal_");

export const putLock: Handler = (c) => acquire(c, tenantWide, isNoGoal);
export const getLock: Handler = (c) => look(c, tenantWide);
export const deleteLock: Handler = (c) => release(c, tenantWide);

/** Tasks would enter what is held under a name above theirs, all of them together, and it could end before they do. */
const isNoTask = (holder: string): boolean => !TASK_HOLDER.test(holder);

export const putGoalLock = withGoal((c, goal) => acquire(c, () => goal, isNoTask));
export const getGoalLock = withGoal((c, goal) => look(c, () => goal));
export const deleteGoalLock = withGoal((c, goal) => release(c, () => goal));
