/**
 * The tenant's account, from which goals are funded. Grants are rows before
 * anybody hears of them. What running goals have spent is memory: they report
 * it again, and until then what they were granted stands for it.
 */
import { type Failure, failure } from "../../../shared/errors.ts";
import { FUNDS_TOLD_MAX, FUNDS_WAITING_MAX } from "../../../shared/limits.ts";
import {
  type Account,
  type Amounts,
  available,
  type Bounds,
  childSpent,
  closeChild,
  committed,
  DIMENSIONS,
  fundChild,
  fundsOf,
  type FundRequest,
  grantFor,
  named,
  newAccount,
  NOTHING,
  reservedInAll,
  spend,
  spentInAll,
} from "../../../shared/policy/account.ts";
import type { AccountView } from "../../../shared/protocol/budget.ts";
import { err, ok, type Result } from "../../../shared/result.ts";

/** Rows of the tenant: each is durable before anybody hears of it. */
export interface Rows {
  /** The limit as it was put, and the sum of what closed goals have spent. */
  budget(): { readonly limit: Bounds; readonly spent: Amounts };
  grants(): (readonly [string, Amounts])[];
  putGrant(goalId: string, totals: Amounts): void;
  deleteGrant(goalId: string): void;
  putLimit(limit: Bounds, version: number): void;
  isClosed(goalId: string): boolean;
  close(goalId: string, spent: Amounts): void;
}

export class Treasury {
  readonly #store: Rows;
  /** Null until read. */
  #loaded: Account | null = null;
  /** Goals that asked in vain, the longest first. Memory: what is lost asks again by itself. */
  readonly #waiting = new Set<string>();

  constructor(store: Rows) {
    this.#store = store;
  }

  get #account(): Account {
    if (this.#loaded === null) {
      const { limit, spent } = this.#store.budget();
      this.#loaded = newAccount(limit);
      spend(this.#loaded, spent);
      for (const [goalId, granted] of this.#store.grants()) fundChild(this.#loaded, goalId, granted);
    }
    return this.#loaded;
  }

  /** Dimensions that are bounded; undefined where none is. */
  bounded(): boolean[] | undefined {
    const { limit } = this.#account;
    return limit.some((bound) => bound !== null) ? limit.map((bound) => bound !== null) : undefined;
  }

  /** The new totals of a goal's grants. `mayAsk`: it has not ended. */
  fund(goalId: string, request: FundRequest, mayAsk: boolean): Bounds {
    const account = this.#account;
    const granted = account.children.get(goalId)?.granted ?? NOTHING;
    const totals = mayAsk ? grantFor(account, goalId, request) : granted;
    if (totals.some((total, d) => total > granted[d]!)) {
      this.#store.putGrant(goalId, totals);
      fundChild(account, goalId, totals);
      this.#waiting.delete(goalId);
    } else if (mayAsk && this.#waiting.size < FUNDS_WAITING_MAX) this.#waiting.add(goalId);
    return fundsOf(account, goalId);
  }

  /** A goal that was never made gives all of its grants back. */
  unfund(goalId: string): void {
    if (!this.#account.children.has(goalId)) return;
    this.#store.deleteGrant(goalId);
    closeChild(this.#account, goalId, NOTHING);
  }

  /** Takes what a goal has spent; with its last report its account is closed. That happens once: the directory remembers it. */
  take(goalId: string, spent: Amounts, isFinal: boolean): void {
    const account = this.#account;
    if (this.#store.isClosed(goalId)) return;
    if (!isFinal) return childSpent(account, goalId, spent);
    this.#store.close(
      goalId,
      account.spent.map((total, d) => total + spent[d]!),
    );
    if (!closeChild(account, goalId, spent)) spend(account, spent);
  }

  /** The new limit; null in a dimension means none. Whether what is bounded has changed is for the caller to tell goals. */
  setLimit(limit: Bounds, version: number): Result<null, Failure> {
    const account = this.#account;
    const low = DIMENSIONS.findIndex((_, d) => limit[d] !== null && limit[d]! < committed(account, d));
    if (low >= 0) {
      const floor = committed(account, low);
      return err(failure("conflict", `the limit of ${DIMENSIONS[low]} must be at least ${floor}, which is spent and granted`));
    }
    this.#store.putLimit(limit, version);
    account.limit = [...limit];
    return ok(null);
  }

  /** Goals to be told that there may be funds again. */
  takeWaiting(): string[] {
    const told = [...this.#waiting].slice(0, FUNDS_TOLD_MAX);
    for (const goalId of told) this.#waiting.delete(goalId);
    return told;
  }

  view(): AccountView {
    const account = this.#account;
    const left = account.limit.map((bound, d) => (bound === null ? null : Math.max(0, available(account, d))));
    return {
      limit: named(account.limit),
      reserved: named(reservedInAll(account)),
      spent: named(spentInAll(account)),
      available: named(left),
    };
  }
}
