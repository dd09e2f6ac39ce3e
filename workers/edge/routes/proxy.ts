/**
 * `ANY /v1/proxy/{upstream}/{path…}`: a call passed through. A gate gives leave
 * for it; the call is made here, and its bodies stream through both ways.
 */
import { type Failure, failure } from "../../../shared/errors.ts";
import { type GoalId, parseGoalId } from "../../../shared/ids.ts";
import { PROXY_SHARDS, WAIT_SECONDS_MAX } from "../../../shared/limits.ts";
import { IDEMPOTENT_METHODS, type Reserve } from "../../../shared/protocol/task.ts";
import { err, ok } from "../../../shared/result.ts";
import type { Answer, GateRpc, IdempotencyKey } from "../../../shared/rpc.ts";
import { networkOf, PLAIN_NETWORK } from "../../kit/network.ts";
import { type EdgeContext, goalStub } from "../context.ts";
import { readBytes } from "../middleware/body.ts";
import { idempotencyOf, parseIdempotencyKey } from "../middleware/idempotency.ts";
import { refused } from "../middleware/permit.ts";
import { respondsAsync, waitSeconds } from "../prefer.ts";
import { canWait, makeStanding, queueCall, standingGoalId } from "../proxy/later.ts";
import { passThrough } from "../proxy/pass-through.ts";
import { parseReserve } from "../proxy/reserve.ts";
import { type Target, targetOf } from "../proxy/target.ts";
import { problem } from "../reply.ts";

const SHOWN_CHARS_MAX = 64;
/** How long a call that may become a task waits for a permit first. */
const ASYNC_WAIT_SECONDS = 1;

interface Keyed {
  readonly bytes: Uint8Array;
  readonly idempotency: IdempotencyKey;
}

/** A call with a key is read whole, because its body is a part of what it is. Null for one without. */
async function keyedOf(c: EdgeContext, { upstream }: Target): Promise<Answer<Keyed | null>> {
  if (c.req.header("idempotency-key") === undefined) return ok(null);
  const bytes = await readBytes(c.req.raw);
  if (!bytes.ok) return bytes;
  const idempotency = await idempotencyOf(c, `/v1/proxy/${upstream}`, { bytes: bytes.value, mediaType: "" });
  return idempotency.ok ? ok({ bytes: bytes.value, idempotency: idempotency.value! }) : idempotency;
}

function goalOf(c: EdgeContext): Answer<GoalId | undefined> {
  const text = c.req.header("drover-goal");
  if (text === undefined) return ok(undefined);
  const goalId = parseGoalId(text);
  const missing = (): Failure => failure("not_found", `there is no goal "${text.slice(0, SHOWN_CHARS_MAX)}", which Drover-Goal names`);
  return goalId === null ? err(missing()) : ok(goalId);
}

/** FNV-1a, 32 bits (Fowler, Noll and Vo). */
function hashOf(text: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193) >>> 0;
  return hash;
}

/** The gate's name: a goal has one of its own, and other calls are spread, so that the same key meets itself. */
function gateName(subject: string, goalId: string | undefined, key: string | undefined): string {
  if (goalId !== undefined) return `proxy-${goalId}`;
  const seed = key === undefined ? Math.random() * 2 ** 32 : hashOf(key);
  return `proxy-${subject}-${Math.floor(seed) % PROXY_SHARDS}`;
}

interface Passing {
  readonly body: ReadableStream<Uint8Array> | Uint8Array | null;
  readonly idempotency: IdempotencyKey | undefined;
  readonly waitMs: number;
  readonly reserve: Reserve | undefined;
  /** Answers a call that got no permit in time. */
  readonly refused: (fault: Failure) => Response | Promise<Response>;
}

function pass(
  c: EdgeContext,
  target: Target,
  goalId: GoalId | undefined,
  { body, idempotency, waitMs, refused, reserve }: Passing,
): Promise<Response> {
  const { method, headers } = c.req.raw;
  const { claims, bearer } = c.get("caller");
  const gate = gateName(claims.subject, goalId, idempotency?.key);
  const isIdempotent = IDEMPOTENT_METHODS.has(method);
  return passThrough(
    {
      gate: c.env.GATE.get(c.env.GATE.idFromName(gate)) as unknown as GateRpc,
      network: networkOf(c.env) ?? PLAIN_NETWORK,
      waitUntil: (work) => c.executionCtx.waitUntil(work),
      refused,
    },
    { ...target, method, headers, body, isKeyed: idempotency !== undefined, isIdempotent },
    {
      gate,
      goalId,
      method,
      path: target.path,
      bearer,
      reserve,
      waitMs,
      keyed: idempotency === undefined ? undefined : { ...idempotency, isRepeatable: isIdempotent },
    },
  );
}

const orNull = (bytes: Uint8Array): Uint8Array | null => (bytes.byteLength === 0 ? null : bytes);

/** Makes the call a task, of its goal or of the caller's standing one. */
async function queue(
  c: EdgeContext,
  target: Target,
  goalId: GoalId | undefined,
  body: Uint8Array,
  key: string | undefined,
  reserve: Reserve | undefined,
): Promise<Response> {
  const { claims, bearer } = c.get("caller");
  const id = goalId ?? (await standingGoalId(claims.subject, Date.now()));
  const goal = goalStub(c.env, id);
  const fault = goalId === undefined ? await makeStanding(goal, id, claims.subject) : null;
  if (fault !== null) return fault;
  const { method, headers } = c.req.raw;
  return queueCall(goal, id, { ...target, method, headers, body, key, reserve }, bearer);
}

/** A caller who would rather come again: its call becomes a task if it cannot run soon. One with a key does at once, so that it has one place to be. */
async function passOrQueue(c: EdgeContext, target: Target, goalId: GoalId | undefined, reserve: Reserve | undefined): Promise<Response> {
  const body = await readBytes(c.req.raw);
  if (!body.ok) return problem(body.error);
  const header = c.req.header("idempotency-key");
  const key = header === undefined ? undefined : parseIdempotencyKey(header);
  if (key === null) return problem(failure("invalid_request", "the Idempotency-Key must be printable ASCII characters"));
  if (key !== undefined) return queue(c, target, goalId, body.value, key, reserve);
  return pass(c, target, goalId, {
    body: orNull(body.value),
    idempotency: undefined,
    reserve,
    waitMs: (waitSeconds(c.req.header("prefer")) ?? ASYNC_WAIT_SECONDS) * 1_000,
    refused: (fault) =>
      fault.code === "temporary_reduced_capacity" ? queue(c, target, goalId, body.value, undefined, reserve) : problem(fault),
  });
}

export async function proxied(c: EdgeContext): Promise<Response> {
  const { raw } = c.req;
  const target = targetOf(raw.url);
  if (!target.ok) return problem(target.error);
  const goalId = goalOf(c);
  if (!goalId.ok) return problem(goalId.error);
  const of = goalId.value === undefined ? { isTenantWide: true } : { goalId: goalId.value };
  const refusal = refused(c, { scopes: ["submit"], ...of, call: { ...target.value, method: raw.method } });
  if (refusal !== null) return refusal;
  const reserve = parseReserve(c.req.header("drover-reserve"));
  if (!reserve.ok) return problem(reserve.error);
  if (respondsAsync(c.req.header("prefer")) && canWait(raw.method)) {
    return passOrQueue(c, target.value, goalId.value, reserve.value);
  }
  const keyed = await keyedOf(c, target.value);
  if (!keyed.ok) return problem(keyed.error);
  return pass(c, target.value, goalId.value, {
    body: keyed.value === null ? raw.body : orNull(keyed.value.bytes),
    idempotency: keyed.value?.idempotency,
    reserve: reserve.value,
    waitMs: (waitSeconds(c.req.header("prefer")) ?? WAIT_SECONDS_MAX) * 1_000,
    refused: problem,
  });
}
