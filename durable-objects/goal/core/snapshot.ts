/**
 * The whole state as plain data and columns, and back. Timers are left out:
 * they follow from the columns. Queues keep only entries that still wait.
 */
import type { Backup } from "./backups.ts";
import { type BudgetImage, budgetFrom, budgetImage } from "./budget.ts";
import { KeyIndex } from "./key-index.ts";
import { type KinImage, kinFrom, kinImage, reckonAll } from "./kin.ts";
import { addTimer, newTimers } from "./timers.ts";
import { FOR_BACKOFF, isTerminal, QUEUED, RUNNING, STARTED, WAITING, WORK } from "./codes.ts";
import { flightsFrom, type FlightsImage, flightsImage, newFlights } from "./flights.ts";
import { type Columns, type ColumnName, tableFrom, usedColumns } from "./columns.ts";
import { type GoalLocksImage, goalLocksFrom, imageOfGoalLocks } from "./lock-state.ts";
import { contents, newQueue } from "./queue.ts";
import { imageOfSharedState, sharedStateFrom, type SharedStateImage } from "./shared-state.ts";
import { newRuns, runsFrom, type RunsImage, runsImage } from "./run-state.ts";
import { rightsFrom, type RightsImage, rightsImage } from "./rights.ts";
import {
  type AttemptRecord,
  type BatchState,
  type Family,
  type GoalRecord,
  type GoalState,
  newState,
  type UpstreamState,
} from "./state.ts";

interface UpstreamImage extends Omit<UpstreamState, "ready"> {
  readonly ready: readonly (readonly number[])[];
}

/** Everything but the columns: JSON as it stands. */
export interface SnapshotMeta {
  readonly n: number;
  readonly goal: GoalRecord | null;
  readonly keys: readonly (readonly [string, number])[];
  readonly families: readonly (readonly [number, Family])[];
  readonly dependents: readonly (readonly [number, readonly number[]])[];
  readonly upstreams: readonly UpstreamImage[];
  readonly registryVersion: number;
  readonly batches: readonly (readonly [number, BatchState])[];
  /** Left out for none. */
  readonly backups?: readonly (readonly [number, Backup])[];
  readonly nextBatch: number;
  readonly nextOffer: number;
  readonly ended: readonly number[];
  readonly attempts: readonly (readonly [number, readonly AttemptRecord[]])[];
  readonly counts: readonly number[];
  readonly joined: number;
  readonly calls: number;
  readonly late: number;
  readonly latencies: readonly number[];
  readonly budget: BudgetImage;
  readonly rights: RightsImage;
  readonly runs?: RunsImage;
  /** Left out where no task coalesces. */
  readonly flights?: FlightsImage;
  readonly locks: GoalLocksImage;
  readonly kin: KinImage;
  readonly shared: SharedStateImage;
}

export interface Snapshot {
  readonly meta: SnapshotMeta;
  readonly columns: Columns;
}

export function toSnapshot(state: GoalState): Snapshot {
  const isQueued = (task: number): boolean => state.tasks.status[task] === QUEUED;
  const meta: SnapshotMeta = {
    n: state.tasks.n,
    goal: state.goal,
    keys: state.keys.entries(),
    families: [...state.families],
    dependents: [...state.dependents],
    upstreams: state.upstreams.map((upstream) => ({ ...upstream, ready: upstream.ready.map((queue) => contents(queue).filter(isQueued)) })),
    registryVersion: state.registryVersion,
    batches: [...state.batches],
    ...(state.backups.size > 0 && { backups: [...state.backups] }),
    nextBatch: state.nextBatch,
    nextOffer: state.nextOffer,
    ended: state.ended,
    attempts: [...state.attempts],
    counts: state.counts,
    joined: state.joined,
    calls: state.calls,
    late: state.late,
    latencies: [...state.latencies],
    budget: budgetImage(state.budget),
    rights: rightsImage(state.rights),
    runs: runsImage(state.runs),
    ...(state.flights.keys.length > 0 && { flights: flightsImage(state.flights) }),
    locks: imageOfGoalLocks(state.locks),
    kin: kinImage(state.kin),
    shared: imageOfSharedState(state.shared),
  };
  return { meta, columns: usedColumns(state.tasks) };
}

/** `meta` is taken over, not copied: it must come fresh from its text. */
export function fromSnapshot(meta: SnapshotMeta, bytesOf: (name: ColumnName, byteLength: number) => ArrayBuffer): GoalState {
  const state: GoalState = {
    ...newState(),
    goal: meta.goal,
    tasks: tableFrom(meta.n, bytesOf),
    keys: new KeyIndex(meta.keys, meta.keys.length),
    families: new Map(meta.families),
    dependents: new Map(meta.dependents as readonly (readonly [number, number[]])[]),
    upstreams: meta.upstreams.map((image) => ({ ...image, ready: image.ready.map((items) => newQueue([...items])) })),
    upstreamNumbers: new Map(meta.upstreams.map(({ name }, number) => [name, number])),
    registryVersion: meta.registryVersion,
    batches: new Map(meta.batches),
    backups: new Map(meta.backups),
    nextBatch: meta.nextBatch,
    nextOffer: meta.nextOffer,
    ended: [...meta.ended],
    attempts: new Map(meta.attempts as readonly (readonly [number, AttemptRecord[]])[]),
    counts: [...meta.counts],
    joined: meta.joined,
    calls: meta.calls,
    late: meta.late,
    latencies: Uint32Array.from(meta.latencies),
    budget: budgetFrom(meta.budget),
    rights: rightsFrom(meta.rights),
    // A snapshot of before there were functions has none.
    runs: meta.runs === undefined ? newRuns() : runsFrom(meta.runs),
    flights: meta.flights === undefined ? newFlights() : flightsFrom(meta.flights),
    locks: goalLocksFrom(meta.locks),
    kin: kinFrom(meta.kin),
    shared: sharedStateFrom(meta.shared),
  };
  for (const [key, task] of meta.keys) state.names[task] = key;
  setTimers(state);
  reckonAll(state);
  return state;
}

/** Sets the timers that the columns call for. */
function setTimers(state: GoalState): void {
  const { tasks } = state;
  state.timers = newTimers();
  for (let task = 0; task < tasks.n; task++) {
    if (isTerminal(tasks.status[task]!)) continue;
    if (tasks.status[task] === WAITING && tasks.reason[task] === FOR_BACKOFF) addTimer(state.timers, tasks.dueAtMs[task]!, task);
    const isClaimed = tasks.status[task] === RUNNING && (tasks.flags[task]! & WORK) !== 0;
    if (isClaimed) addTimer(state.timers, tasks.dueAtMs[task]!, task);
    if (tasks.expiresAtMs[task]! > 0 && (tasks.flags[task]! & STARTED) === 0) addTimer(state.timers, tasks.expiresAtMs[task]!, task);
  }
}
