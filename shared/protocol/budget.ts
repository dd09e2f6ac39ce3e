/** Amounts of a budget as callers give them: whole numbers by dimension. */
import * as v from "valibot";
import type { Fault } from "../errors.ts";
import { BUDGET_MAX, RESERVATION_MS_DEFAULT, RESERVATION_MS_MAX } from "../limits.ts";
import { type Amounts, amountsFrom, type Bounds, boundsFrom, type Dimension } from "../policy/account.ts";
import { err, ok, type Result } from "../result.ts";
import { faultsOf } from "./faults.ts";
import { integer, object } from "./task-schema.ts";

/** Who made a reservation, and alone may settle it: a caller, or the gate that a call passes through. */
export type Reserver = "caller" | "gate";

export type NamedAmounts = Readonly<Partial<Record<Dimension, number>>>;

const amount = v.optional(integer(0, BUDGET_MAX));
const usage = { calls: amount, tokens: amount, costMicros: amount };

/** An account as callers see it. Dimensions without a bound are left out of `limit` and `available`. */
export interface AccountView {
  readonly limit: NamedAmounts;
  readonly reserved: NamedAmounts;
  readonly spent: NamedAmounts;
  readonly available: NamedAmounts;
}

export interface BudgetView extends AccountView {
  /** Grants from the account above, where that bounds this one. */
  readonly funds: NamedAmounts;
  /** Nothing that waits can be afforded. */
  readonly exhausted: boolean;
}

/** What a goal, or a tenant, may spend. */
export const amounts = object({ tasks: amount, ...usage });

const change = v.optional(integer(-BUDGET_MAX, BUDGET_MAX));
const topUp = v.pipe(
  object({ tasks: change, calls: change, tokens: change, costMicros: change }),
  v.check((body) => Object.values(body).some((value) => value !== 0), 'names no amount; give one such as {"calls": 1000}'),
);

const reservation = v.pipe(
  object({ ...usage, ttlMs: v.optional(integer(1, RESERVATION_MS_MAX)) }),
  v.check(
    ({ calls = 0, tokens = 0, costMicros = 0 }) => calls + tokens + costMicros > 0,
    'reserves nothing; give an amount such as {"calls": 1}',
  ),
);

const settlement = object({ usage: object(usage) });

type Parsed<T> = Result<T, Fault[]>;

/** What is added to each dimension; below zero it shrinks. */
export function parseTopUp(body: unknown): Parsed<Amounts> {
  const parsed = v.safeParse(topUp, body);
  return parsed.success ? ok(amountsFrom(parsed.output)) : err(faultsOf(parsed, ""));
}

export function parseReservation(body: unknown): Parsed<{ readonly amounts: Amounts; readonly ttlMs: number }> {
  const parsed = v.safeParse(reservation, body);
  if (!parsed.success) return err(faultsOf(parsed, ""));
  return ok({ amounts: amountsFrom({ ...parsed.output, tasks: 0 }), ttlMs: parsed.output.ttlMs ?? RESERVATION_MS_DEFAULT });
}

/** What was used; null in a dimension that it does not name. */
export function parseSettlement(body: unknown): Parsed<Bounds> {
  const parsed = v.safeParse(settlement, body);
  return parsed.success ? ok(boundsFrom(parsed.output.usage)) : err(faultsOf(parsed, ""));
}

/** The limit of a tenant: a dimension that is left out has none. */
export function parseBudget(body: unknown): Parsed<Bounds> {
  const parsed = v.safeParse(amounts, body);
  return parsed.success ? ok(boundsFrom(parsed.output)) : err(faultsOf(parsed, ""));
}
