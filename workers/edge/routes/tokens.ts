/** `/v1/tokens`: a token from the caller's own rights, with caveats more; and the end of tokens that are out. */
import * as v from "valibot";
import { type Failure, failure, type Fault } from "../../../shared/errors.ts";
import { parseGoalId } from "../../../shared/ids.ts";
import { CAVEATS_MAX, CAVEAT_TEXT_CHARS_MAX, DURATION_MS_MAX, TOKEN_CHARS_MAX } from "../../../shared/limits.ts";
import { integer, object } from "../../../shared/protocol/task-schema.ts";
import { ok } from "../../../shared/result.ts";
import type { Answer } from "../../../shared/rpc.ts";
import { mintToken, narrowToken } from "../../../shared/token.ts";
import { type Caveat, CAVEAT_TYPES, isCaveat } from "../../../shared/token/caveats.ts";
import { narrowed } from "../../../shared/token/claims.ts";
import { type EdgeContext, goalStub, TENANT_NAME, tenantStub } from "../context.ts";
import { bySchema, invalid, readAs } from "../middleware/shape.ts";
import { refused } from "../middleware/permit.ts";
import { json, problem, respond } from "../reply.ts";
import type { Caller } from "../tokens/caller.ts";
import { exactEpoch } from "../tokens/epoch.ts";
import { hmac, type KeyRing, keyRing } from "../tokens/keys.ts";

const newToken = object({
  caveats: v.optional(v.pipe(v.array(v.unknown()), v.maxLength(CAVEATS_MAX, `must have at most ${CAVEATS_MAX} caveats`))),
  ttlMs: v.optional(integer(1, DURATION_MS_MAX)),
  subject: v.optional(v.pipe(v.string(), v.minLength(1, "must not be empty"), v.maxLength(CAVEAT_TEXT_CHARS_MAX))),
});
const revocation = object({
  goalId: v.optional(
    v.pipe(
      v.string(),
      v.check((id) => parseGoalId(id) !== null, "must be a goal's id"),
    ),
  ),
});

function caveatFaults(caveats: readonly unknown[]): Fault[] {
  const detail = `must be a caveat, an object whose type is one of ${CAVEAT_TYPES.join(", ")}, with that type's properties and no others`;
  return caveats.flatMap((caveat, i) => (isCaveat(caveat) ? [] : [{ pointer: `/caveats/${i}`, detail }]));
}

/** The caveat as it is signed: one for a goal says the epoch that the goal is at. */
async function completed(c: EdgeContext, caveat: Caveat): Promise<Answer<Caveat>> {
  if (caveat.type !== "goal" || caveat.epoch !== undefined) return ok(caveat);
  const view = await goalStub(c.env, parseGoalId(caveat.goalId)!).view(c.get("caller").bearer);
  return view.ok ? ok({ ...caveat, epoch: view.value.epoch }) : view;
}

/** Where the caller has no token of Drover's to go on from, one is begun. */
async function begun(env: Env, ring: KeyRing, caller: Caller, caveats: readonly Caveat[], subject: string): Promise<string> {
  if (caller.source.kind === "token") return narrowToken(hmac, caller.source.token, caveats);
  const epoch = await exactEpoch(() => tenantStub(env).tokenEpoch());
  const own = caller.source.kind === "identity" ? caller.source.caveats : [];
  const root = { type: "root", tenant: TENANT_NAME, key: ring.first, epoch, subject } as const;
  return mintToken(hmac, await ring.keyOf(ring.first, TENANT_NAME)!, root, [...own, ...caveats]);
}

export async function createToken(c: EdgeContext): Promise<Response> {
  const request = await readAs(c.req.raw, "the request", bySchema(newToken));
  if (!request.ok) return problem(request.error);
  const { caveats: given = [], ttlMs, subject } = request.value.value;
  const errors = caveatFaults(given);
  if (errors.length > 0) return problem(invalid("the request", errors));
  const caller = c.get("caller");
  if (subject !== undefined && caller.source.kind !== "root") {
    return problem(failure("permission_denied", "only the root token names another subject; a token keeps its own"));
  }
  const caveats: Caveat[] = [];
  for (const caveat of given as readonly Caveat[]) {
    const goal = caveat.type === "goal" ? refused(c, { scopes: [...caller.claims.scopes], goalId: caveat.goalId }) : null;
    if (goal !== null) return goal;
    const whole = await completed(c, caveat);
    if (!whole.ok) return problem(whole.error);
    caveats.push(whole.value);
  }
  if (ttlMs !== undefined) caveats.push({ type: "expires", atMs: Date.now() + ttlMs });
  const after = caveats.reduce(narrowed, caller.claims);
  if (after.isForNoGoal) return problem(failure("permission_denied", 'the token would be for two goals, so for none (caveat "goal")'));
  const token = await begun(c.env, keyRing(c.env) as KeyRing, caller, caveats, subject ?? caller.claims.subject);
  const fault = tooLong(token, caveats.length);
  return fault === null ? json(JSON.stringify({ token }), 201) : problem(fault);
}

function tooLong(token: string, added: number): Failure | null {
  if (token.length <= TOKEN_CHARS_MAX) return null;
  return failure("invalid_request", `the token would have more than ${TOKEN_CHARS_MAX} characters with these ${added} caveats`);
}

async function revokeTenant(env: Env): Promise<Answer<{ epoch: number }>> {
  const ask = (): Promise<number> => tenantStub(env).tokenEpoch();
  const epoch = await exactEpoch(ask);
  await tenantStub(env).revokeTokens(epoch);
  // So that this isolate is the first to know.
  return ok({ epoch: await exactEpoch(ask) });
}

export async function revokeTokens(c: EdgeContext): Promise<Response> {
  const request = await readAs(c.req.raw, "the request", bySchema(revocation));
  if (!request.ok) return problem(request.error);
  const { goalId } = request.value.value;
  const refusal = refused(c, { scopes: ["admin"], ...(goalId === undefined ? { isTenantWide: true } : { goalId }) });
  if (refusal !== null) return refusal;
  const revoked = goalId === undefined ? revokeTenant(c.env) : goalStub(c.env, parseGoalId(goalId)!).revokeTokens(c.get("caller").bearer);
  return respond(await revoked, ({ epoch }) => json(JSON.stringify({ ...(goalId !== undefined && { goalId }), epoch })));
}
