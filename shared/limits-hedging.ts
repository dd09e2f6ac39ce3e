/**
 * Bounds of hedging: a second try of a call that takes longer than its
 * upstream's calls mostly do. A part of `limits.ts`.
 */
import { EXECUTOR_CHUNK_INTERVAL_MS, EXECUTOR_PATIENCE_MS } from "./limits.ts";

export const HEDGE_QUANTILE_DEFAULT = 0.95;
export const HEDGE_BUDGET_PERCENT_DEFAULT = 5;
/** An upstream's quantile counts for something from so many calls on. */
export const HEDGE_CALLS_MIN = 100;
/** No call is hedged sooner. */
export const HEDGE_AFTER_MS_MIN = 5;
/** Hedges that a goal has to begin with at an upstream, and the most that it saves up. */
export const HEDGES_START = 1;
export const HEDGES_MAX = 100;
/** A second try that asks a gate for a permit waits for it at most so long. */
export const SECOND_WAIT_MS = 1_000;
/** Second tries that the functions of one batch have open or wait for, at one upstream. */
export const HAND_SECONDS_MAX = 2;
/** After a refusal nothing is hedged for so long. */
export const HEDGE_REST_MS = 2_000;
/** A result may be on its way to the goal for so long: a goal runs nothing a second time that may have ended by then. */
export const BACKUP_LAG_MS = EXECUTOR_PATIENCE_MS + EXECUTOR_CHUNK_INTERVAL_MS;
