/**
 * The goal's escrow account: what its facts are, and how it deals with the
 * account above it (its tenant's, or its parent goal's) and with those of its
 * sub-goals. What attempts reserve and spend follows from the facts about
 * attempts (`reserve.ts`), so most of it is in the journal already.
 */
import {
  type Account,
  type AccountImage,
  accountFrom,
  type Amounts,
  type Bounds,
  childSpent,
  closeChild,
  fundChild,
  fundsOf,
  type FundRequest,
  grantFor,
  imageOf,
  newAccount,
  reserve,
  settle,
  takeFunds,
} from "../../../shared/policy/account.ts";
import type { Reserver } from "../../../shared/protocol/budget.ts";
import type { Recorder } from "./recorder.ts";
import { applyTab, type Tab, type TabChange } from "./tabs.ts";

/** What somebody has set aside for work of their own. */
export interface Reservation {
  readonly by: Reserver;
  readonly amounts: Amounts;
  /** Without a word by then, all of it is charged. */
  readonly untilMs: number;
}

/** The goal's dealings with the account above. Not durable: a new incarnation asks again. */
export interface Funding {
  isAsking: boolean;
  /** The account above had no more when it was last asked. */
  isRefused: boolean;
  /** It is not asked before this. */
  dueAtMs: number;
  /** It has said that it has more since it was asked. */
  hasNews: boolean;
}

export interface BudgetState {
  readonly account: Account;
  /** Nothing that waits can be afforded: the goal rests until there is more. */
  isExhausted: boolean;
  /** Distinct reserves that tasks declare; a task's column has the place, counted from 1. */
  readonly reserves: Amounts[];
  readonly reserveNumbers: Map<string, number>;
  readonly reservations: Map<number, Reservation>;
  nextReservation: number;
  /** What gates hold, by the names of their tabs. */
  readonly tabs: Map<string, Tab>;
  readonly funding: Funding;
}

export interface BudgetImage {
  readonly account: AccountImage;
  readonly isExhausted: boolean;
  readonly reserves: readonly Amounts[];
  readonly reservations: readonly (readonly [number, Reservation])[];
  readonly nextReservation: number;
  readonly tabs?: readonly (readonly [string, Tab])[];
}

export type BudgetChange =
  /** The goal's own limit from now on. */
  | { readonly kind: "budget.limited"; readonly limit: Bounds }
  /** Totals of the grants from above; null where the account above sets no limit. */
  | { readonly kind: "budget.funded"; readonly funds: Bounds }
  | { readonly kind: "budget.exhausted"; readonly isExhausted: boolean }
  /** Totals, by the key that the child goes by: its task's number as text. */
  | { readonly kind: "budget.child-funded"; readonly child: string; readonly totals: Amounts }
  | { readonly kind: "budget.child-spent"; readonly child: string; readonly totals: Amounts }
  | { readonly kind: "budget.child-closed"; readonly child: string; readonly spent: Amounts }
  | { readonly kind: "budget.reserved"; readonly id: number; readonly by: Reserver; readonly amounts: Amounts; readonly untilMs: number }
  | { readonly kind: "budget.settled"; readonly id: number; readonly used: Amounts }
  | TabChange;

export const newFunding = (): Funding => ({ isAsking: false, isRefused: false, dueAtMs: 0, hasNews: false });

export const newBudget = (): BudgetState => ({
  account: newAccount(),
  isExhausted: false,
  reserves: [],
  reserveNumbers: new Map(),
  reservations: new Map(),
  nextReservation: 1,
  tabs: new Map(),
  funding: newFunding(),
});

export function budgetImage({ account, isExhausted, reserves, reservations, nextReservation, tabs }: BudgetState): BudgetImage {
  return { account: imageOf(account), isExhausted, reserves, reservations: [...reservations], nextReservation, tabs: [...tabs] };
}

export function budgetFrom({ account, isExhausted, reserves, reservations, nextReservation, tabs = [] }: BudgetImage): BudgetState {
  const reserveNumbers = new Map(reserves.map((amounts, place) => [amounts.join(), place + 1]));
  return {
    account: accountFrom(account),
    isExhausted,
    reserves: [...reserves],
    reserveNumbers,
    reservations: new Map(reservations),
    nextReservation,
    tabs: new Map(tabs),
    funding: newFunding(),
  };
}

export function applyBudget(budget: BudgetState, change: BudgetChange): void {
  const { account } = budget;
  switch (change.kind) {
    case "budget.limited":
      account.limit = [...change.limit];
      return;
    case "budget.funded":
      return takeFunds(account, change.funds);
    case "budget.exhausted":
      budget.isExhausted = change.isExhausted;
      return;
    case "budget.child-funded":
      return fundChild(account, change.child, change.totals);
    case "budget.child-spent":
      return childSpent(account, change.child, change.totals);
    case "budget.child-closed":
      closeChild(account, change.child, change.spent);
      return;
    case "budget.reserved":
      reserve(account, change.amounts);
      budget.reservations.set(change.id, { by: change.by, amounts: change.amounts, untilMs: change.untilMs });
      budget.nextReservation = change.id + 1;
      return;
    case "budget.settled":
      settle(account, budget.reservations.get(change.id)!.amounts, change.used);
      budget.reservations.delete(change.id);
      return;
    case "budget.tab":
    case "budget.tab-closed":
      return applyTab(budget, change);
  }
}

/** Carries a fact out and writes it down. */
export function note(rec: Recorder, change: BudgetChange): void {
  applyBudget(rec.state.budget, change);
  rec.out.changes.push(change);
}

/** Totals of grants have come from above. Totals that are known already change nothing. */
export function takeGrantFromAbove(rec: Recorder, funds: Bounds): void {
  const { account } = rec.state.budget;
  const isNews = funds.some((total, d) => total !== account.funds[d] && (total === null || total > (account.funds[d] ?? -1)));
  if (isNews) note(rec, { kind: "budget.funded", funds });
}

/** Which dimensions the account above bounds, where it is not known yet: a goal has no grants there before it has asked. */
export function setBoundsAbove(rec: Recorder, isBounded: readonly boolean[]): void {
  const { account } = rec.state.budget;
  takeGrantFromAbove(
    rec,
    isBounded.map((is, d) => (is ? (account.funds[d] ?? 0) : null)),
  );
}

/**
 * A child asks for grants, and is told their totals once they are durable. The
 * same totals as before mean that there is no more. A child that was closed
 * must not ask: its caller sees to that.
 */
export function fundChildOf(rec: Recorder, child: string, request: FundRequest): Bounds {
  const { account } = rec.state.budget;
  const totals = grantFor(account, child, request);
  const granted = account.children.get(child)?.granted;
  if (granted === undefined || totals.some((total, d) => total > granted[d]!)) note(rec, { kind: "budget.child-funded", child, totals });
  return fundsOf(account, child);
}

/** A child reports what it has spent in total. One that is closed has said so already. */
export function noteChildSpent(rec: Recorder, child: string, totals: Amounts): void {
  const known = rec.state.budget.account.children.get(child);
  if (known === undefined || totals.every((total, d) => total <= known.spent[d]!)) return;
  note(rec, { kind: "budget.child-spent", child, totals });
}

/** A child has ended and spent so much in all: the rest of its grants flows back, once. */
export function closeChildOf(rec: Recorder, child: string, spent: Amounts): void {
  if (rec.state.budget.account.children.has(child)) note(rec, { kind: "budget.child-closed", child, spent });
}
