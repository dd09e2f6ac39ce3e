/**
 * From a token's text to who it speaks for. What was proven once is remembered
 * by its text, up to a bound, for as long as the keys are the same; whether it
 * has expired, or was revoked, is asked every time.
 */
import { failure } from "../../../shared/errors.ts";
import { TOKEN_CACHE_MAX } from "../../../shared/limits.ts";
import { err, ok } from "../../../shared/result.ts";
import type { Answer } from "../../../shared/rpc.ts";
import { decodeToken, isGenuine } from "../../../shared/token.ts";
import { claimsOf } from "../../../shared/token/claims.ts";
import { type Caller, callerOf } from "./caller.ts";
import type { KeyRing } from "./keys.ts";

export const unauthorized = (detail: string) => err(failure("unauthorized", detail));

/** Callers that were proven, by their token's text, the oldest first. A map finds its keys by a seeded hash, which tells nobody anything. */
export class Proven {
  readonly #callers = new Map<string, Caller>();
  #keys: unknown = null;

  /** Null for a text that was not proven with these keys. */
  find(keys: unknown, text: string): Caller | null {
    return this.#keys === keys ? (this.#callers.get(text) ?? null) : null;
  }

  keep(keys: unknown, text: string, caller: Caller): void {
    if (this.#keys !== keys) this.#callers.clear();
    this.#keys = keys;
    this.#callers.set(text, caller);
    if (this.#callers.size <= TOKEN_CACHE_MAX) return;
    const [oldest] = this.#callers.keys();
    this.#callers.delete(oldest!);
  }
}

const proven = new Proven();

/** Says of no token why its signature is wrong: there is only right and wrong. */
export async function verifyToken(ring: KeyRing, text: string, tenant: string): Promise<Answer<Caller>> {
  const decoded = decodeToken(text);
  if (!decoded.ok) return unauthorized(`the bearer token is not valid: ${decoded.error}`);
  const token = decoded.value;
  const key = token.root.tenant === tenant ? ring.keyOf(token.root.key, tenant) : null;
  if (key === null || !isGenuine(await key, token)) return unauthorized("the bearer token is not valid");
  return ok(callerOf(claimsOf(token.root, token.caveats), { kind: "token", token }));
}

export async function callerByToken(ring: KeyRing, text: string, tenant: string): Promise<Answer<Caller>> {
  const known = proven.find(ring, text);
  if (known !== null) return ok(known);
  const verified = await verifyToken(ring, text, tenant);
  if (verified.ok) proven.keep(ring, text, verified.value);
  return verified;
}
