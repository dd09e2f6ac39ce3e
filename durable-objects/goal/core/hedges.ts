/**
 * Second tries inside an attempt. A batch is sent with leave to hedge so many
 * of its calls: what they would cost is reserved with it, and they run on its
 * own permits, of which it keeps one more than it has tasks left. The leave
 * comes from a bucket that fills with each call that is started, and what was
 * not used goes back into it.
 */
import { BATCH_LANES_MAX } from "../../../shared/limits.ts";
import { HEDGES_MAX } from "../../../shared/limits-hedging.ts";
import {
  type Amounts,
  canReserve,
  COST,
  isBounded,
  NOTHING,
  plus,
  release,
  reserve,
  settle,
  TOKENS,
} from "../../../shared/policy/account.ts";
import { chooseOrigin } from "../../../shared/policy/origins.ts";
import { admissionOf } from "./admission.ts";
import { HEDGEABLE, LOCKED } from "./codes.ts";
import type { Recorder, Send } from "./recorder.ts";
import { countUsage, ONE_CALL, reserveAt, reserveOf } from "./reserve.ts";
import type { BatchState, GoalState, UpstreamState } from "./state.ts";

/** What a batch may still hedge. */
export interface Hedges {
  left: number;
  /** What each has reserved: enough for any task of the batch. */
  readonly reserve: Amounts;
  /** The place of the origin that they go to. */
  readonly origin: number;
  /** Some of the leave was taken for used, and may not be. */
  isUnheard?: true;
}

/** Whether the call may be open twice at once. Under a lock nothing may: the try that is beaten might outlive it. */
export const isHedgeable = ({ tasks }: GoalState, task: number): boolean => (tasks.flags[task]! & (HEDGEABLE | LOCKED)) === HEDGEABLE;

/** Second tries that a task of the batch may have open. Leave that was only taken for used may be used still. */
const spareOf = ({ hedges }: BatchState): number => (hedges !== undefined && (hedges.left > 0 || hedges.isUnheard === true) ? 1 : 0);

/** Calls that the batch may have open: permits that it holds. */
export function heldBy(batch: BatchState): number {
  const { lanes, left } = batch;
  const spare = spareOf(batch);
  return left === 0 ? 0 : Math.min(lanes, left + spare);
}

/** Calls that the running task may have open in its own batch. Before it leaves that. */
export function triesOf(state: GoalState, task: number): number {
  const batch = state.batches.get(state.tasks.batch[task]!)!;
  return isHedgeable(state, task) ? 1 + spareOf(batch) : 1;
}

/** What a second try of the task reserves, and is charged: it is one call, whatever the task declares. */
export function costOf(state: GoalState, task: number, other: Amounts): Amounts {
  const reserved = reserveOf(state, task, other);
  return [0, 1, reserved[TOKENS]!, reserved[COST]!];
}

/** What the hedges of a new batch would cost is set aside. */
export function beginHedges({ budget }: GoalState, hedges: Hedges): Hedges {
  for (let i = 0; i < hedges.left; i++) reserve(budget.account, hedges.reserve);
  return { ...hedges };
}

/** The leave that a batch of these tasks gets, out of the bucket; null for none. Tasks that wait come first: no hedge takes their budget. */
export function hedgesFor(rec: Recorder, number: number, batch: Pick<Send, "tasks" | "lanes" | "origin">, seed: number): Hedges | null {
  const { tasks, lanes, origin } = batch;
  const { state } = rec;
  const upstream = state.upstreams[number]!;
  const share = upstream.config?.hedge?.budgetPercent ?? 0;
  if (share === 0) return null;
  const admission = admissionOf(state, number);
  admission.hedges = Math.min(HEDGES_MAX, admission.hedges + (tasks.length * share) / 100);
  const { lease } = admission;
  if (lease.hedgeAfterMs === null || lanes < 2 || lease.isOpen) return null;
  const may = tasks.filter((task) => isHedgeable(state, task));
  const other = reserveAt(upstream.config);
  const each = may.map((task) => costOf(state, task, other)).reduce((most, one) => most.map((n, d) => Math.max(n, one[d]!)), NOTHING);
  const most = Math.min(Math.floor(admission.hedges), may.length, BATCH_LANES_MAX, Math.floor(lease.starts));
  const left = affordable(state, upstream, tasks, each, most);
  if (left <= 0) return null;
  admission.hedges -= left;
  lease.starts -= left;
  return { left, reserve: each, origin: otherOrigin(upstream, origin, lease.origins, seed) };
}

/** How many hedges of `most` the account can pay beside these tasks and all that wait. */
function affordable(state: GoalState, upstream: UpstreamState, tasks: readonly number[], each: Amounts, most: number): number {
  const { account } = state.budget;
  if (!isBounded(account)) return most;
  const other = reserveAt(upstream.config);
  let needed = waitingNeeds(state, upstream, tasks.length);
  for (const task of tasks) needed = plus(needed, reserveOf(state, task, other));
  let count = 0;
  for (; count < most; count++) {
    needed = plus(needed, each);
    if (!canReserve(account, needed)) break;
  }
  return count;
}

/** What the tasks would reserve that wait for upstreams, but for so many of one. */
function waitingNeeds(state: GoalState, but: UpstreamState | null, count: number): Amounts {
  let needed: Amounts = NOTHING;
  for (const each of state.upstreams) {
    const waiting = each === but ? each.queued - count : each.queued;
    const one = reserveAt(each.config);
    needed = needed.map((amount, d) => amount + waiting * one[d]!);
  }
  return needed;
}

/** Whether the account can pay so much beside all that wait. */
export function canSpare(state: GoalState, amounts: Amounts): boolean {
  const { account } = state.budget;
  return !isBounded(account) || canReserve(account, plus(waitingNeeds(state, null, 0), amounts));
}

/** Another origin than the one whose answer is awaited, where there is one. */
export function otherOrigin(upstream: UpstreamState, origin: number, usable: readonly number[] | null, seed: number): number {
  const count = upstream.config!.origins.length;
  const others = (usable ?? upstream.config!.origins.map((_, place) => place)).filter((place) => place !== origin && place < count);
  return others.length === 0 ? origin : chooseOrigin(upstream.origins, count, others, seed);
}

/** The batch's second try of the task was made: it is charged, and the other one of the two is known. */
export function chargeHedge(state: GoalState, task: number): void {
  const batch = state.batches.get(state.tasks.batch[task]!)!;
  const { hedges } = batch;
  if (hedges === undefined || hedges.left === 0) return;
  const before = heldBy(batch);
  hedges.left--;
  const charged = costOf(state, task, batch.reserve ?? ONE_CALL);
  settle(state.budget.account, hedges.reserve, charged);
  countUsage(state, task, charged);
  freeLanes(state, batch, before);
}

/** Nobody knows whether the task was tried twice: it is taken to have been. */
export function chargeUnheard(state: GoalState, task: number): void {
  const hedges = state.batches.get(state.tasks.batch[task]!)?.hedges;
  if (hedges !== undefined && hedges.left > 0) hedges.isUnheard = true;
  if (isHedgeable(state, task)) chargeHedge(state, task);
}

/** The batch is over: what it did not use is released, and goes back into the bucket. */
export function endHedges(state: GoalState, { upstream, hedges }: BatchState): void {
  if (hedges === undefined) return;
  for (; hedges.left > 0; hedges.left--) {
    release(state.budget.account, hedges.reserve);
    const admission = state.admissions[upstream];
    if (admission !== undefined) admission.hedges = Math.min(HEDGES_MAX, admission.hedges + 1);
  }
}

/** The batch holds fewer permits than before. */
export function freeLanes(state: GoalState, batch: BatchState, before: number): void {
  const upstream = state.upstreams[batch.upstream]!;
  const freed = before - heldBy(batch);
  upstream.lanes -= freed;
  upstream.origins[batch.origin]!.open -= freed;
}
