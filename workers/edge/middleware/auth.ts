/**
 * Nothing but the public routes answers without a token. The root token may do
 * everything; digests are compared, in constant time, so neither its text nor
 * its length shows in how long a refusal takes. Tokens are never logged.
 */
import type { Next } from "hono";
import { type Failure, failure } from "../../../shared/errors.ts";
import { ok } from "../../../shared/result.ts";
import type { Answer } from "../../../shared/rpc.ts";
import { TOKEN_PREFIX } from "../../../shared/token.ts";
import { fullClaims } from "../../../shared/token/claims.ts";
import { type EdgeContext, TENANT_NAME, tenantStub } from "../context.ts";
import { problem } from "../reply.ts";
import { type Caller, callerOf } from "../tokens/caller.ts";
import { exactEpoch, recentEpoch } from "../tokens/epoch.ts";
import { callerByIdentity, identityOf } from "../tokens/identity.ts";
import { keyRing } from "../tokens/keys.ts";
import { callerByToken, unauthorized } from "../tokens/verify.ts";

const SECRET_CHARS_MIN = 16;
/** The shape of a JSON Web Token. Drover's own tokens begin otherwise. */
const JWT = /^eyJ[\w-]+\.[\w-]+\.[\w-]+$/;
const BEARER = /^Bearer +([\x21-\x7e]+) *$/i;

const digest = (text: string): Promise<ArrayBuffer> => crypto.subtle.digest("SHA-256", new TextEncoder().encode(text));

const ROOT = callerOf(fullClaims(TENANT_NAME, "root", null), { kind: "root" });

/**
 * The last token that was right, so that the hot path hashes nothing. Only the
 * secret itself can stand here, so it needs no bound, and a new secret ends it.
 */
let proven: { readonly secret: string; readonly tokens: ReadonlySet<string> } | null = null;

/** A failure where no request can be let in, because the deployment has no usable secret. */
export function secretFailure(env: Env): Failure | null {
  // The binding's type is a promise that a deployment may not have kept.
  const secret = env.ROOT_TOKEN as string | undefined;
  if (typeof secret === "string" && secret.length >= SECRET_CHARS_MIN) {
    const wrong = [keyRing(env), identityOf(env)].find((each) => typeof each === "string");
    return wrong === undefined ? null : failure("temporary_reduced_capacity", wrong);
  }
  const detail = `the secret ROOT_TOKEN is missing or shorter than ${SECRET_CHARS_MIN} characters; set it with \`wrangler secret put ROOT_TOKEN\``;
  return failure("temporary_reduced_capacity", detail);
}

async function callerByRootToken(secret: string, text: string): Promise<Answer<Caller>> {
  // A set looks its members up by a seeded hash, which tells a caller nothing.
  if (proven?.secret === secret && proven.tokens.has(text)) return ok(ROOT);
  const [given, wanted] = await Promise.all([digest(text), digest(secret)]);
  if (!crypto.subtle.timingSafeEqual(given, wanted)) return unauthorized("the bearer token is not valid");
  proven = { secret, tokens: new Set([text]) };
  return ok(ROOT);
}

/** Whom the `Authorization` header speaks for. */
async function authenticate(env: Env, header: string | undefined): Promise<Answer<Caller>> {
  if (header === undefined) return unauthorized("send the header Authorization: Bearer <token>");
  const text = BEARER.exec(header)?.[1];
  if (text === undefined) return unauthorized("the Authorization header must be: Bearer <token>");
  const identity = identityOf(env);
  if (JWT.test(text) && identity !== null && typeof identity !== "string") return callerByIdentity(identity, text, TENANT_NAME);
  const ring = keyRing(env);
  if (text.startsWith(TOKEN_PREFIX) && typeof ring !== "string") return callerByToken(ring, text, TENANT_NAME);
  return callerByRootToken(env.ROOT_TOKEN, text);
}

/** Why a token that is genuine is worth nothing now; null where it is. `isExact`: also a revocation of this very moment counts. */
export async function endOf(env: Env, { claims }: Caller, isExact: boolean): Promise<Failure | null> {
  if (claims.expiresAtMs !== null && Date.now() >= claims.expiresAtMs) {
    return failure("unauthorized", 'the bearer token has expired (caveat "expires")');
  }
  if (claims.epoch === null) return null;
  const ask = (): Promise<number> => tenantStub(env).tokenEpoch();
  const epoch = await (isExact ? exactEpoch(ask) : recentEpoch(ask));
  return epoch === claims.epoch ? null : failure("unauthorized", "the bearer token was revoked with all others of its tenant");
}

export async function auth(c: EdgeContext, next: Next): Promise<Response | undefined> {
  const misconfigured = secretFailure(c.env);
  if (misconfigured !== null) return problem(misconfigured);
  const caller = await authenticate(c.env, c.req.header("authorization"));
  if (!caller.ok) return problem(caller.error);
  const end = await endOf(c.env, caller.value, false);
  if (end !== null) return problem(end);
  c.set("caller", caller.value);
  await next();
  return undefined;
}
