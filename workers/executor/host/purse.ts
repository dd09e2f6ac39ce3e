/**
 * What a run's task has set aside before the run began. Its calls are paid
 * from it as long as it covers what they set aside, each dimension by itself;
 * the rest they set aside of the goal's budget, as calls do whose task has set
 * nothing aside.
 */
import { amountsFrom, type Amounts, CALLS, COST, minus, NOTHING, plus, TOKENS } from "../../../shared/policy/account.ts";
import type { Reserve } from "../../../shared/protocol/task.ts";
import type { HandTerms } from "../../../shared/rpc-functions.ts";

/** What one call takes from the purse, and from the goal. */
export interface Payment {
  /** What is left for the goal to set aside. */
  readonly rest: Amounts;
  /** The dimensions that the purse pays, whatever the call uses. */
  readonly covered: readonly boolean[];
  /** It pays all that the call can use. */
  readonly isWhole: boolean;
  /** The call has used so much of what it had set aside in the purse. */
  settle(used: Amounts): void;
}

const meteredBy = ({ tokensPointer, costPointer }: HandTerms): readonly boolean[] =>
  amountsFrom({ tokens: tokensPointer === null ? 0 : 1, costMicros: costPointer === null ? 0 : 1 }).map((is) => is === 1);

export class Purse {
  #left: Amounts;
  /** What calls have used of it; of those that are open, what they have set aside. */
  #drawn: Amounts = NOTHING;
  #isClosed = false;

  constructor(reserve: Amounts) {
    this.#left = reserve;
  }

  /** What was used of it in all. The run has ended: what is called from now on is the goal's to pay. */
  close(): Amounts {
    this.#isClosed = true;
    return this.#drawn;
  }

  /** Sets aside for a call what is there for it. What is metered only afterwards is covered where there is something for it. */
  take(terms: HandTerms, price: Amounts): Payment {
    const metered = meteredBy(terms);
    const matters = price.map((amount, d) => amount > 0 || metered[d]!);
    const covered = price.map((amount, d) => !this.#isClosed && matters[d]! && Math.max(1, amount) <= this.#left[d]!);
    const own = price.map((amount, d) => (covered[d]! ? amount : 0));
    this.#move(own);
    return {
      rest: minus(price, own),
      covered,
      isWhole: matters.every((does, d) => !does || covered[d]!),
      settle: (used) => this.#move(minus(used, own)),
    };
  }

  #move(amounts: Amounts): void {
    this.#left = minus(this.#left, amounts);
    this.#drawn = plus(this.#drawn, amounts);
  }
}

/** What a call sets aside of the goal's budget, where that is not what its upstream says; with the number that it is asked for by. */
export interface Own {
  readonly id: number;
  readonly reserve: Reserve;
  /** The dimensions that the run's purse pays. */
  readonly covered?: readonly boolean[] | undefined;
  isPaid: boolean;
}

/** Of a call that the purse pays alone: the gate knows of no such draw. */
export const PREPAID = 0;

/** `reserve` is what the call says itself; null where it is like any other call of its upstream. */
export function ownOf(newId: () => number, reserve: Reserve | undefined, payment: Payment | null): Own | null {
  if (payment === null || !payment.covered.includes(true)) {
    return reserve === undefined ? null : { id: newId(), reserve, isPaid: false };
  }
  const { rest, covered, isWhole } = payment;
  if (isWhole) return { id: PREPAID, reserve: {}, isPaid: true };
  return { id: newId(), reserve: { calls: rest[CALLS]!, tokens: rest[TOKENS]!, costMicros: rest[COST]! }, covered, isPaid: false };
}
