/**
 * What attempts set aside and what they are charged. Every attempt reserves
 * before it starts. When it leaves its batch, for whatever reason, its reserve
 * is spent, so what is lost or unknown is charged in full; what is known to be
 * otherwise is a fact of its own, the correction.
 */
import { type Amounts, CALLS, COST, isNothing, minus, NOTHING, reserve, settle, spend, TOKENS } from "../../../shared/policy/account.ts";
import type { LineHead } from "../../../shared/protocol/line.ts";
import type { Reserve } from "../../../shared/protocol/task.ts";
import type { Upstream } from "../../../shared/protocol/upstream.ts";
import { WORK } from "./codes.ts";
import type { GoalState } from "./state.ts";

/** A call that is only a call. */
export const ONE_CALL: Amounts = [0, 1, 0, 0];

export const isOneCall = (amounts: Amounts): boolean => amounts === ONE_CALL;

/** What an attempt reserves whose task declares nothing; a task without an upstream makes no call of Drover's. */
export function reserveAt(config: Upstream | null): Amounts {
  if (config === null) return NOTHING;
  const { tokens, costMicros = 0 } = config.reserve;
  return tokens === 0 && costMicros === 0 ? ONE_CALL : [0, 1, tokens, costMicros];
}

/** The number that a task's column has for the reserve that it declares. What it leaves out is as at its upstream. */
export function declareReserve({ budget }: GoalState, { calls, tokens, costMicros }: Reserve, config: Upstream | null): number {
  const other = reserveAt(config);
  const amounts = [0, calls ?? other[CALLS]!, tokens ?? other[TOKENS]!, costMicros ?? other[COST]!];
  const text = amounts.join();
  const known = budget.reserveNumbers.get(text);
  if (known !== undefined) return known;
  const number = budget.reserves.push(amounts);
  budget.reserveNumbers.set(text, number);
  return number;
}

/** What an attempt at the task reserves. `other` is what one reserves that declares nothing. */
export function reserveOf({ tasks, budget }: GoalState, task: number, other: Amounts): Amounts {
  const number = tasks.reserve[task]!;
  return number === 0 ? other : budget.reserves[number - 1]!;
}

/** What the running attempt at the task has reserved. A claim is in no batch, and reserves only what its task declares. */
export function reservedFor(state: GoalState, task: number): Amounts {
  const batch = state.batches.get(state.tasks.batch[task]!);
  return reserveOf(state, task, batch === undefined ? NOTHING : (batch.reserve ?? ONE_CALL));
}

export function reserveAttempt(state: GoalState, task: number, other: Amounts = ONE_CALL): void {
  reserve(state.budget.account, reserveOf(state, task, other));
}

/** The attempt is over: what it reserved is spent. Before it leaves its batch. */
export function chargeAttempt(state: GoalState, task: number): void {
  const reserved = reservedFor(state, task);
  settle(state.budget.account, reserved, reserved);
  countUsage(state, task, reserved);
}

/** The attempt has used so much more than it reserved, or less. */
export function correctUsage(state: GoalState, task: number, difference: Amounts): void {
  spend(state.budget.account, difference);
  countUsage(state, task, difference);
}

export function countUsage({ tasks }: GoalState, task: number, amounts: Amounts): void {
  tasks.usedCalls[task] = tasks.usedCalls[task]! + amounts[CALLS]!;
  tasks.usedTokens[task] = tasks.usedTokens[task]! + amounts[TOKENS]!;
  tasks.usedMicros[task] = tasks.usedMicros[task]! + amounts[COST]!;
}

/** What a reported attempt used beyond its reserve; null where it is what was reserved. */
export function differenceOf(state: GoalState, head: LineHead, isRefused: boolean, reserved: Amounts): Amounts | null {
  // Nothing reached the upstream, surely.
  if (head.outcome === "not_sent") return isNothing(reserved) ? null : minus(NOTHING, reserved);
  const unknown = isRefused ? NOTHING : reserved;
  const calls = (state.tasks.flags[head.task]! & WORK) === 0 ? 1 : reserved[CALLS]!;
  const tokens = head.tokens > 0 ? head.tokens : unknown[TOKENS]!;
  const costMicros = head.costMicros > 0 ? head.costMicros : unknown[COST]!;
  if (calls === reserved[CALLS] && tokens === reserved[TOKENS] && costMicros === reserved[COST]) return null;
  return minus([0, calls, tokens, costMicros], reserved);
}
