/**
 * The tenant's epoch, which ends its tokens when it rises. Each request that
 * needs it anew asks for itself: a question that another request has asked may
 * end with that one, and would never be answered.
 */
import { TENANT_EPOCH_AGE_MS_MAX } from "../../../shared/limits.ts";

let known: { readonly epoch: number; readonly askedAtMs: number } | null = null;

type Ask = () => Promise<number>;

/** As it is now. */
export async function exactEpoch(ask: Ask): Promise<number> {
  const askedAtMs = Date.now();
  const epoch = await ask();
  if (known === null || askedAtMs >= known.askedAtMs) known = { epoch, askedAtMs };
  return epoch;
}

/** As it was at most `TENANT_EPOCH_AGE_MS_MAX` ago. */
export function recentEpoch(ask: Ask): number | Promise<number> {
  const isRecent = known !== null && Date.now() - known.askedAtMs < TENANT_EPOCH_AGE_MS_MAX;
  return isRecent ? known!.epoch : exactEpoch(ask);
}
