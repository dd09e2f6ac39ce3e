/**
 * What the goal can afford to start, and what becomes of it when it cannot: it
 * asks the account above where that is what binds, and otherwise rests, or
 * fails, until somebody adds to its budget. Nothing here costs anything where
 * no account bounds the goal.
 */
import {
  type Account,
  type Amounts,
  available,
  availableOf,
  canReserve,
  committed,
  DIMENSIONS,
  type FundRequest,
  isBounded,
  isNothing,
  isWithinLimit,
  NOTHING,
  plus,
} from "../../../shared/policy/account.ts";
import type { Upstream } from "../../../shared/protocol/upstream.ts";
import { note } from "./budget.ts";
import { QUEUED, RUNNING } from "./codes.ts";
import { stopGoal } from "./lifecycle.ts";
import type { Recorder } from "./recorder.ts";
import { reserveAt, reserveOf } from "./reserve.ts";
import { hasMore, isRunQueue, type Starved, versionOf } from "./run-state.ts";
import { type GoalState, isUpstream, type UpstreamState } from "./state.ts";

/** What may be started now, one task after the other. */
export interface Allowance {
  /** Whether the task can be afforded, after those that were taken before it. */
  take(task: number): boolean;
}

/** Null where nothing is bounded. */
export function allowanceOf(state: GoalState, config: Upstream | null): Allowance | null {
  const { account } = state.budget;
  if (!isBounded(account)) return null;
  const other = reserveAt(config);
  let taken: Amounts = NOTHING;
  return {
    take(task) {
      const next = plus(taken, reserveOf(state, task, other));
      if (!canReserve(account, next)) return false;
      taken = next;
      return true;
    },
  };
}

/** The task of a queue that would be started first; -1 for none. */
function headOf({ tasks }: GoalState, { ready }: UpstreamState): number {
  for (const { items, head } of ready) {
    for (let at = head; at < items.length; at++) if (tasks.status[items[at]!] === QUEUED) return items[at]!;
  }
  return -1;
}

/** Whether the queue has a task, and can afford the first one. */
export function canStart(state: GoalState, upstream: UpstreamState): boolean {
  if (upstream.queued === 0) return false;
  const allowance = allowanceOf(state, upstream.config);
  return allowance === null || allowance.take(headOf(state, upstream));
}

/** Queues that somebody takes tasks from; those of an upstream or function that was deleted wait for it, whatever they cost. */
function isServed(state: GoalState, upstream: UpstreamState): boolean {
  if (isRunQueue(upstream)) return versionOf(state, upstream) !== undefined;
  return upstream.config !== null || !isUpstream(upstream);
}

interface Heads {
  /** A queue has a task that can be started now, or could be if all that runs used nothing. */
  canGoOn: boolean;
  /** What the first task needs that only the account above can give. */
  missing: Amounts | null;
  /** What all that is queued would reserve, by the first of each queue. */
  wanted: Amounts;
  isEmpty: boolean;
}

/** What grants from above, and only they, could give a function that could not afford a call: one more of each. */
const missingFor = (account: Account, { had }: Starved): Amounts =>
  had.map((amount, d) => (account.funds[d] !== null && amount < availableOf(account, d) ? Math.max(0, available(account, d)) + 1 : 0));

/** A run that could not afford a call sets aside what its task declares all the same. */
function needsOfStarved(account: Account, starved: Starved, own: Amounts): Amounts {
  const more = missingFor(account, starved);
  return canReserve(account, own) ? more : more.map((amount, d) => Math.max(amount, own[d]!));
}

function look(state: GoalState): Heads {
  const { account } = state.budget;
  const heads: Heads = { canGoOn: false, missing: null, wanted: NOTHING, isEmpty: true };
  for (const [number, upstream] of state.upstreams.entries()) {
    if (upstream.queued === 0 || !isServed(state, upstream)) continue;
    const head = headOf(state, upstream);
    const starved = state.runs.starved.get(number);
    const own = reserveOf(state, head, reserveAt(upstream.config));
    const canGoOn = (extra: Amounts): boolean =>
      canReserve(account, own, extra) && (starved === undefined || hasMore(account, starved, extra));
    const needs = starved === undefined ? own : needsOfStarved(account, starved, own);
    heads.isEmpty = false;
    heads.wanted = heads.wanted.map((amount, d) => amount + needs[d]! * upstream.queued);
    if (canGoOn(NOTHING)) heads.canGoOn = true;
    else {
      heads.canGoOn ||= canGoOn(account.reserved);
      if (heads.missing === null && !isNothing(needs) && isWithinLimit(account, needs)) heads.missing = needs;
    }
  }
  return heads;
}

/** After what could be sent was: asks for more, notes that there is no more, or that there is again. */
export function reviewBudget(rec: Recorder): void {
  const { state, nowMs } = rec;
  const { budget } = state;
  const { account, funding } = budget;
  if (!isBounded(account)) {
    if (budget.isExhausted) note(rec, { kind: "budget.exhausted", isExhausted: false });
    return;
  }
  const { canGoOn, missing, wanted, isEmpty } = look(state);
  if (missing === null) Object.assign(funding, { isRefused: false, dueAtMs: 0 });
  else if (!funding.isAsking && nowMs >= funding.dueAtMs) {
    Object.assign(funding, { isAsking: true, hasNews: false });
    rec.out.funds = requestFor(account, missing, wanted);
  }
  const isExhausted = !isEmpty && !canGoOn && (missing === null || funding.isRefused);
  if (isExhausted !== budget.isExhausted) note(rec, { kind: "budget.exhausted", isExhausted });
  if (isExhausted && state.goal!.spec.onBudgetExhausted === "fail" && state.counts[RUNNING] === 0) {
    stopGoal(rec, "failed", "budget_exhausted");
  }
}

/** Totals of grants that cover what is needed, and what would be wanted within the account's own limit. */
export function requestFor(account: Account, needs: Amounts, wants: Amounts): FundRequest {
  const need = DIMENSIONS.map((_, d) => committed(account, d) + needs[d]!);
  const want = need.map((total, d) => {
    const limit = account.limit[d] ?? Number.MAX_SAFE_INTEGER;
    return Math.max(total, Math.min(limit, committed(account, d) + wants[d]!));
  });
  return { need, want };
}
