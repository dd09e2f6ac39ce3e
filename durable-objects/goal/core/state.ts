/**
 * What a goal is, in memory. Everything here but `timers`, `admissions` and
 * `life` can be rebuilt from the snapshot and the journal, field for field. Only `mutate.ts` writes it.
 */
import { newHistogram } from "../../../shared/policy/histogram.ts";
import type { GoalId } from "../../../shared/ids.ts";
import type { GoalSpec } from "../../../shared/protocol/goal.ts";
import type { Amounts } from "../../../shared/policy/account.ts";
import type { CompletionRule } from "../../../shared/protocol/task.ts";
import type { Upstream } from "../../../shared/protocol/upstream.ts";
import { PRIORITY_BANDS } from "../../../shared/protocol/admission.ts";
import type { Admission } from "./admission.ts";
import type { Backup } from "./backups.ts";
import { type BudgetState, newBudget } from "./budget.ts";
import type { Hedges } from "./hedges.ts";
import { KeyIndex } from "./key-index.ts";
import { type Kin, type Mail, newKin, newMail } from "./kin.ts";
import { newTable, type TaskTable } from "./columns.ts";
import { type GoalFlights, newFlights } from "./flights.ts";
import { type GoalLocks, newGoalLocks } from "./lock-state.ts";
import { newQueue, type Queue } from "./queue.ts";
import type { Rights } from "./rights.ts";
import { newRuns, type Runs } from "./run-state.ts";
import { newSharedState, type SharedState } from "./shared-state.ts";
import { newTimers, type Timers } from "./timers.ts";

export type GoalPhase = "active" | "succeeded" | "failed" | "canceled" | "expired";

export interface GoalRecord {
  readonly id: GoalId;
  readonly spec: GoalSpec;
  readonly createdAtMs: number;
  readonly deadlineAtMs: number | null;
  phase: GoalPhase;
  paused: boolean;
  sealed: boolean;
  endedAtMs: number | null;
  /** When the last task ended or was added: an idle goal expires. */
  touchedAtMs: number;
  /** The tenant's directory knows that the goal has ended. */
  endReported: boolean;
}

/** The children of one parent, or the root tasks of the goal, counted by status. */
export interface Family {
  readonly rule: CompletionRule;
  counts: number[];
  first: number;
  last: number;
}

export interface UpstreamState {
  readonly name: string;
  /** Null once the upstream was deleted: its tasks wait until it is back. */
  config: Upstream | null;
  /** One queue for each priority. */
  readonly ready: Queue[];
  /** Tasks that are in `ready` and still queued. */
  queued: number;
  /** Tasks that were sent and whose results are not durable. */
  running: number;
  /** Calls that may be open at once by what was sent. */
  lanes: number;
  /** Tasks that are queued or sent, by priority. */
  wanted: number[];
  /** By the origin's place in the configuration. */
  origins: OriginState[];
  /** No call starts before this. */
  gateUntilMs: number;
  /** A moving average; 0 before the first answer. */
  latencyMs: number;
}

export interface OriginState {
  /** As `lanes`, of this origin. */
  open: number;
  /** A moving average; 0 before the first answer. */
  latencyMs: number;
}

export interface BatchState {
  readonly upstream: number;
  readonly origin: number;
  readonly lanes: number;
  /** The longest timeout in it: by then something must have been heard. */
  readonly timeoutMs: number;
  /** What each attempt has reserved whose task declares nothing; left out for a call alone. */
  readonly reserve?: Amounts | undefined;
  /** Left out where nothing may be hedged. */
  readonly hedges?: Hedges | undefined;
  left: number;
  leaseUntilMs: number;
}

export interface AttemptRecord {
  readonly startedAtMs: number;
  readonly endedAtMs: number;
  readonly outcome: string;
  /** It was the second try of its attempt. */
  readonly hedge?: true;
}

/** What the record of a try says that the other one of its attempt was better than. */
export const BEATEN = "beaten";

/** The family of the root tasks. */
export const ROOT = -1;

export interface GoalState {
  goal: GoalRecord | null;
  tasks: TaskTable;
  /** Key to task, and task to key. */
  keys: KeyIndex;
  names: (string | undefined)[];
  families: Map<number, Family>;
  /** Task to those that wait for it: `2 * task`, plus 1 where any end will do. */
  dependents: Map<number, number[]>;
  upstreams: UpstreamState[];
  upstreamNumbers: Map<string, number>;
  registryVersion: number;
  batches: Map<number, BatchState>;
  /** By task: what runs a second time. */
  backups: Map<number, Backup>;
  nextBatch: number;
  nextOffer: number;
  /** Tasks in the order in which they ended. */
  ended: number[];
  /** Earlier attempts of tasks that needed more than one. */
  attempts: Map<number, AttemptRecord[]>;
  counts: number[];
  joined: number;
  /** Attempts that were reported, whatever came of them. */
  calls: number;
  /** Results that came for an attempt that was no longer current. */
  late: number;
  latencies: Uint32Array;
  budget: BudgetState;
  locks: GoalLocks;
  kin: Kin;
  shared: SharedState;
  timers: Timers;
  rights: Rights;
  runs: Runs;
  flights: GoalFlights;
  /** Messages between goals. They end with the incarnation too. */
  mail: Mail;
  /** What governors have granted, by upstream. It ends with the incarnation, which `life` names. */
  admissions: Admission[];
  life: string;
}

export const STATUSES = 7;

export function newFamily(rule: CompletionRule): Family {
  return { rule, counts: Array.from({ length: STATUSES }, () => 0), first: -1, last: -1 };
}

export function newUpstream(name: string, config: Upstream | null): UpstreamState {
  const ready = Array.from({ length: PRIORITY_BANDS }, () => newQueue());
  const origins = (config?.origins ?? []).map(newOrigin);
  return { name, config, ready, queued: 0, running: 0, lanes: 0, wanted: [0, 0, 0], origins, gateUntilMs: 0, latencyMs: 0 };
}

/** An entry of tasks without an upstream. What runs somewhere runs at its one origin. */
export const newQueueEntry = (name: string): UpstreamState => ({ ...newUpstream(name, null), origins: [newOrigin()] });

export const newOrigin = (): OriginState => ({ open: 0, latencyMs: 0 });

export function newState(): GoalState {
  return {
    goal: null,
    tasks: newTable(),
    keys: new KeyIndex(),
    names: [],
    families: new Map(),
    dependents: new Map(),
    upstreams: [],
    upstreamNumbers: new Map(),
    registryVersion: 0,
    batches: new Map(),
    backups: new Map(),
    nextBatch: 1,
    nextOffer: 1,
    ended: [],
    attempts: new Map(),
    counts: Array.from({ length: STATUSES }, () => 0),
    joined: 0,
    calls: 0,
    late: 0,
    latencies: newHistogram(),
    budget: newBudget(),
    locks: newGoalLocks(),
    kin: newKin(),
    shared: newSharedState(),
    timers: newTimers(),
    rights: { epoch: 0, tenantPolicy: null, recheckBelow: 0, brought: [], rules: undefined },
    runs: newRuns(),
    flights: newFlights(),
    mail: newMail(),
    admissions: [],
    life: "",
  };
}

/** Tasks without an upstream stand in entries of their own, whose names no upstream can have. */
export const workQueueName = (queue: string): string => `work:${queue}`;
/** The queue that a task of kind `work` waits in. */
export const queueOf = ({ tasks, upstreams }: GoalState, task: number): string =>
  upstreams[tasks.upstream[task]!]!.name.slice("work:".length);
export const isUpstream = ({ name }: UpstreamState): boolean => !name.includes(":");

/** Whether the upstream hedges, and has nothing of the goal left to begin. */
export const isAtEnd = ({ config, queued }: UpstreamState): boolean => queued === 0 && (config?.hedge ?? null) !== null;

/** The number of an upstream that this goal has heard of; -1 for none. */
export function upstreamNamed(state: GoalState, name: string): number {
  return state.upstreamNumbers.get(name) ?? -1;
}

/** Tasks that have not ended. */
export function liveCount(counts: readonly number[]): number {
  return counts[0]! + counts[1]! + counts[2]!;
}

export function totalCount(counts: readonly number[]): number {
  return counts.reduce((sum, count) => sum + count, 0);
}
