/** `/v1/goals/{goalId}/state/{key}`: small values that all who work on a goal share, written under a version or a lock's fence. */
import * as v from "valibot";
import { failure } from "../../../shared/errors.ts";
import { STATE_VALUE_BYTES_MAX } from "../../../shared/limits.ts";
import { LOCK_NAME, STATE_KEY } from "../../../shared/protocol/lock.ts";
import { integer, object } from "../../../shared/protocol/task-schema.ts";
import { err, ok } from "../../../shared/result.ts";
import type { StateWrite } from "../../../shared/rpc-locks.ts";
import type { Answer, GoalRpc } from "../../../shared/rpc.ts";
import { bearerIn, type EdgeContext, withGoal } from "../context.ts";
import { jsonText } from "../middleware/body.ts";
import { bySchema, readAs } from "../middleware/shape.ts";
import { idempotencyOf } from "../middleware/idempotency.ts";
import { json, jsonOnce, problem, respond } from "../reply.ts";

const guard = {
  ifVersion: v.optional(integer(0, Number.MAX_SAFE_INTEGER)),
  lock: v.optional(
    object({
      name: v.pipe(v.string(), v.regex(LOCK_NAME, "is not the name of a lock")),
      fence: integer(1, Number.MAX_SAFE_INTEGER),
      scope: v.optional(v.picklist(["goal", "tenant"])),
    }),
  ),
};
const writing = v.pipe(
  object({ ...guard, value: v.unknown() }),
  v.check((body) => "value" in body, "needs a value, which may be null; DELETE takes it away"),
);
const deleting = object(guard);

function keyOf(c: EdgeContext): Answer<string> {
  const key = c.req.param("key") ?? "";
  if (STATE_KEY.test(key)) return ok(key);
  return err(failure("invalid_request", "a key has 1 to 256 printable ASCII characters without spaces; '/' is sent as %2F"));
}

/** The value as text, null where there is none to write. */
function textOf(value: unknown): Answer<string> {
  const text = jsonText(value);
  // A character takes at most three bytes; only a value that could be too large is worth measuring.
  const isLarge = text.ok && text.value.length * 3 > STATE_VALUE_BYTES_MAX;
  const bytes = isLarge ? new TextEncoder().encode(text.value).byteLength : 0;
  if (bytes <= STATE_VALUE_BYTES_MAX) return text;
  return err(failure("payload_too_large", `the value has ${bytes} bytes, and at most ${STATE_VALUE_BYTES_MAX} are kept`));
}

async function write(
  c: EdgeContext,
  goal: GoalRpc,
  schema: typeof writing | typeof deleting,
): Promise<Answer<{ json: string; replayed: boolean }>> {
  const key = keyOf(c);
  if (!key.ok) return key;
  const request = await readAs(c.req.raw, "the write", bySchema<typeof writing | typeof deleting>(schema));
  if (!request.ok) return request;
  const { ifVersion = null, lock } = request.value.value;
  const value = schema === writing ? textOf((request.value.value as { value: unknown }).value) : ok(null);
  if (!value.ok) return value;
  const idempotency = await idempotencyOf(c, "/v1/goals/{id}/state/{key}", request.value.body);
  if (!idempotency.ok) return idempotency;
  const guarded = lock === undefined ? null : { name: lock.name, fence: lock.fence, scope: lock.scope ?? "goal" };
  const one: StateWrite = { key: key.value, value: value.value, ifVersion, lock: guarded };
  return goal.writeState(one, idempotency.value, bearerIn(c));
}

export const putState = withGoal(async (c, goal) => respond(await write(c, goal, writing), (reply) => jsonOnce(reply, 200)));

export const deleteState = withGoal(async (c, goal) =>
  respond(await write(c, goal, deleting), ({ replayed }) => {
    return new Response(null, { status: 204, headers: replayed ? { "idempotent-replayed": "true" } : {} });
  }),
);

export const getState = withGoal(async (c, goal) => {
  const key = keyOf(c);
  if (!key.ok) return problem(key.error);
  return respond(await goal.readState(key.value, bearerIn(c)), ({ version, json: value }) =>
    json(`{"key":${JSON.stringify(key.value)},"version":${version},"value":${value}}`),
  );
});
