/** What one call sets aside, and what it then used. */
import type { Reserve } from "../protocol/task.ts";
import type { Upstream } from "../protocol/upstream.ts";
import { type Amounts, amountsFrom, type Bounds, NOTHING } from "./account.ts";
import { type CallEnd, isRefusal } from "./outcome.ts";

/** One call, and what it says itself, or else what its upstream says. */
export function priceOf({ reserve: { tokens, costMicros = 0 } }: Pick<Upstream, "reserve">, own: Reserve = {}): Amounts {
  return amountsFrom({ calls: 1, tokens, costMicros, ...own });
}

/** What the call used; null where it surely did not reach the upstream, and in a dimension where nobody knows. */
export function usedBy(end: CallEnd | null): Bounds | null {
  if (end === null) return [null, 1, null, null];
  if (end.outcome === "not_sent") return null;
  const known = (amount: number | undefined): number | null => ((amount ?? 0) > 0 ? amount! : null);
  const isRefused = end.outcome === "answered" && isRefusal(end.status);
  return isRefused ? [null, 1, 0, 0] : [null, 1, known(end.tokens), known(end.costMicros)];
}

/** As `usedBy`; where nobody knows, it is what was set aside. */
export const usedOf = (price: Amounts, end: CallEnd): Amounts => usedBy(end)?.map((used, d) => used ?? price[d]!) ?? NOTHING;
