/**
 * A goal among its relatives: the sub-goals that its tasks opened, and the
 * goal whose task it is itself. What is here is durable but for `Mail`, which
 * ends with the incarnation. Nothing here decides anything.
 */
import type { Failure } from "../../../shared/errors.ts";
import type { GoalId } from "../../../shared/ids.ts";
import { SUBGOAL_RETENTION_MS_MIN } from "../../../shared/limits.ts";
import { type Amounts, fundsOf, spentInAll } from "../../../shared/policy/account.ts";
import type { GoalStatus } from "../../../shared/protocol/goal.ts";
import type { SubgoalOrder, SubgoalReport } from "../../../shared/protocol/subgoal.ts";
import { EXPIRED, isTerminal } from "./codes.ts";
import type { GoalState } from "./state.ts";

/** The entry whose queue tasks of kind `goal` wait in. No upstream can have the name. */
export const SUBGOALS = "goal:";

/** A sub-goal that has not come to its end, as far as this goal knows. */
export interface Subgoal {
  readonly goalId: GoalId;
  /** It is known to exist. */
  isMade: boolean;
  /** The number of its latest report; 0 before the first. */
  heard: number;
  status: GoalStatus;
  counts: readonly number[];
  spent: Amounts;
  /** The number of the latest order that it has acknowledged, and whether that was to stop. */
  told: number;
  isStopped: boolean;
}

/** What was last reported to the goal above. */
export interface Told {
  readonly number: number;
  readonly status: GoalStatus;
  readonly counts: readonly number[];
  readonly spent: Amounts;
  readonly isFinal: boolean;
}

export interface Kin {
  /** By task. One that has come to its end is not here any more. */
  readonly open: Map<number, Subgoal>;
  /** Tasks whose sub-goals have not done, or heard, what they are to. Derived. */
  readonly owed: Set<number>;
  /** Sub-goals that are not known to exist. */
  making: number;
  /** Tasks of kind `goal`, ever. */
  total: number;
  /** Tasks of all sub-goals by status: each one's latest report. */
  readonly counts: number[];
  /** Rises whenever this goal comes to stand still, or to go on. */
  orders: number;
  /** The latest order from above. */
  above: { number: number; isPaused: boolean };
  told: Told | null;
  /** The latest number that the goal above has acknowledged. */
  acknowledged: number;
  /** Why a sub-goal could not begin. */
  refusal: Failure | null;
}

export interface KinImage extends Omit<Kin, "open" | "owed"> {
  readonly open: readonly (readonly [number, Subgoal])[];
  readonly owed?: undefined;
}

const NO_COUNTS = [0, 0, 0, 0, 0, 0, 0];

export function newKin(): Kin {
  return {
    open: new Map(),
    owed: new Set(),
    making: 0,
    total: 0,
    counts: [...NO_COUNTS],
    orders: 0,
    above: { number: 0, isPaused: false },
    told: null,
    acknowledged: 0,
    refusal: null,
  };
}

export function kinImage(kin: Kin): KinImage {
  return { ...kin, open: [...kin.open], owed: undefined };
}

/** `owed` follows from the rest, once the tasks are there. */
export function kinFrom({ open, ...rest }: KinImage): Kin {
  return { ...newKin(), ...rest, open: new Map(open), owed: new Set() };
}

export function newSubgoal(goalId: GoalId): Subgoal {
  return { goalId, isMade: false, heard: 0, status: "active", counts: NO_COUNTS, spent: [0, 0, 0, 0], told: 0, isStopped: false };
}

/** The goals above, root first. */
export const ancestorsOf = ({ goal }: GoalState): readonly string[] => goal?.spec.parent?.ancestors ?? [];

/** Whether the goal stands still: by its own pause, or by that of a goal above. */
export function isPaused({ goal, kin }: GoalState): boolean {
  return goal!.paused || kin.above.isPaused;
}

/** How the goal is seen from outside. */
export function statusOf(state: GoalState): GoalStatus {
  const { phase } = state.goal!;
  return phase === "active" && (isPaused(state) || state.budget.isExhausted) ? "paused" : phase;
}

/** Enters a sub-goal among those that are owed a message, or takes it out. */
export function reckon({ kin, tasks }: GoalState, task: number): void {
  const subgoal = kin.open.get(task);
  const hasEnded = isTerminal(tasks.status[task]!);
  const isOwed = subgoal !== undefined && (!subgoal.isMade || (hasEnded ? !subgoal.isStopped : subgoal.told !== kin.orders));
  if (isOwed) kin.owed.add(task);
  else kin.owed.delete(task);
}

export function reckonAll(state: GoalState): void {
  for (const task of state.kin.open.keys()) reckon(state, task);
}

/** The goal comes to stand still, or goes on: so do its sub-goals. */
export function noteStandstill(state: GoalState, wasPaused: boolean): void {
  if (isPaused(state) === wasPaused) return;
  state.kin.orders++;
  reckonAll(state);
}

/** Tasks by status, those of sub-goals included. */
export function countsInAll({ counts, kin }: GoalState): readonly number[] {
  return kin.total === 0 ? counts : counts.map((count, status) => count + kin.counts[status]!);
}

/** Over, nothing below is left, and no gate holds anything: no total will change any more. */
export function isFinal({ goal, kin, budget }: GoalState): boolean {
  return goal!.phase !== "active" && kin.open.size === 0 && budget.tabs.size === 0;
}

const isSame = (a: readonly number[], b: readonly number[]): boolean => a.every((value, i) => value === b[i]);

/** Whether the goal above would hear something new. */
export function hasNews(state: GoalState): boolean {
  const { told } = state.kin;
  if (state.goal!.spec.parent === undefined) return false;
  if (told === null || told.status !== statusOf(state) || told.isFinal !== isFinal(state)) return true;
  return !isSame(told.counts, countsInAll(state)) || !isSame(told.spent, spentInAll(state.budget.account));
}

/** The latest report, as it was numbered. */
export function reportOf({ goal, kin }: GoalState): SubgoalReport {
  const { number, status, counts, spent, isFinal } = kin.told!;
  const refusal = kin.refusal === null ? {} : { refusal: kin.refusal };
  return { goalId: goal!.id, task: goal!.spec.parent!.task, number, status, counts, spent, isFinal, ...refusal };
}

/** What a sub-goal is to do. */
export function orderFor(state: GoalState, task: number): SubgoalOrder {
  const { kin, tasks } = state;
  const status = tasks.status[task]!;
  const stop = isTerminal(status) ? (status === EXPIRED ? "expired" : "canceled") : null;
  const funds = fundsOf(state.budget.account, String(task));
  return { goalId: kin.open.get(task)!.goalId, task, number: kin.orders, isPaused: isPaused(state), stop, funds };
}

/** Messages that are under way or rest, and what this incarnation knows of their answers. */
export interface Mail {
  /** By task: when a message may be sent (again), and after how many failures. */
  readonly letters: Map<number, { isOut: boolean; dueAtMs: number; failures: number }>;
  out: number;
  /** When the next of them is due; null for none. */
  dueAtMs: number | null;
  /** When this incarnation last heard of a sub-goal, by task; and the silent ones that are being asked. */
  readonly heardAtMs: Map<number, number>;
  readonly asked: Set<number>;
  lookAtMs: number;
  report: { isOut: boolean; dueAtMs: number; failures: number };
  reportMs: number;
  acknowledged: number;
}

export function newMail(): Mail {
  return {
    letters: new Map(),
    out: 0,
    dueAtMs: null,
    heardAtMs: new Map(),
    asked: new Set(),
    lookAtMs: 0,
    report: { isOut: false, dueAtMs: 0, failures: 0 },
    reportMs: 0,
    acknowledged: 0,
  };
}

/** Whether the goal above has not acknowledged how this one stands. */
export function owesReport(state: GoalState): boolean {
  const { goal, kin, mail } = state;
  if (goal?.spec.parent === undefined) return false;
  return hasNews(state) || Math.max(kin.acknowledged, mail.acknowledged) < kin.told!.number;
}

/** When a message is next to be sent; null for never. */
export function nextMessageMs(state: GoalState): number | null {
  const { kin, mail } = state;
  let at = Number.POSITIVE_INFINITY;
  if (kin.open.size > 0) at = Math.min(mail.dueAtMs ?? at, mail.lookAtMs === 0 ? at : mail.lookAtMs);
  if (owesReport(state)) at = Math.min(at, mail.report.dueAtMs);
  return Number.isFinite(at) ? at : null;
}

/** Whether an ended goal is still needed by those above or below it. */
export function hasRelatives(state: GoalState): boolean {
  return state.kin.open.size > 0 || owesReport(state);
}

/** A sub-goal is kept for long enough that no message can make it anew. */
export function deletableAtMs({ goal }: GoalState): number {
  const { retentionMs, parent } = goal!.spec;
  return goal!.endedAtMs! + (parent === undefined ? retentionMs : Math.max(retentionMs, SUBGOAL_RETENTION_MS_MIN));
}
