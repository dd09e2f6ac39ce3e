/**
 * Carries out a decision and writes it down, in one call: memory moves through
 * the functions of `mutate.ts`, and the same fact goes into the journal.
 * Neighbouring facts of one kind share an entry.
 */
import type { GoalId } from "../../../shared/ids.ts";
import { type Amounts, CALLS, COST, type FundRequest, TOKENS } from "../../../shared/policy/account.ts";
import type { GoalSpec } from "../../../shared/protocol/goal.ts";
import type { Policy } from "../../../shared/policy/rules.ts";
import type { Report } from "../../../shared/protocol/admission.ts";
import type { Beaten, LineHead } from "../../../shared/protocol/line.ts";
import type { FunctionVersion } from "../../../shared/protocol/function.ts";
import type { CallSpec } from "../../../shared/protocol/task.ts";
import type { SubgoalOrder, SubgoalReport } from "../../../shared/protocol/subgoal.ts";
import type { Upstream } from "../../../shared/protocol/upstream.ts";
import type { FlightMessage } from "../../../shared/protocol/flight.ts";
import type { LockMessage } from "../../../shared/policy/lock-steps.ts";
import { addTasks } from "./add.ts";
import { admissionOf } from "./admission.ts";
import { outcomeWord } from "./apply.ts";
import { hedgeTask } from "./attempts.ts";
import { applyBackups, type BackupsChange, type Try } from "./backups.ts";
import { type Hedges, triesOf } from "./hedges.ts";
import type { KeyIndex } from "./key-index.ts";
import type { Change, Rest, TasksAdded } from "./change.ts";
import type { SettledLine } from "./lock-turn.ts";
import { createGoal, deferTask, delayTask, doubtTask, endGoal, type Ending, endTask, keepWork, loseLocks } from "./mutate.ts";
import { loseTask } from "./mutate.ts";
import { pauseGoal, releaseTask, setUpstreams, startBatch } from "./mutate.ts";
import { repeatTask } from "./place.ts";
import { applyRights, approveTask, parkTask, setTenantPolicy } from "./rights.ts";
import { applyRuns, noteUsed, setFunctions, type Starved } from "./run-state.ts";
import { correctUsage, isOneCall, reserveAt } from "./reserve.ts";
import type { GoalPhase, GoalState } from "./state.ts";

/** What the tenant has registered; a version is never used twice. */
export interface Registered {
  readonly version: number;
  readonly upstreams: readonly Upstream[];
  /** The newest version of each; left out for none. */
  readonly functions?: readonly FunctionVersion[] | undefined;
  /** The tenant's default policy. */
  readonly policy?: Policy | null;
  /** Dimensions that the tenant's budget bounds; left out for none. */
  readonly bounded?: readonly boolean[] | undefined;
}

/** The number of no batch: its executor has aborted the call by itself. */
const NO_BATCH = 0;

/** Where a result line was put. */
export interface Place {
  readonly row: number;
  readonly index: number;
}

/** A batch to send once the commit is made. */
export interface Send {
  readonly batch: number;
  readonly upstream: number;
  readonly origin: number;
  readonly lanes: number;
  readonly tasks: readonly number[];
  /** What may be hedged; left out for nothing. */
  readonly hedges?: Hedges | undefined;
  /** Its one task runs in another batch as well. */
  readonly isBackup?: true;
}

/** What a step leaves behind for the shell. */
export interface Out {
  /** Facts to commit, in order. */
  readonly changes: Change[];
  /** Batches to send after the commit. */
  readonly sends: Send[];
  /** Attempts to abort: batch, task, attempt. */
  readonly aborts: (readonly [number, number, number])[];
  /** Reports to governors, to make after the commit. */
  readonly reports: Report[];
  /** Messages to sub-goals, and the report to the goal above, to send after the commit. */
  readonly orders: SubgoalOrder[];
  report: SubgoalReport | null;
  /** Functions that tasks were accepted of, with how many: their executors may get ready. */
  readonly warms: (readonly [name: string, tasks: number])[];
  /** Keeps a result line with this commit, and says where it will be. */
  readonly keep: (line: string) => Place;
  /** The call of a task, by its offer and its place there; undefined where it has none. May have to read it from disk. */
  readonly callOf: (offer: number, place: number) => CallSpec | undefined;
  /** What the goal asks of the account above, after the commit; the answer comes in with a command. */
  funds?: FundRequest;
  /** Values of the shared state to keep with this commit, as JSON by key; null deletes. */
  readonly values: (readonly [key: string, value: string | null])[];
  /** Ends of waits for locks, to be told to who is on the line. */
  readonly lines: SettledLine[];
  /** Messages to shards of the tenant's locks, to send after the commit. */
  readonly lockMessages: LockMessage[];
  /** The same to shards of flights. */
  readonly flightMessages: FlightMessage[];
  /** The goal is past its retention: everything may be deleted. */
  destroy: boolean;
}

export class Recorder {
  readonly state: GoalState;
  readonly out: Out;
  readonly nowMs: number;

  constructor(state: GoalState, nowMs: number, out: Out) {
    this.state = state;
    this.nowMs = nowMs;
    this.out = out;
  }

  create(id: GoalId, spec: GoalSpec): void {
    const change = { kind: "goal.created", id, spec, atMs: this.nowMs } as const;
    createGoal(this.state, change);
    this.out.changes.push(change);
  }

  /** Takes it where it is newer than what is known, and says whether it was. */
  setRegistry({ version, upstreams, policy = null, functions = [] }: Registered): boolean {
    if (version <= this.state.registryVersion) return false;
    setUpstreams(this.state, version, upstreams);
    setFunctions(this.state, functions);
    setTenantPolicy(this.state, policy);
    const change = { kind: "upstreams.set", version, upstreams, policy } as const;
    this.out.changes.push(functions.length === 0 ? change : { ...change, functions });
    return true;
  }

  revokeTokens(): void {
    const change = { kind: "tokens.revoked", epoch: this.state.rights.epoch + 1 } as const;
    applyRights(this.state, change);
    this.out.changes.push(change);
  }

  approve(task: number): void {
    approveTask(this.state, task, this.nowMs);
    this.out.changes.push({ kind: "task.approved", task, atMs: this.nowMs });
  }

  park(task: number): void {
    parkTask(this.state, task);
    const last = this.#last("tasks.parked");
    if (last === undefined) this.out.changes.push({ kind: "tasks.parked", tasks: [task] });
    else last.tasks.push(task);
  }

  add(specs: readonly unknown[], change: TasksAdded, index?: KeyIndex): void {
    addTasks(this.state, specs, change, index);
    this.out.changes.push(change);
  }

  join(count: number): void {
    this.state.joined += count;
    this.out.changes.push({ kind: "tasks.joined", count });
  }

  repeat(task: number): void {
    repeatTask(this.state, task, this.nowMs);
    this.out.changes.push({ kind: "task.repeated", task, atMs: this.nowMs });
  }

  pause(paused: boolean): void {
    pauseGoal(this.state, paused);
    this.out.changes.push({ kind: "goal.paused", paused });
  }

  seal(): void {
    this.state.goal!.sealed = true;
    this.out.changes.push({ kind: "goal.sealed" });
  }

  endGoal(phase: GoalPhase, rest: Rest): void {
    for (const task of this.state.backups.keys()) this.#cutOff(task);
    const change = { kind: "goal.ended", phase, rest, atMs: this.nowMs, keepsTabs: true } as const;
    endGoal(this.state, change);
    this.out.changes.push(change);
    // What this turn has begun has not left yet.
    this.out.sends.length = 0;
  }

  noteEndReported(): void {
    this.state.goal!.endReported = true;
    this.out.changes.push({ kind: "goal.end-reported" });
  }

  gate(upstream: number, untilMs: number): void {
    this.state.upstreams[upstream]!.gateUntilMs = untilMs;
    this.out.changes.push({ kind: "upstream.gated", upstream, untilMs });
  }

  start(send: Send): void {
    const { batch, upstream, origin, lanes, tasks, hedges } = send;
    const reserve = reserveAt(this.state.upstreams[upstream]!.config);
    const change = { kind: "tasks.started", batch, upstream, origin, lanes, atMs: this.nowMs, tasks } as const;
    const paid = isOneCall(reserve) ? change : { ...change, reserve };
    const whole = hedges === undefined ? paid : { ...paid, hedges };
    startBatch(this.state, whole);
    this.out.changes.push(whole);
    this.out.sends.push(send);
  }

  /** Has the attempt of a running task aborted. Until that is done its call counts as open. */
  abort(task: number): void {
    const { tasks } = this.state;
    // Nobody's batch: a sub-goal is told by other means.
    if (tasks.batch[task] === 0) return;
    // Its batch may have two tries of it open and give back the permits of both: each counts until it is closed.
    for (let tries = triesOf(this.state, task); tries > 0; tries--) this.#closing(tasks.batch[task]!, task, tasks.attempt[task]!);
  }

  /** The attempt that is reported was tried twice. Where the call that was cut off counts, it does until it is closed. */
  hedged({ task, attempt, endedAtMs }: LineHead, beaten: Beaten): void {
    const { tasks, upstreams, backups } = this.state;
    const backup = backups.get(task);
    hedgeTask(this.state, task, beaten.isFirst, beaten.startedAtMs, endedAtMs);
    this.#rows("tasks.hedged").push(task, beaten.isFirst ? 1 : 0, beaten.startedAtMs, endedAtMs);
    if (backup !== undefined) {
      const loser = beaten.isFirst ? "first" : "second";
      if (backup.failed !== loser) this.#closing(beaten.isFirst ? tasks.batch[task]! : backup.batch, task, attempt);
      return;
    }
    const isBounded = upstreams[tasks.upstream[task]!]!.config?.maxConcurrency !== null;
    if (isBounded && beaten.status === 0) this.#closing(NO_BATCH, task, attempt);
  }

  /** Runs a task's call a second time, in a batch of its own. */
  backUp(change: Extract<BackupsChange, { kind: "backup.started" }>): void {
    const { task, batch, origin } = change;
    applyBackups(this.state, change);
    this.out.changes.push(change);
    const { upstream } = this.state.backups.get(task)!;
    this.out.sends.push({ batch, upstream, origin, lanes: 1, tasks: [task], isBackup: true });
  }

  /** One of the two tries has failed, or was lost: the other one decides. */
  failTry(task: number, failed: Try): void {
    const change = { kind: "backup.failed", task, failed } as const;
    applyBackups(this.state, change);
    this.out.changes.push(change);
  }

  /** The backup was never made. */
  dropBackup(task: number): void {
    const change = { kind: "backup.dropped", task } as const;
    applyBackups(this.state, change);
    this.out.changes.push(change);
  }

  /** Has the backup of a task aborted, whose attempt ends by other means than a line. */
  #cutOff(task: number): void {
    const backup = this.state.backups.get(task);
    if (backup !== undefined && backup.failed !== "second") this.#closing(backup.batch, task, this.state.tasks.attempt[task]!);
  }

  #closing(batch: number, task: number, attempt: number): void {
    this.out.aborts.push([batch, task, attempt]);
    admissionOf(this.state, this.state.tasks.upstream[task]!).closing++;
  }

  end(ending: Ending): void {
    if (this.state.backups.size > 0) this.#cutOff(ending.task);
    endTask(this.state, ending, this.nowMs);
    const { task, status, code, resultRow, resultIndex, startedAtMs, endedAtMs } = ending;
    const last = this.#last("tasks.ended");
    const rows = last?.rows ?? [];
    rows.push(task, status, code, resultRow, resultIndex, startedAtMs, endedAtMs);
    if (last === undefined) this.out.changes.push({ kind: "tasks.ended", atMs: this.nowMs, rows });
  }

  keepWork(task: number, { row, index }: Place, startedAtMs: number, endedAtMs: number): void {
    keepWork(this.state, task, row, index, startedAtMs, endedAtMs);
    this.#rows("tasks.worked").push(task, row, index, startedAtMs, endedAtMs);
  }

  delay(task: number, outcome: number, startedAtMs: number, endedAtMs: number, dueAtMs: number): void {
    delayTask(this.state, task, outcomeWord(outcome), startedAtMs, endedAtMs, dueAtMs);
    this.#rows("tasks.delayed").push(task, outcome, startedAtMs, endedAtMs, dueAtMs);
  }

  defer(task: number, outcome: number, startedAtMs: number, endedAtMs: number): void {
    deferTask(this.state, task, outcomeWord(outcome), startedAtMs, endedAtMs);
    this.#rows("tasks.deferred").push(task, outcome, startedAtMs, endedAtMs);
  }

  /** `outcome` is -1, and the times 0, where nothing was reported. */
  doubt(task: number, outcome: number, startedAtMs: number, endedAtMs: number): void {
    doubtTask(this.state, task, outcomeWord(outcome), startedAtMs, endedAtMs);
    this.#rows("tasks.doubted").push(task, outcome, startedAtMs, endedAtMs);
  }

  release(task: number): void {
    releaseTask(this.state, task, this.nowMs);
    const last = this.#last("tasks.released");
    if (last === undefined) this.out.changes.push({ kind: "tasks.released", atMs: this.nowMs, tasks: [task] });
    else last.tasks.push(task);
  }

  lose(task: number, suspicion: number): void {
    this.#cutOff(task);
    loseTask(this.state, task, suspicion);
    const last = this.#last("tasks.lost");
    if (last === undefined || last.suspicion !== suspicion) this.out.changes.push({ kind: "tasks.lost", suspicion, tasks: [task] });
    else last.tasks.push(task);
  }

  /** The calls of a function's run used so much, and were charged for it. */
  noteUsed(task: number, { calls, tokens, costMicros }: LineHead): void {
    if (calls === 0 && tokens === 0 && costMicros === 0) return;
    noteUsed(this.state, task, calls, tokens, costMicros);
    this.#rows("runs.used").push(task, calls, tokens, costMicros);
  }

  starve(queue: number, starved: Starved | null): void {
    const change = { kind: "runs.starved", queue, starved } as const;
    applyRuns(this.state, change);
    this.out.changes.push(change);
  }

  /** What an attempt at the task that has ended used differs so much from what it reserved. */
  correct(task: number, difference: Amounts): void {
    correctUsage(this.state, task, difference);
    this.#rows("usage.corrected").push(task, difference[CALLS]!, difference[TOKENS]!, difference[COST]!);
  }

  loseLocks(task: number): void {
    loseLocks(this.state, task);
    this.out.changes.push({ kind: "locks.lost", task });
  }

  countLate(): void {
    this.state.late++;
    const last = this.#last("results.late");
    if (last === undefined) this.out.changes.push({ kind: "results.late", count: 1 });
    else last.count++;
  }

  /** The latest change, if it is of this kind and was made at this time. */
  #last<K extends Change["kind"]>(kind: K): Extract<Change, { kind: K }> | undefined {
    const last = this.out.changes.at(-1);
    if (last?.kind !== kind || ("atMs" in last && last.atMs !== this.nowMs)) return undefined;
    return last as Extract<Change, { kind: K }>;
  }

  #rows(
    kind: "runs.used" | "tasks.hedged" | "tasks.worked" | "tasks.delayed" | "tasks.deferred" | "tasks.doubted" | "usage.corrected",
  ): number[] {
    const last = this.#last(kind);
    if (last !== undefined) return last.rows;
    const rows: number[] = [];
    this.out.changes.push({ kind, rows });
    return rows;
  }
}
