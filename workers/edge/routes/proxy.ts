/**
 * `ANY /v1/proxy/{upstream}/{path…}`: a call passed through. A gate gives leave
 * for it; the call is made here, and its bodies stream through both ways.
 */
import { type Failure, failure } from "../../../shared/errors.ts";
import { type GoalId, parseGoalId } from "../../../shared/ids.ts";
import { PROXY_SHARDS, WAIT_SECONDS_MAX } from "../../../shared/limits.ts";
import { shardOf } from "../../../shared/protocol/lock.ts";
import { IDEMPOTENT_METHODS, type Reserve, SAFE_METHODS } from "../../../shared/protocol/task.ts";
import { err, ok } from "../../../shared/result.ts";
import type { CallAsked, FlightRpc } from "../../../shared/rpc-flight.ts";
import type { Answer, GateRpc, IdempotencyKey } from "../../../shared/rpc.ts";
import { networkOf, PLAIN_NETWORK } from "../../kit/network.ts";
import { collapse } from "../coalesce/collapse.ts";
import { beforeOf, doorKeyOf, openDoor } from "../coalesce/door.ts";
import { hashOf, keyOf, resourceOf } from "../coalesce/key.ts";
import type { Waiting } from "../coalesce/waiting.ts";
import { wishOf } from "../coalesce/wish.ts";
import { isWrite, outdate, pathsWritten } from "../coalesce/writes.ts";
import { type EdgeContext, flightStub, goalStub, TENANT_NAME } from "../context.ts";
import { readBytes } from "../middleware/body.ts";
import { idempotencyOf, parseIdempotencyKey } from "../middleware/idempotency.ts";
import { refused } from "../middleware/permit.ts";
import { respondsAsync, waitSeconds } from "../prefer.ts";
import type { Witness } from "../proxy/attempt.ts";
import { requestHeaders } from "../proxy/headers.ts";
import { canWait, makeStanding, queueCall, standingGoalId } from "../proxy/later.ts";
import { passThrough } from "../proxy/pass-through.ts";
import { parseReserve } from "../proxy/reserve.ts";
import { type Target, targetOf } from "../proxy/target.ts";
import { problem } from "../reply.ts";

const SHOWN_CHARS_MAX = 64;
/** How long a call that may become a task waits for a permit first. */
const ASYNC_WAIT_SECONDS = 1;

interface Whole {
  readonly bytes: Uint8Array;
  readonly idempotency: IdempotencyKey | undefined;
}

/** A call with a key, or one that is to be like others, is read whole, because its body is a part of what it is. Null for any other. */
async function wholeOf(c: EdgeContext, { upstream }: Target, isShared: boolean): Promise<Answer<Whole | null>> {
  const isKeyed = c.req.header("idempotency-key") !== undefined;
  if (!isKeyed && (!isShared || c.req.raw.body === null)) return ok(null);
  const bytes = await readBytes(c.req.raw);
  if (!bytes.ok) return bytes;
  const idempotency = await idempotencyOf(c, `/v1/proxy/${upstream}`, { bytes: bytes.value, mediaType: "" });
  return idempotency.ok ? ok({ bytes: bytes.value, idempotency: idempotency.value }) : idempotency;
}

function goalOf(c: EdgeContext): Answer<GoalId | undefined> {
  const text = c.req.header("drover-goal");
  if (text === undefined) return ok(undefined);
  const goalId = parseGoalId(text);
  const missing = (): Failure => failure("not_found", `there is no goal "${text.slice(0, SHOWN_CHARS_MAX)}", which Drover-Goal names`);
  return goalId === null ? err(missing()) : ok(goalId);
}

/** The gate's name: a goal has one of its own, and other calls are spread, so that the same key meets itself. */
function gateName(subject: string, goalId: string | undefined, key: string | undefined): string {
  if (goalId !== undefined) return `proxy-${goalId}`;
  const shard = key === undefined ? Math.floor(Math.random() * PROXY_SHARDS) : shardOf(key, PROXY_SHARDS);
  return `proxy-${subject}-${shard}`;
}

/** What makes a call equal to others. */
async function flightKeyOf(c: EdgeContext, target: Target, body: Uint8Array | null): Promise<string> {
  const { method, headers } = c.req.raw;
  const hash = body === null ? "" : await hashOf(body);
  return keyOf({ tenant: TENANT_NAME, ...target, method, headers: requestHeaders(headers, {}), body: hash });
}

interface Passing {
  readonly body: ReadableStream<Uint8Array> | Uint8Array | null;
  readonly idempotency: IdempotencyKey | undefined;
  readonly waitMs: number;
  readonly reserve: Reserve | undefined;
  /** Its answer may be that of an equal call. */
  readonly isShared: boolean;
  /** Answers a call that got no permit in time. */
  readonly refused: (fault: Failure) => Response | Promise<Response>;
}

const gateOf = (env: Env, name: string): GateRpc => env.GATE.get(env.GATE.idFromName(name)) as unknown as GateRpc;

/** As any request waits that comes with the same authority; so nothing in it is of one request alone. */
function waitingOf(env: Env, gate: string, call: CallAsked): Waiting {
  return { authority: JSON.stringify([call.goalId, call.bearer]), refusal: () => gateOf(env, gate).refusal(call) };
}

async function pass(c: EdgeContext, target: Target, goalId: GoalId | undefined, passing: Passing): Promise<Response> {
  const { body, idempotency, waitMs, refused, reserve } = passing;
  const { env } = c;
  const { method, headers } = c.req.raw;
  const caller = c.get("caller");
  const name = gateName(caller.claims.subject, goalId, idempotency?.key);
  const isIdempotent = IDEMPOTENT_METHODS.has(method);
  const waitUntil = (work: Promise<unknown>): void => c.executionCtx.waitUntil(work);
  const asked = { goalId, method, path: target.path, bearer: caller.bearer };
  const { failures = 0, untilMs = Date.now() + waitMs } = beforeOf(c.req.raw) ?? {};
  const shard = (number: number): FlightRpc => flightStub(env, number);
  const written = (origin: string, answer: Headers | null): Promise<void> =>
    outdate(TENANT_NAME, target.upstream, pathsWritten(origin, target.path, answer), shard);
  const make = (witness: Witness | null): Promise<Response> =>
    passThrough(
      {
        gate: gateOf(env, name),
        network: networkOf(env) ?? PLAIN_NETWORK,
        waitUntil,
        left: c.req.raw.signal,
        refused,
        written: isWrite(method) ? written : null,
      },
      { ...target, method, headers, body, isKeyed: idempotency !== undefined, isIdempotent, witness },
      {
        ...asked,
        gate: name,
        reserve,
        // It may have waited for another's answer first.
        waitMs: Math.max(0, untilMs - Date.now()),
        keyed: idempotency === undefined ? undefined : { ...idempotency, isRepeatable: isIdempotent },
      },
    );
  if (!passing.isShared || body instanceof ReadableStream) return make(null);
  const waiting = waitingOf(env, name, { ...asked, upstream: target.upstream });
  const door = doorKeyOf(c.req.raw);
  return collapse({
    key: await flightKeyOf(c, target, body),
    method,
    resource: () => (method === "GET" || method === "HEAD" ? resourceOf(TENANT_NAME, target.upstream, target.path) : null),
    shard,
    waitUntil,
    left: c.req.raw.signal,
    untilMs,
    waiting,
    failures,
    joins: (flight) => void (door !== null && openDoor(door, { flight, caller, waiting, waitMs })),
    make,
    refused,
  });
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
async function passOrQueue(
  c: EdgeContext,
  target: Target,
  goalId: GoalId | undefined,
  reserve: Reserve | undefined,
  isShared: boolean,
): Promise<Response> {
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
    isShared,
    waitMs: (waitSeconds(c.req.header("prefer")) ?? ASYNC_WAIT_SECONDS) * 1_000,
    refused: (fault) =>
      fault.code === "temporary_reduced_capacity" ? queue(c, target, goalId, body.value, undefined, reserve) : problem(fault),
  });
}

/** The platform sends neither with a body. One of no bytes is none. */
function hasBodyInVain({ method, body, headers }: Request): boolean {
  if (method !== "GET" && method !== "HEAD") return false;
  return body !== null && headers.get("content-length") !== "0";
}

export async function proxied(c: EdgeContext): Promise<Response> {
  const { raw } = c.req;
  if (hasBodyInVain(raw)) {
    const detail = `a ${raw.method} with a body cannot be passed through; leave the body out, or send it with QUERY or POST`;
    return problem(failure("invalid_request", detail));
  }
  const target = targetOf(raw.url);
  if (!target.ok) return problem(target.error);
  const goalId = goalOf(c);
  if (!goalId.ok) return problem(goalId.error);
  const of = goalId.value === undefined ? { isTenantWide: true } : { goalId: goalId.value };
  const refusal = refused(c, { scopes: ["submit"], ...of, call: { ...target.value, method: raw.method } });
  if (refusal !== null) return refusal;
  const reserve = parseReserve(c.req.header("drover-reserve"));
  if (!reserve.ok) return problem(reserve.error);
  const wish = wishOf(raw);
  if (!wish.ok) return problem(wish.error);
  if (respondsAsync(c.req.header("prefer")) && canWait(raw.method)) {
    return passOrQueue(c, target.value, goalId.value, reserve.value, wish.value);
  }
  const whole = await wholeOf(c, target.value, wish.value);
  if (!whole.ok) return problem(whole.error);
  return pass(c, target.value, goalId.value, {
    body: whole.value === null ? (SAFE_METHODS.has(raw.method) ? null : raw.body) : orNull(whole.value.bytes),
    idempotency: whole.value?.idempotency,
    reserve: reserve.value,
    isShared: wish.value,
    waitMs: (waitSeconds(c.req.header("prefer")) ?? WAIT_SECONDS_MAX) * 1_000,
    refused: problem,
  });
}
