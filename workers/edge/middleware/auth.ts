/**
 * Nothing but the public routes answers without the root token. Digests are
 * compared, in constant time, so neither the token's text nor its length shows
 * in how long a refusal takes. Tokens are never logged.
 */
import type { Next } from "hono";
import { type Failure, failure } from "../../../shared/errors.ts";
import { err, ok } from "../../../shared/result.ts";
import type { Answer } from "../../../shared/rpc.ts";
import type { EdgeContext } from "../context.ts";
import { problem } from "../reply.ts";

const SECRET_CHARS_MIN = 16;
const BEARER = /^Bearer +([\x21-\x7e]+) *$/i;

const unauthorized = (detail: string) => err(failure("unauthorized", detail));
const digest = (text: string): Promise<ArrayBuffer> => crypto.subtle.digest("SHA-256", new TextEncoder().encode(text));

/**
 * The last token that was right, so that the hot path hashes nothing. Only the
 * secret itself can stand here, so it needs no bound, and a new secret ends it.
 */
let proven: { readonly secret: string; readonly tokens: ReadonlySet<string> } | null = null;

/** A failure where no request can be let in, because the deployment has no usable secret. */
export function secretFailure(env: Env): Failure | null {
  // The binding's type is a promise that a deployment may not have kept.
  const secret = env.ROOT_TOKEN as string | undefined;
  if (typeof secret === "string" && secret.length >= SECRET_CHARS_MIN) return null;
  const detail = `the secret ROOT_TOKEN is missing or shorter than ${SECRET_CHARS_MIN} characters; set it with \`wrangler secret put ROOT_TOKEN\``;
  return failure("temporary_reduced_capacity", detail);
}

/** Whether the `Authorization` header carries the root token. */
async function authorize(header: string | undefined, secret: string): Promise<Answer<null>> {
  if (header === undefined) return unauthorized("send the header Authorization: Bearer <token>");
  const token = BEARER.exec(header)?.[1];
  if (token === undefined) return unauthorized("the Authorization header must be: Bearer <token>");
  // A set looks its members up by a seeded hash, which tells a caller nothing.
  if (proven?.secret === secret && proven.tokens.has(token)) return ok(null);
  const [given, wanted] = await Promise.all([digest(token), digest(secret)]);
  if (!crypto.subtle.timingSafeEqual(given, wanted)) return unauthorized("the bearer token is not valid");
  proven = { secret, tokens: new Set([token]) };
  return ok(null);
}

export async function auth(c: EdgeContext, next: Next): Promise<Response | undefined> {
  const misconfigured = secretFailure(c.env);
  if (misconfigured !== null) return problem(misconfigured);
  const authorized = await authorize(c.req.header("authorization"), c.env.ROOT_TOKEN);
  if (!authorized.ok) return problem(authorized.error);
  await next();
  return undefined;
}
