/**
 * `ANY /v1/proxy/{upstream}/{path…}`: a call passed through. A gate gives leave
 * for it; the call is made here, and its bodies stream through both ways.
 */
import { type Failure, failure } from "../../../shared/errors.ts";
import { parseGoalId } from "../../../shared/ids.ts";
import { PROXY_SHARDS, WAIT_SECONDS_MAX } from "../../../shared/limits.ts";
import { IDEMPOTENT_METHODS } from "../../../shared/protocol/task.ts";
import { err, ok } from "../../../shared/result.ts";
import type { Answer, GateRpc, IdempotencyKey } from "../../../shared/rpc.ts";
import { networkOf, PLAIN_NETWORK } from "../../kit/network.ts";
import type { EdgeContext } from "../context.ts";
import { readBytes } from "../middleware/body.ts";
import { idempotencyOf } from "../middleware/idempotency.ts";
import { waitSeconds } from "../prefer.ts";
import { passThrough } from "../proxy/pass-through.ts";
import { type Target, targetOf } from "../proxy/target.ts";
import { problem } from "../reply.ts";

/** There is one token for now, and this is its subject. */
const SUBJECT = "root";
const SHOWN_CHARS_MAX = 64;

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

function goalOf(c: EdgeContext): Answer<string | undefined> {
  const text = c.req.header("drover-goal");
  if (text === undefined) return ok(text);
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
function gateName(goalId: string | undefined, key: string | undefined): string {
  if (goalId !== undefined) return `proxy-${goalId}`;
  const seed = key === undefined ? Math.random() * 2 ** 32 : hashOf(key);
  return `proxy-${SUBJECT}-${Math.floor(seed) % PROXY_SHARDS}`;
}

export async function proxied(c: EdgeContext): Promise<Response> {
  const { raw } = c.req;
  const target = targetOf(raw.url);
  if (!target.ok) return problem(target.error);
  const goalId = goalOf(c);
  if (!goalId.ok) return problem(goalId.error);
  const keyed = await keyedOf(c, target.value);
  if (!keyed.ok) return problem(keyed.error);
  const idempotency = keyed.value?.idempotency;
  const gate = gateName(goalId.value, idempotency?.key);
  const isIdempotent = IDEMPOTENT_METHODS.has(raw.method);
  const bytes = keyed.value?.bytes;
  const body = bytes === undefined ? raw.body : bytes.byteLength === 0 ? null : bytes;
  return passThrough(
    {
      gate: c.env.GATE.get(c.env.GATE.idFromName(gate)) as unknown as GateRpc,
      network: networkOf(c.env) ?? PLAIN_NETWORK,
      waitUntil: (work) => c.executionCtx.waitUntil(work),
    },
    { ...target.value, method: raw.method, headers: raw.headers, body, isKeyed: idempotency !== undefined, isIdempotent },
    {
      gate,
      goalId: goalId.value,
      waitMs: (waitSeconds(c.req.header("prefer")) ?? WAIT_SECONDS_MAX) * 1_000,
      keyed: idempotency === undefined ? undefined : { ...idempotency, isRepeatable: isIdempotent },
    },
  );
}
