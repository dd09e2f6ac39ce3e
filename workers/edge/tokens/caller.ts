/** Who is behind a request, and what of that its objects have to know. */
import type { Rules } from "../../../shared/policy/rules.ts";
import type { Token } from "../../../shared/token.ts";
import type { Caveat } from "../../../shared/token/caveats.ts";
import { type Bearer, bearerOf, type Claims, rulesOfToken } from "../../../shared/token/claims.ts";

/** Where a caller's rights come from: what a new token of theirs begins with. */
export type Source =
  | { readonly kind: "root" }
  | { readonly kind: "token"; readonly token: Token }
  | { readonly kind: "identity"; readonly caveats: readonly Caveat[] };

export interface Caller {
  readonly claims: Claims;
  readonly source: Source;
  /** Undefined where nothing restricts what objects do for them. */
  readonly bearer: Bearer | undefined;
  readonly rules: Rules | null;
}

export function callerOf(claims: Claims, source: Source): Caller {
  const isPlain = claims.goal === null && claims.policies.length === 0;
  return { claims, source, bearer: isPlain ? undefined : bearerOf(claims), rules: rulesOfToken(claims) };
}
