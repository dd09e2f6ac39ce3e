/**
 * The budget of the goal that a gate's calls are made for: one question before
 * a call and one word after it. What is never said, because this gate or its
 * caller is gone, the goal charges in full when the reservation expires.
 */
import type { Failure } from "../../shared/errors.ts";
import { RESERVATION_MS_DEFAULT } from "../../shared/limits.ts";
import type { Bounds } from "../../shared/policy/account.ts";
import type { CallEnd } from "../../shared/policy/outcome.ts";
import { priceOf, usedBy } from "../../shared/policy/price.ts";
import type { Upstream } from "../../shared/protocol/upstream.ts";
import type { GoalRpc, PassRequest } from "../../shared/rpc.ts";

/** A call, and what is set aside for it. */
export interface Payer {
  readonly request: PassRequest;
  readonly untilMs: number;
  /** The number of the goal's reservation; null for none. */
  reservation: number | null;
}

export class Purse {
  readonly #goalOf: (goalId: string) => Pick<GoalRpc, "reserve" | "settleReservation">;

  constructor(goalOf: (goalId: string) => Pick<GoalRpc, "reserve" | "settleReservation">) {
    this.#goalOf = goalOf;
  }

  /** Sets aside what the call may use, where it is made for a goal. Why it cannot be made, or null. */
  async reserve(payer: Payer, upstream: Upstream): Promise<Failure | null> {
    const { goalId, bearer, isSecond = false } = payer.request;
    if (goalId === undefined) return null;
    const ttlMs = Math.max(0, payer.untilMs - Date.now()) + upstream.timeoutMs + RESERVATION_MS_DEFAULT;
    const reserved = await this.#goalOf(goalId).reserve("gate", priceOf(upstream, payer.request.reserve), ttlMs, { bearer, isSecond });
    if (!reserved.ok) return reserved.error;
    payer.reservation = Number((JSON.parse(reserved.value.json) as { reservationId: string }).reservationId.slice("rsv_".length));
    return null;
  }

  /** The call was not made after all. */
  release(payer: Payer): void {
    this.#settle(payer, null);
  }

  /** The call has ended; `end` is null where nobody knows how. */
  spend(payer: Payer, end: CallEnd | null): void {
    this.#settle(payer, usedBy(end));
  }

  #settle(payer: Payer, used: Bounds | null): void {
    const { reservation } = payer;
    const { goalId } = payer.request;
    if (reservation === null || goalId === undefined) return;
    payer.reservation = null;
    this.#goalOf(goalId)
      .settleReservation("gate", reservation, used)
      .catch((error: unknown) => console.warn(`a reservation of ${goalId} was not settled: ${String(error)}`));
  }
}
