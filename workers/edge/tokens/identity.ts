/**
 * Callers that an identity provider speaks for: a JSON Web Token (RFC 7519) of
 * the one issuer that the variable IDENTITY names, signed by a key of its JWKS
 * (RFC 7517) with an algorithm that is listed. Its claims become caveats.
 */
import { createRemoteJWKSet, errors, type JWTPayload, jwtVerify, type JWTVerifyGetKey } from "jose";
import * as v from "valibot";
import { type Failure, failure } from "../../../shared/errors.ts";
import { CAVEAT_TEXT_CHARS_MAX, CAVEATS_MAX } from "../../../shared/limits.ts";
import { faultsOf } from "../../../shared/protocol/faults.ts";
import { object } from "../../../shared/protocol/task-schema.ts";
import { err, ok } from "../../../shared/result.ts";
import type { Answer } from "../../../shared/rpc.ts";
import { type Caveat, CAVEAT_TYPES, isCaveat, SCOPES } from "../../../shared/token/caveats.ts";
import { fullClaims, narrowed } from "../../../shared/token/claims.ts";
import { type Caller, callerOf } from "./caller.ts";
import { Proven, unauthorized } from "./verify.ts";

/** Signatures alone: whoever knows a shared secret could make tokens, and `none` anybody. */
const ALGORITHMS = ["ES256", "ES384", "ES512", "PS256", "PS384", "PS512", "RS256", "RS384", "RS512", "EdDSA", "Ed25519"] as const;
const JWKS_AGE_MS_MAX = 600_000;
/** How soon an unknown key makes the keys be fetched again. */
const JWKS_COOLDOWN_MS = 30_000;
const JWKS_TIMEOUT_MS = 5_000;
const CLOCK_TOLERANCE_SECONDS = 30;

const text = v.pipe(v.string(), v.minLength(1), v.maxLength(1_024));
const caveat = v.custom<Caveat>(isCaveat, "must be a caveat");
const claim = object({ claim: text, type: v.picklist(CAVEAT_TYPES), optional: v.optional(v.boolean()) });
const schema = v.pipe(
  object({
    issuer: text,
    audience: text,
    jwksUrl: v.pipe(text, v.regex(/^https?:\/\//, "must be an http(s) URL")),
    algorithms: v.pipe(v.array(v.picklist(ALGORITHMS)), v.minLength(1, "must list an algorithm")),
    caveats: v.optional(v.pipe(v.array(caveat), v.maxLength(CAVEATS_MAX)), []),
    claims: v.optional(v.pipe(v.array(claim), v.maxLength(CAVEATS_MAX)), []),
  }),
  v.check(
    ({ caveats, claims }) => [...caveats, ...claims].some((each) => each.type === "scopes" && !("optional" in each && each.optional)),
    "must restrict scopes, by a caveat or by a claim that is not optional: otherwise everybody whom the provider knows may do everything",
  ),
);

export interface Identity {
  readonly settings: v.InferOutput<typeof schema>;
  readonly keys: JWTVerifyGetKey;
}

let current: { readonly text: string | undefined; readonly identity: Identity | string | null } | null = null;

/** The provider that IDENTITY names, null where there is none, or what is wrong with it. The same object for as long as it is the same. */
export function identityOf(env: Env): Identity | string | null {
  const text = (env as { readonly IDENTITY?: string }).IDENTITY || undefined;
  if (current === null || current.text !== text) current = { text, identity: text === undefined ? null : parsed(text) };
  return current.identity;
}

function parsed(text: string): Identity | string {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return "the variable IDENTITY is not JSON";
  }
  const settings = v.safeParse(schema, value);
  if (!settings.success) {
    const { pointer, detail } = faultsOf(settings, "")[0]!;
    return `the variable IDENTITY is not valid: ${pointer || "it"} ${detail}`;
  }
  const options = { cacheMaxAge: JWKS_AGE_MS_MAX, cooldownDuration: JWKS_COOLDOWN_MS, timeoutDuration: JWKS_TIMEOUT_MS };
  return { settings: settings.output, keys: createRemoteJWKSet(new URL(settings.output.jwksUrl), options) };
}

const proven = new Proven();

export async function callerByIdentity(identity: Identity, token: string, tenant: string): Promise<Answer<Caller>> {
  const known = proven.find(identity, token);
  if (known !== null) return ok(known);
  const verified = await verify(identity, token);
  if (!verified.ok) return verified;
  const caller = callerFrom(identity, verified.value, tenant);
  if (caller.ok) proven.keep(identity, token, caller.value);
  return caller;
}

async function verify({ settings, keys }: Identity, token: string): Promise<Answer<JWTPayload>> {
  const { issuer, audience, algorithms } = settings;
  try {
    const options = { issuer, audience, algorithms, requiredClaims: ["exp", "sub"], clockTolerance: CLOCK_TOLERANCE_SECONDS };
    return ok((await jwtVerify(token, keys, options)).payload);
  } catch (error) {
    return err(failureOf(error));
  }
}

/** What is the token's fault is told apart from what is the provider's. */
function failureOf(error: unknown): Failure {
  const isOfToken = error instanceof errors.JOSEError && !(error instanceof errors.JWKSTimeout) && !(error instanceof errors.JWKSInvalid);
  if (isOfToken && error.code !== "ERR_JOSE_GENERIC") return failure("unauthorized", `the bearer token is not valid: ${error.message}`);
  console.warn(`the keys of the identity provider cannot be had: ${String(error)}`);
  return failure("temporary_reduced_capacity", "the identity provider's keys cannot be had right now", { retryAfterMs: 1_000 });
}

function callerFrom({ settings }: Identity, payload: JWTPayload, tenant: string): Answer<Caller> {
  const subject = `identity:${payload.sub!}`;
  if (subject.length > CAVEAT_TEXT_CHARS_MAX)
    return unauthorized(`the claim "sub" must have fewer than ${CAVEAT_TEXT_CHARS_MAX} characters`);
  const caveats: Caveat[] = [...settings.caveats];
  for (const { claim: name, type, optional } of settings.claims) {
    const value = payload[name];
    if (value === undefined && optional === true) continue;
    const made = value === undefined ? null : caveatOf(type, value);
    if (!isCaveat(made)) return unauthorized(`the claim "${name}" of the bearer token does not say its ${type}`);
    caveats.push(made);
  }
  caveats.push({ type: "expires", atMs: Math.floor(payload.exp! * 1_000) });
  return ok(callerOf(caveats.reduce(narrowed, fullClaims(tenant, subject, null)), { kind: "identity", caveats }));
}

/** The claim's value as a caveat of a type, whatever it is worth. */
function caveatOf(type: Caveat["type"], value: unknown): unknown {
  // OAuth writes lists with spaces (RFC 6749 §3.3).
  const list = typeof value === "string" ? value.split(" ").filter((word) => word !== "") : value;
  switch (type) {
    case "goal":
      return { type, goalId: value };
    case "budget":
    case "depth":
      return { type, max: value };
    case "expires":
      return { type, atMs: value };
    case "scopes":
      // Others are for others.
      return { type, allow: Array.isArray(list) ? list.filter((word) => SCOPES.includes(word)) : list };
    default:
      return { type, allow: list };
  }
}
