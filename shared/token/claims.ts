/**
 * What a chain of caveats leaves of everything, folded into one value, and
 * what that allows. Folding only ever intersects, so a longer chain never
 * allows more than a shorter one that it begins with.
 */
import { type Policy, type Rules, rulesOf, type Verdict } from "../policy/rules.ts";
import { type Caveat, type Ceilings, type Dimension, type ListName, type RootCaveat, type Scope, SCOPES } from "./caveats.ts";

export interface Claims {
  readonly tenant: string;
  readonly subject: string;
  /** The tenant's epoch that the token is of; null where it does not end with one. */
  readonly epoch: number | null;
  readonly scopes: ReadonlySet<Scope>;
  /** The one goal that it is for. Null: any. */
  readonly goal: { readonly id: string; readonly epoch: number } | null;
  /** It names two goals, or two epochs of one, so it is for none. */
  readonly isForNoGoal: boolean;
  readonly expiresAtMs: number | null;
  /** All of them must allow what is asked for. */
  readonly policies: readonly Policy[];
  readonly ceilings: Ceilings;
}

/** Claims that nothing has been taken from. */
export function fullClaims(tenant: string, subject: string, epoch: number | null): Claims {
  return {
    tenant,
    subject,
    epoch,
    scopes: new Set(SCOPES),
    goal: null,
    isForNoGoal: false,
    expiresAtMs: null,
    policies: [],
    ceilings: {},
  };
}

export function claimsOf(root: RootCaveat, caveats: readonly Caveat[]): Claims {
  return caveats.reduce(narrowed, fullClaims(root.tenant, root.subject, root.epoch));
}

/** The claims after one caveat more. */
export function narrowed(claims: Claims, caveat: Caveat): Claims {
  switch (caveat.type) {
    case "goal":
      return forGoal(claims, caveat.goalId, caveat.epoch ?? 0);
    case "scopes":
      return { ...claims, scopes: new Set(spelledOut(caveat.allow).filter((scope) => claims.scopes.has(scope))) };
    case "expires":
      return { ...claims, expiresAtMs: Math.min(caveat.atMs, claims.expiresAtMs ?? caveat.atMs) };
    case "budget":
      return { ...claims, ceilings: lower(claims.ceilings, caveat.max) };
    case "depth":
      return { ...claims, policies: withRule(claims.policies, "maxDepth", caveat.max) };
    default:
      return { ...claims, policies: withRule(claims.policies, caveat.type, caveat.allow) };
  }
}

function forGoal(claims: Claims, id: string, epoch: number): Claims {
  if (claims.goal === null) return { ...claims, goal: { id, epoch } };
  const isSame = claims.goal.id === id && claims.goal.epoch === epoch;
  return isSame ? claims : { ...claims, isForNoGoal: true };
}

/** The lower of two ceilings, in each dimension. */
export function lower(a: Ceilings, b: Ceilings): Ceilings {
  const both: Partial<Record<Dimension, number>> = { ...a };
  for (const [name, max] of Object.entries(b) as [Dimension, number][]) both[name] = Math.min(max, both[name] ?? max);
  return both;
}

/** Puts a rule into the last policy, or, where that has one of the kind, into a new one: lists of patterns cannot be intersected as lists. */
function withRule<R extends ListName | "maxDepth">(policies: readonly Policy[], rule: R, value: Policy[R]): readonly Policy[] {
  const last = policies.at(-1);
  if (last === undefined || last[rule] !== undefined) return [...policies, { [rule]: value }];
  return [...policies.slice(0, -1), { ...last, [rule]: value }];
}

/** Whoever may administer may do everything. */
function spelledOut(scopes: readonly Scope[]): readonly Scope[] {
  return scopes.includes("admin") ? SCOPES : scopes;
}

/** What somebody wants to do. */
export interface Wish {
  /** One of these must be held. */
  readonly scopes: readonly Scope[];
  /** The goal that it is done in. */
  readonly goalId?: string;
  /** It concerns more than one goal. */
  readonly isTenantWide?: boolean;
  readonly call?: { readonly upstream: string; readonly method: string; readonly path: string };
  readonly queue?: string;
  readonly function?: string;
  /** Levels below a root that a task would be. */
  readonly depth?: number;
}

/** Why the claims do not allow it, as a sentence that names the caveat; null where they do. */
export function refusalOf(claims: Claims, wish: Wish, nowMs: number, rules: Rules | null = rulesOfToken(claims)): string | null {
  if (claims.expiresAtMs !== null && nowMs >= claims.expiresAtMs) return 'the token has expired (caveat "expires")';
  if (!wish.scopes.some((scope) => claims.scopes.has(scope))) {
    return `the token has no scope ${wish.scopes.map((scope) => `"${scope}"`).join(" or ")} (caveat "scopes")`;
  }
  const { goal, isForNoGoal } = claims;
  if (isForNoGoal) return 'the token is for two goals, so it is for none (caveat "goal")';
  if (goal !== null && wish.isTenantWide === true) return `the token is for the goal ${goal.id} alone (caveat "goal")`;
  if (goal !== null && wish.goalId !== undefined && wish.goalId !== goal.id)
    return `the token is for the goal ${goal.id} alone (caveat "goal")`;
  return rules === null ? null : ruled(rules, wish);
}

function ruled(rules: Rules, { call, queue, function: name, depth }: Wish): string | null {
  if (call !== undefined) {
    const fault = detailOf(rules.call(call.upstream, call.method, call.path));
    if (fault !== null) return fault;
  }
  const fault = (queue === undefined ? null : detailOf(rules.work(queue))) ?? (name === undefined ? null : detailOf(rules.run(name)));
  if (fault !== null) return fault;
  return depth !== undefined && rules.depth !== null && depth > rules.depth.max
    ? 'the token does not allow tasks so deep (caveat "depth")'
    : null;
}

const detailOf = (verdict: Verdict): string | null => (typeof verdict === "string" ? null : verdict.detail);

export function allowed(claims: Claims, wish: Wish, nowMs: number): boolean {
  return refusalOf(claims, wish, nowMs) === null;
}

const TOKEN = "the token";

/** The token's lists as one check; null where it has none. */
export function rulesOfToken({ policies }: Claims): Rules | null {
  return rulesOf([{ from: TOKEN, policies }]);
}

/** What an object has to know of the token behind a request. */
export interface Bearer {
  /** The epoch of the goal that the token is for; left out where it is for none in particular. */
  readonly epoch?: number;
  readonly policies: readonly Policy[];
}

export function bearerOf({ goal, policies }: Claims): Bearer {
  return goal === null ? { policies } : { epoch: goal.epoch, policies };
}
