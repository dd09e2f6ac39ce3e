/**
 * The goal's escrow account: what its facts are, and how it deals with the
 * account above it (its tenant's, or its parent goal's) and with those of its
 * sub-goals. What attempts reserve and spend follows from the facts about
 * attempts, so it is in the journal already.
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
  takeFunds,
} from "../../../shared/policy/account.ts";
import type { Recorder } from "./recorder.ts";

export interface BudgetState {
  readonly account: Account;
}

export interface BudgetImage {
  readonly account: AccountImage;
}

export type BudgetChange =
  /** Totals of the grants from above; null where the account above sets no limit. */
  | { readonly kind: "budget.funded"; readonly funds: Bounds }
  /** Totals, by the key that the child goes by: its task's number as text. */
  | { readonly kind: "budget.child-funded"; readonly child: string; readonly totals: Amounts }
  | { readonly kind: "budget.child-spent"; readonly child: string; readonly totals: Amounts }
  | { readonly kind: "budget.child-closed"; readonly child: string; readonly spent: Amounts };

export const newBudget = (): BudgetState => ({ account: newAccount() });
export const budgetImage = ({ account }: BudgetState): BudgetImage => ({ account: imageOf(account) });
export const budgetFrom = ({ account }: BudgetImage): BudgetState => ({ account: accountFrom(account) });

export function applyBudget({ account }: BudgetState, change: BudgetChange): void {
  switch (change.kind) {
    case "budget.funded":
      return takeFunds(account, change.funds);
    case "budget.child-funded":
      return fundChild(account, change.child, change.totals);
    case "budget.child-spent":
      return childSpent(account, change.child, change.totals);
    case "budget.child-closed":
      closeChild(account, change.child, change.spent);
      return;
  }
}

function note(rec: Recorder, change: BudgetChange): void {
  applyBudget(rec.state.budget, change);
  rec.out.changes.push(change);
}

/** Totals of grants have come from above. Totals that are known already change nothing. */
export function takeGrantFromAbove(rec: Recorder, funds: Bounds): void {
  const { account } = rec.state.budget;
  const isNews = funds.some((total, d) => total !== account.funds[d] && (total === null || total > (account.funds[d] ?? -1)));
  if (isNews) note(rec, { kind: "budget.funded", funds });
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

/** A child reports what it has spent in total. */
export function noteChildSpent(rec: Recorder, child: string, totals: Amounts): void {
  const known = rec.state.budget.account.children.get(child);
  if (known === undefined || totals.every((total, d) => total <= known.spent[d]!)) return;
  note(rec, { kind: "budget.child-spent", child, totals });
}

/** A child has ended and spent so much in all: the rest of its grants flows back, once. */
export function closeChildOf(rec: Recorder, child: string, spent: Amounts): void {
  if (rec.state.budget.account.children.has(child)) note(rec, { kind: "budget.child-closed", child, spent });
}
