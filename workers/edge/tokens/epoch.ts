/**
 * The tenant's epoch, which ends its tokens when it rises. Where it must be
 * exact it is asked for after the request came; many requests share a question.
 */
import { TENANT_EPOCH_AGE_MS_MAX } from "../../../shared/limits.ts";

let known: { readonly epoch: number; readonly askedAtMs: number } | null = null;
let asking: Promise<number> | null = null;
let next: Promise<number> | null = null;

type Ask = () => Promise<number>;

async function question(ask: Ask): Promise<number> {
  const askedAtMs = Date.now();
  try {
    known = { epoch: await ask(), askedAtMs };
    return known.epoch;
  } finally {
    asking = null;
  }
}

/** As it is now. A question that is on its way already may bring what was true before, so it is waited for and asked again. */
export function exactEpoch(ask: Ask): Promise<number> {
  if (asking === null) return (asking = question(ask));
  const again = (): Promise<number> => {
    next = null;
    return exactEpoch(ask);
  };
  return (next ??= asking.then(again, again));
}

/** As it was at most `TENANT_EPOCH_AGE_MS_MAX` ago. */
export function recentEpoch(ask: Ask): number | Promise<number> {
  if (known !== null && Date.now() - known.askedAtMs < TENANT_EPOCH_AGE_MS_MAX) return known.epoch;
  return asking ?? (asking = question(ask));
}
