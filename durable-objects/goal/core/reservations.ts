/**
 * What callers ask of the goal's budget: more of it, or less; a part of it set
 * aside for work that they do themselves; and what the account above answered.
 */
import { type Failure, failure } from "../../../shared/errors.ts";
import { BUDGET_MAX, FUNDS_ASK_INTERVAL_MS, FUNDS_RETRY_MS, RESERVATIONS_MAX } from "../../../shared/limits.ts";
import { type Amounts, type Bounds, canReserve, DIMENSIONS, isWithinLimit, limitAfter, NOTHING } from "../../../shared/policy/account.ts";
import type { Reserver } from "../../../shared/protocol/budget.ts";
import { err, ok, type Result } from "../../../shared/result.ts";
import { note, setBoundsAbove, takeGrantFromAbove } from "./budget.ts";
import type { Recorder } from "./recorder.ts";
import { noteRefusal } from "./run-state.ts";
import type { GoalState } from "./state.ts";
import { type Drawn, drawTab, type DrawTab, overdueTabs } from "./tabs.ts";

export type BudgetCommand =
  /** Added to the limit; below zero it shrinks. It must not rise above the ceilings of who asks. */
  | { readonly kind: "top-up"; readonly amounts: Amounts; readonly ceilings: Bounds }
  | { readonly kind: "reserve"; readonly by: Reserver; readonly amounts: Amounts; readonly ttlMs: number }
  /** `used`: null where all that was reserved is given back. What it leaves null was used as reserved. */
  | { readonly kind: "settle-reservation"; readonly by: Reserver; readonly reservation: number; readonly used: Bounds | null }
  /** The account above answered a request that needed so much in total; null where it could not be asked. */
  | { readonly kind: "funded"; readonly need: Amounts; readonly funds: Bounds | null }
  | DrawTab
  /** The account above may have more than when it was last asked. */
  | { readonly kind: "ask-again" };

type Reply = Result<{ readonly reservation?: number; readonly drawn?: Drawn }, Failure>;

const DONE: Reply = ok({});

export function decideBudget(rec: Recorder, command: BudgetCommand): Reply {
  switch (command.kind) {
    case "top-up":
      return topUp(rec, command.amounts, command.ceilings);
    case "reserve":
      return reserveFor(rec, command);
    case "settle-reservation":
      return settleReservation(rec, command);
    case "tab":
      return drawFrom(rec, command);
    case "funded":
      takeFunds(rec, command.need, command.funds);
      return DONE;
    case "ask-again":
      rec.state.budget.funding.dueAtMs = 0;
      rec.state.budget.funding.hasNews = true;
      return DONE;
  }
}

function topUp(rec: Recorder, amounts: Amounts, ceilings: Bounds): Reply {
  const limit = limitAfter(rec.state.budget.account, amounts, BUDGET_MAX);
  if (!("fault" in limit)) {
    const high = amounts.findIndex((amount, d) => amount > 0 && limit[d]! > (ceilings[d] ?? BUDGET_MAX));
    if (high >= 0) {
      return err(failure("permission_denied", `the token gives no goal more than ${ceilings[high]} ${DIMENSIONS[high]} (caveat "budget")`));
    }
    note(rec, { kind: "budget.limited", limit });
    noteNews(rec);
    return DONE;
  }
  const { fault, dimension } = limit;
  const pointed = (detail: string): Reply => err(failure("invalid_request", detail, { errors: [{ pointer: `/${dimension}`, detail }] }));
  if (fault === "unlimited") return pointed(`the goal has no limit of ${dimension}; there is nothing to add to`);
  if (fault === "too large") return pointed(`a limit must be at most ${BUDGET_MAX}`);
  return err(failure("conflict", `the limit of ${dimension} cannot fall below what is spent, reserved and granted`));
}

/** There is more, or less: whether it is enough shows when tasks are to be started, which in a paused goal is later. */
function noteNews(rec: Recorder): void {
  if (rec.state.budget.isExhausted) note(rec, { kind: "budget.exhausted", isExhausted: false });
}

export const exhausted = (what: string): Failure =>
  failure("budget_exhausted", `the goal's budget does not allow ${what}; add to it first`);

function reserveFor(rec: Recorder, { by, amounts, ttlMs }: Extract<BudgetCommand, { kind: "reserve" }>): Reply {
  const { budget } = rec.state;
  if (budget.reservations.size >= RESERVATIONS_MAX) {
    return err(failure("quota_exceeded", `${RESERVATIONS_MAX} reservations of this goal are open, which is the most; settle some first`));
  }
  if (!canReserve(budget.account, amounts)) {
    noteRefusal(rec.state, rec.nowMs);
    return err(exhausted("this reservation"));
  }
  const id = budget.nextReservation;
  note(rec, { kind: "budget.reserved", id, by, amounts, untilMs: rec.nowMs + ttlMs });
  return ok({ reservation: id });
}

function settleReservation(rec: Recorder, { by, reservation: id, used }: Extract<BudgetCommand, { kind: "settle-reservation" }>): Reply {
  const { budget } = rec.state;
  const open = budget.reservations.get(id);
  if (open === undefined && id >= budget.nextReservation) return err(failure("not_found", "there is no such reservation in this goal"));
  if (open === undefined)
    return err(failure("conflict", "the reservation was settled or released, or it has expired and was charged in full"));
  // Whoever could take back what a call of theirs has set aside would make it for nothing.
  if (open.by !== by)
    return err(failure("conflict", "the reservation is for a call that is passed through, and is settled when that ends"));
  note(rec, { kind: "budget.settled", id, used: used === null ? NOTHING : open.amounts.map((amount, d) => used[d] ?? amount) });
  return ok({ reservation: id });
}

function drawFrom(rec: Recorder, command: DrawTab): Reply {
  const isOver = rec.state.goal!.phase !== "active";
  const [drawn, changes] = drawTab(rec.state.budget, command, isOver, rec.nowMs);
  for (const change of changes) note(rec, change);
  if (!isOver && drawn.granted?.some((times, i) => times < command.wants[i]!.need) === true) noteRefusal(rec.state, rec.nowMs);
  return ok({ drawn });
}

/** Whoever said nothing in time is charged in full. */
export function expireReservations(rec: Recorder): void {
  const { reservations } = rec.state.budget;
  for (const change of overdueTabs(rec.state.budget, rec.nowMs)) note(rec, change);
  for (const [id, { amounts, untilMs }] of reservations) {
    if (untilMs <= rec.nowMs) note(rec, { kind: "budget.settled", id, used: amounts });
  }
}

/** When the first open reservation, or tab, expires; null where none is open. */
export function reservationDueMs({ budget }: GoalState): number | null {
  let dueMs: number | null = null;
  for (const { untilMs } of budget.reservations.values()) dueMs = Math.min(dueMs ?? untilMs, untilMs);
  for (const { untilMs } of budget.tabs.values()) dueMs = Math.min(dueMs ?? untilMs, untilMs);
  return dueMs;
}

/**
 * Totals below what was needed mean that the account above had no more when it
 * answered. It may have said since that it has: the two come by different ways.
 * That a dimension is not bounded any more is for the registry to say, which
 * has an order; this answer may have been overtaken by it.
 */
function takeFunds(rec: Recorder, need: Amounts, funds: Bounds | null): void {
  const { account, funding } = rec.state.budget;
  const { hasNews } = funding;
  Object.assign(funding, { isAsking: false, hasNews: false, dueAtMs: funds === null ? rec.nowMs + FUNDS_RETRY_MS : 0 });
  if (funds === null) return;
  takeGrantFromAbove(
    rec,
    funds.map((total, d) => total ?? account.funds[d]!),
  );
  funding.isRefused = account.funds.some((total, d) => total !== null && total < need[d]!);
  if (!funding.isRefused) noteNews(rec);
  else if (!hasNews) funding.dueAtMs = rec.nowMs + FUNDS_ASK_INTERVAL_MS;
}

/** The tenant's registry says which dimensions its budget bounds. */
export function takeBounds(rec: Recorder, bounded: readonly boolean[] | undefined): void {
  setBoundsAbove(rec, bounded ?? NOTHING.map(() => false));
}

/** Whether grants from above, and only they, would allow it. */
export function lacksFunds({ budget }: GoalState, amounts: Amounts): boolean {
  return !canReserve(budget.account, amounts) && isWithinLimit(budget.account, amounts);
}
