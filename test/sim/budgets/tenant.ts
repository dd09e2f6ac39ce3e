/** The tenant of the budget's world: the real treasury over rows in memory, which alone survive its crashes. */
import { type Amounts, type Bounds, type FundRequest, NOTHING } from "../../../shared/policy/account.ts";
import { type Rows, Treasury } from "../../../durable-objects/tenant/core/treasury.ts";

class Disk implements Rows {
  limit: Bounds;
  spent: Amounts = NOTHING;
  readonly granted = new Map<string, Amounts>();
  readonly closed = new Set<string>();

  constructor(limit: Bounds) {
    this.limit = limit;
  }

  budget(): { readonly limit: Bounds; readonly spent: Amounts } {
    return { limit: this.limit, spent: this.spent };
  }

  grants(): (readonly [string, Amounts])[] {
    return [...this.granted];
  }

  putGrant(goalId: string, totals: Amounts): void {
    this.granted.set(goalId, [...totals]);
  }

  deleteGrant(goalId: string): void {
    this.granted.delete(goalId);
  }

  putLimit(limit: Bounds): void {
    this.limit = [...limit];
  }

  isClosed(goalId: string): boolean {
    return this.closed.has(goalId);
  }

  close(goalId: string, spent: Amounts): void {
    this.spent = [...spent];
    this.granted.delete(goalId);
    this.closed.add(goalId);
  }
}

export class TenantNode {
  readonly disk: Disk;
  #treasury: Treasury;

  constructor(limit: Bounds) {
    this.disk = new Disk(limit);
    this.#treasury = this.#open();
  }

  #open(): Treasury {
    return new Treasury(this.disk);
  }

  crash(): void {
    this.#treasury = this.#open();
  }

  fund(goalId: string, request: FundRequest): Bounds {
    return this.#treasury.fund(goalId, request, !this.disk.isClosed(goalId));
  }

  report(goalId: string, spent: Amounts, isFinal: boolean): void {
    this.#treasury.take(goalId, spent, isFinal);
  }

  raise(limit: Bounds): boolean {
    return this.#treasury.setLimit(limit, 0).ok;
  }
}
