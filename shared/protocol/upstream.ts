/** An upstream: a backend that tasks call, and what it can take. */
import * as v from "valibot";
import type { Fault } from "../errors.ts";
import { ATTEMPTS_DEFAULT, ATTEMPTS_MAX, ORIGINS_MAX, TIMEOUT_MS_DEFAULT, TIMEOUT_MS_MAX, TOKENS_MAX } from "../limits.ts";
import { HEDGE_BUDGET_PERCENT_DEFAULT, HEDGE_QUANTILE_DEFAULT } from "../limits-hedging.ts";
import { err, ok, type Result } from "../result.ts";
import { faultsOf } from "./faults.ts";
import { headers, integer, object, upstreamName } from "./task-schema.ts";

/** An upstream as Drover keeps it, every default filled in. */
export interface Upstream {
  readonly name: string;
  /** Each with scheme, host and port, without a trailing slash. At least one. */
  readonly origins: readonly string[];
  /** Calls open at once, of all goals together. Null: an adaptive limit alone. */
  readonly maxConcurrency: number | null;
  /** Calls started a second, of all goals together. */
  readonly ratePerSecond: number | null;
  /** What the answers to calls may use in a minute, of all goals together. */
  readonly tokensPerMinute: number | null;
  /** What a call is taken to use until its answer says what it did. */
  readonly reserve: { readonly tokens: number; readonly costMicros?: number };
  /** Where an answer says what it used: JSON pointers (RFC 6901) into its body. */
  readonly usage: { readonly tokens: string | null; readonly costMicros?: string | null };
  readonly timeoutMs: number;
  /** `key`: the upstream honours `Idempotency-Key`, so every call to it may be repeated. */
  readonly idempotency: "none" | "key";
  readonly retry: { readonly maxAttempts: number };
  /** `off`: no two calls to it share an answer. Left out, or `safe`: GET and HEAD that are passed through do while one is under way, and what says `coalesce`. */
  readonly coalesce?: "safe" | "off";
  readonly headers: Readonly<Record<string, string>>;
  /** Left out or null: no call is ever sent a second time while it is open. */
  readonly hedge?: Hedging | null;
}

/** Calls that take longer than this share of all may be sent a second time, up to so many of a hundred. */
export interface Hedging {
  readonly quantile: number;
  readonly budgetPercent: number;
}

const JSON_POINTER = /^(?:\/(?:[^~/]|~[01])*)+$/;

/** Scheme, host and port. A path, a query or credentials would hide what is called. */
const ORIGIN = /^https?:\/\/(?:[a-z0-9_.-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?\/?$/i;
const origin = v.pipe(v.string(), v.regex(ORIGIN, "must be http(s)://host[:port], without a path, a query or credentials"));

const pointer = v.pipe(
  v.string(),
  v.maxLength(256, "must have at most 256 characters"),
  v.regex(JSON_POINTER, "must be a JSON pointer, such as /usage/total_tokens"),
);

const between = (least: number, most: number) =>
  v.pipe(v.number(), v.minValue(least, `must be at least ${least}`), v.maxValue(most, `must be at most ${most}`));

const hedging = v.pipe(
  object({
    quantile: v.optional(between(0.5, 0.999), HEDGE_QUANTILE_DEFAULT),
    budgetPercent: v.optional(between(0.1, 50), HEDGE_BUDGET_PERCENT_DEFAULT),
  }),
  v.check(
    ({ quantile, budgetPercent }) => budgetPercent + 1e-9 >= 100 * (1 - quantile),
    "has a budgetPercent below 100 * (1 - quantile): it would be spent on calls that are hardly slow, before a straggler comes",
  ),
);

const schema = v.pipe(
  object({
    origin: v.optional(origin),
    origins: v.optional(
      v.pipe(
        v.array(origin),
        v.minLength(1, "needs at least one origin"),
        v.maxLength(ORIGINS_MAX, `takes at most ${ORIGINS_MAX} origins`),
      ),
    ),
    maxConcurrency: v.optional(integer(1, 10_000)),
    ratePerSecond: v.optional(v.pipe(v.number(), v.minValue(0.01, "must be at least 0.01"), v.maxValue(100_000, "must be at most 100000"))),
    tokensPerMinute: v.optional(integer(1, TOKENS_MAX)),
    reserve: v.optional(object({ tokens: v.optional(integer(0, TOKENS_MAX)), costMicros: v.optional(integer(0, TOKENS_MAX)) })),
    usage: v.optional(object({ tokens: v.optional(pointer), costMicros: v.optional(pointer) })),
    timeoutMs: v.optional(integer(1, TIMEOUT_MS_MAX)),
    idempotency: v.optional(v.picklist(["none", "key"])),
    retry: v.optional(object({ maxAttempts: integer(1, ATTEMPTS_MAX) })),
    headers: v.optional(headers),
    hedge: v.optional(v.lazy((said) => (said === false ? v.literal(false) : hedging))),
    coalesce: v.optional(v.picklist(["safe", "off"], 'must be "safe" or "off"')),
  }),
  v.check(
    (spec) => spec.tokensPerMinute === undefined || spec.usage?.tokens !== undefined || (spec.reserve?.tokens ?? 0) > 0,
    "has tokensPerMinute, so it needs usage.tokens or reserve.tokens: otherwise nobody knows what a call uses",
  ),
  v.check((spec) => (spec.origin === undefined) !== (spec.origins === undefined), "needs exactly one of origin, origins"),
);

/** Reads the body of `PUT /v1/upstreams/{name}`. */
export function parseUpstream(name: string, body: unknown): Result<Upstream, Fault[]> {
  const named = v.safeParse(upstreamName, name);
  if (!named.success) return err([{ pointer: "", detail: `the name ${named.issues[0].message}` }]);
  const parsed = v.safeParse(schema, body);
  if (!parsed.success) return err(faultsOf(parsed, ""));
  const spec = parsed.output;
  return ok({
    name,
    origins: [...new Set((spec.origins ?? [spec.origin!]).map((one) => one.toLowerCase().replace(/\/$/, "")))],
    maxConcurrency: spec.maxConcurrency ?? null,
    ratePerSecond: spec.ratePerSecond ?? null,
    tokensPerMinute: spec.tokensPerMinute ?? null,
    reserve: { tokens: spec.reserve?.tokens ?? 0, costMicros: spec.reserve?.costMicros ?? 0 },
    usage: { tokens: spec.usage?.tokens ?? null, costMicros: spec.usage?.costMicros ?? null },
    timeoutMs: spec.timeoutMs ?? TIMEOUT_MS_DEFAULT,
    idempotency: spec.idempotency ?? "none",
    retry: { maxAttempts: spec.retry?.maxAttempts ?? ATTEMPTS_DEFAULT },
    headers: spec.headers ?? {},
    coalesce: spec.coalesce ?? "safe",
    hedge: spec.hedge === false ? null : (spec.hedge ?? null),
  });
}
