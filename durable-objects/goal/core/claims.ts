/**
 * Workers that pull: tasks wait in named queues, are claimed under a lease, and
 * are settled by whoever holds the claim. A claim is one attempt of its task,
 * and only the current attempt is heard. The lease is in the task's own
 * `dueAtMs`, so a claim outlives the coordinator that granted it.
 */
import { type Failure, failure } from "../../../shared/errors.ts";
import { SUSPICION_EXECUTOR_LOST } from "../../../shared/limits.ts";
import { available, type Bounds, COST, isNothing, NOTHING, TASKS, TOKENS } from "../../../shared/policy/account.ts";
import { backoffMs, chance } from "../../../shared/policy/backoff.ts";
import { formatLine } from "../../../shared/protocol/line.ts";
import type { TaskSpec } from "../../../shared/protocol/task.ts";
import { err, ok, type Result } from "../../../shared/result.ts";
import type { Bearer } from "../../../shared/token/claims.ts";
import { allowanceOf } from "./afford.ts";
import { admitted, refusalFor } from "./approval.ts";
import { keepAttempt } from "./attempts.ts";
import { CANCELED, CODES, codeOf, EXPIRED, FAILED, FOR_BACKOFF, QUEUED, RUNNING } from "./codes.ts";
import { NO_REASON, STARTED, SUCCEEDED, WAITING, WORK, WORK_DONE } from "./codes.ts";
import { isPaused } from "./kin.ts";
import { closeEmptyGroups, finish, succeed } from "./lifecycle.ts";
import { countAttempt, dequeue, leaveBatch, setStatus } from "./mutate.ts";
import type { Recorder } from "./recorder.ts";
import { policiesBehind, rulesFor } from "./rights.ts";
import { reserveAttempt, reservedFor } from "./reserve.ts";
import { loseTask } from "./settle.ts";
import { type GoalState, upstreamNamed, workQueueName } from "./state.ts";
import { draftOf, type Receipts, type Submit, take } from "./submit.ts";
import { addTimer } from "./timers.ts";

export type ClaimChange =
  /** `fence` rises with each grant. */
  | {
      readonly kind: "claims.granted";
      readonly fence: number;
      readonly queue: number;
      readonly atMs: number;
      readonly untilMs: number;
      readonly tasks: readonly number[];
    }
  | { readonly kind: "claims.extended"; readonly untilMs: number; readonly tasks: readonly number[] }
  /** task, resultRow, resultIndex, startedAtMs, endedAtMs, dueAtMs: the claimer reported a problem, and another attempt will be made. */
  | { readonly kind: "claims.failed"; readonly rows: readonly number[] };

const FAILED_WIDTH = 6;

export interface Claim {
  readonly kind: "claim";
  readonly queue: string;
  readonly max: number;
  readonly leaseMs: number;
  /** Whether the answer takes one more task: its input has to fit. */
  readonly fits: (task: number) => boolean;
}

export interface Settlement {
  readonly task: number;
  readonly attempt: number;
  /** Null for a result. */
  readonly problem: { readonly retryable: boolean } | null;
  /** The result or problem as the JSON text that is kept. */
  readonly payload: string;
  /** What its holder says that it used, by dimension; null where it says nothing, and used what was reserved. */
  readonly usage: Bounds;
  /** Its children's places among the specs of the request: from the first on, up to the second. */
  readonly spawn: readonly [number, number];
}

export interface SettleClaims {
  readonly kind: "settle-claims";
  readonly settlements: readonly Settlement[];
  /** The children of all settlements. */
  readonly spawn: Pick<Submit, "specs" | "failures" | "contentKeys">;
  /** A random 32-bit integer, for the backoffs. */
  readonly seed: number;
}

export interface ExtendClaims {
  readonly kind: "extend-claims";
  /** Task and attempt. */
  readonly claims: readonly (readonly [number, number])[];
  readonly leaseMs: number;
}

export interface Grant {
  readonly tasks: readonly number[];
  readonly fence: number;
  readonly untilMs: number;
}

/** How a claim stands, as its holder is told. */
export interface Standing {
  readonly task: number;
  readonly attempt: number;
  /** `settled` and `retrying`: this attempt has been settled, now or before. */
  readonly status: "held" | "settled" | "retrying" | "canceled" | "stale" | "rejected";
  readonly problem?: Failure;
}

function record(rec: Recorder, change: ClaimChange): void {
  applyClaims(rec.state, change);
  rec.out.changes.push(change);
}

/** Carries a change out, when it is decided and when it is replayed. */
export function applyClaims(state: GoalState, change: ClaimChange): void {
  switch (change.kind) {
    case "claims.granted":
      return startClaims(state, change);
    case "claims.extended":
      for (const task of change.tasks) state.tasks.dueAtMs[task] = Math.max(state.tasks.dueAtMs[task]!, change.untilMs);
      return;
    case "claims.failed":
      for (let i = 0; i < change.rows.length; i += FAILED_WIDTH) failClaim(state, change.rows.slice(i, i + FAILED_WIDTH));
      return;
  }
}

function startClaims(
  state: GoalState,
  { fence, queue, atMs, untilMs, tasks: claimed }: Extract<ClaimChange, { kind: "claims.granted" }>,
): void {
  const { tasks } = state;
  const { ready } = state.upstreams[queue]!;
  for (const task of claimed) {
    dequeue(state, ready[tasks.priority[task]!]!, task);
    setStatus(state, task, RUNNING, NO_REASON);
    tasks.attempt[task] = tasks.attempt[task]! + 1;
    tasks.flags[task] = tasks.flags[task]! | STARTED;
    tasks.startedAtMs[task] = atMs;
    tasks.dueAtMs[task] = untilMs;
    reserveAttempt(state, task, NOTHING);
    addTimer(state.timers, untilMs, task);
  }
  state.upstreams[queue]!.running += claimed.length;
  state.nextBatch = fence + 1;
}

function failClaim(state: GoalState, row: readonly number[]): void {
  const { tasks } = state;
  const [task, resultRow, resultIndex, startedAtMs, endedAtMs, dueAtMs] = row as [number, number, number, number, number, number];
  countAttempt(state, task, startedAtMs, endedAtMs);
  keepAttempt(state, task, startedAtMs, endedAtMs, "failed");
  leaveBatch(state, task, endedAtMs);
  // The last problem stays with the task, whatever ends it.
  tasks.resultRow[task] = resultRow;
  tasks.resultIndex[task] = resultIndex;
  tasks.failures[task] = tasks.failures[task]! + 1;
  tasks.dueAtMs[task] = dueAtMs;
  setStatus(state, task, WAITING, FOR_BACKOFF);
  addTimer(state.timers, dueAtMs, task);
}

/** Grants what is ready in the queue, the urgent first. */
export function claim(rec: Recorder, { queue, max, leaseMs, fits }: Claim): Grant {
  const { state, nowMs } = rec;
  const number = upstreamNamed(state, workQueueName(queue));
  const grant = {
    tasks: number < 0 || isPaused(state) ? [] : pick(rec, number, max, fits),
    fence: state.nextBatch,
    untilMs: nowMs + leaseMs,
  };
  if (grant.tasks.length > 0) record(rec, { kind: "claims.granted", queue: number, atMs: nowMs, ...grant });
  return grant;
}

function pick(rec: Recorder, number: number, max: number, fits: Claim["fits"]): number[] {
  for (;;) {
    const first = heads(rec.state, number, max);
    // Those that may not start are out of the queue now, and others may be in their place.
    const tasks = admitted(rec, first);
    if (tasks.length === 0 && first.length > 0) continue;
    const allowance = allowanceOf(rec.state, null);
    const rest = tasks.findIndex((task) => allowance?.take(task) === false || !fits(task));
    return rest < 0 ? tasks : tasks.slice(0, rest);
  }
}

/** The first tasks of a queue, the urgent ones first. */
function heads(state: GoalState, number: number, max: number): number[] {
  const found: number[] = [];
  const { ready, queued } = state.upstreams[number]!;
  if (queued === 0) return found;
  for (const { items, head } of ready) {
    for (let at = head; at < items.length && found.length < max; at++)
      if (state.tasks.status[items[at]!] === QUEUED) found.push(items[at]!);
  }
  return found;
}

const isWork = ({ tasks }: GoalState, task: number): boolean => task < tasks.n && (tasks.flags[task]! & WORK) !== 0;
const SETTLED_CODES: ReadonlySet<number> = new Set([codeOf("upstream_error"), codeOf("children_failed")]);

function standingOf(state: GoalState, task: number, attempt: number): Standing["status"] {
  const { tasks } = state;
  if (!isWork(state, task) || tasks.attempt[task] !== attempt) return "stale";
  const status = tasks.status[task]!;
  if (status === RUNNING) return "held";
  if (status === CANCELED || status === EXPIRED) return "canceled";
  if (status === SUCCEEDED || (tasks.flags[task]! & WORK_DONE) !== 0) return "settled";
  if (status === WAITING && tasks.reason[task] === FOR_BACKOFF) return "retrying";
  return status === FAILED && SETTLED_CODES.has(tasks.code[task]!) ? "settled" : "stale";
}

/** Extends the leases of claims that are held; the others' holders are told. */
export function extendClaims(rec: Recorder, { claims, leaseMs }: ExtendClaims, bearer: Bearer): Standing[] {
  const untilMs = rec.nowMs + leaseMs;
  const held = new Set<number>();
  const standings = claims.map(([task, attempt]): Standing => {
    // Nobody extends what they could not have claimed.
    const isOwn = isWork(rec.state, task) && refusalFor(rec, task, bearer) === null;
    const status = isOwn ? standingOf(rec.state, task, attempt) : "stale";
    if (status === "held") held.add(task);
    return { task, attempt, status: status === "held" || status === "canceled" ? status : "stale" };
  });
  if (held.size > 0) record(rec, { kind: "claims.extended", untilMs, tasks: [...held] });
  return standings;
}

/** Takes results and problems, one after the other. What is not of a current attempt changes nothing. */
export function settleClaims(rec: Recorder, command: SettleClaims, bearer: Bearer): Standing[] {
  const offer = rec.state.nextOffer;
  return command.settlements.map((settlement) => settleClaim(rec, settlement, command, offer, bearer));
}

function settleClaim(rec: Recorder, settlement: Settlement, command: SettleClaims, offer: number, bearer: Bearer): Standing {
  const { task, attempt, spawn } = settlement;
  if (!isWork(rec.state, task)) {
    return { task, attempt, status: "rejected", problem: failure("not_found", "there is no such task of kind work in this goal") };
  }
  const denial = refusalFor(rec, task, bearer);
  if (denial !== null) return { task, attempt, status: "rejected", problem: denial };
  const status = standingOf(rec.state, task, attempt);
  if (status !== "held") return { task, attempt, status, ...problemOf(rec.state, task, status) };
  const added = spawn[0] === spawn[1] ? null : addChildren(rec, task, spawn, command.spawn, offer, bearer);
  if (added?.ok === false) return { task, attempt, status: "rejected", problem: added.error };
  const reserved = reservedFor(rec.state, task);
  const standing = endAttempt(rec, settlement, command.seed);
  const difference = reserved.map((amount, d) => (settlement.usage[d] ?? amount) - amount);
  if (!isNothing(difference)) rec.correct(task, difference);
  return { task, attempt, status: standing };
}

function problemOf(state: GoalState, task: number, status: Standing["status"]): { problem?: Failure } {
  if (status === "stale")
    return { problem: failure("stale_attempt", `the task is at attempt ${state.tasks.attempt[task]!}; the lease of this claim has ended`) };
  return status === "canceled" ? { problem: failure("canceled", `the task has ended: ${CODES[state.tasks.code[task]!]!}`) } : {};
}

/** Adds the children of a task, all or none. A sealed goal takes them: its own work brings them. `range`: their places among all that the request brings. */
export function addChildren(
  rec: Recorder,
  task: number,
  [from, to]: readonly [number, number],
  all: SettleClaims["spawn"],
  offer: number,
  bearer: Bearer,
): Result<Receipts, Failure> {
  const { state } = rec;
  // Children may do what their parent might have, as far as whoever settles it may too.
  const policies = [...policiesBehind(state, task), ...bearer.policies];
  const submit: Submit = {
    kind: "submit",
    specs: all.specs.slice(from, to),
    failures: partOf(all.failures, from, to),
    contentKeys: partOf(all.contentKeys, from, to),
    atomic: true,
    within: { offer, base: from },
  };
  const rules = rulesFor(state, state.goal!.spec.policies ?? [], policies);
  const draft = draftOf(state, submit, rules, available(state.budget.account, TASKS));
  if (!draft.ok) return err(spawnFailure(draft.error));
  const first = state.tasks.n;
  const receipts = take(rec, submit, draft.value, policies);
  // In a sealed goal a group without children has nothing to wait for.
  if (state.goal!.sealed && submit.specs.some((spec: TaskSpec | null) => spec?.group !== undefined)) closeEmptyGroups(rec, first);
  return ok(receipts);
}

/** The entries of some places, with the first of them as place 0. */
function partOf<T>(map: ReadonlyMap<number, T>, from: number, to: number): Map<number, T> {
  const part = new Map<number, T>();
  if (map.size === 0) return part;
  for (let place = from; place < to; place++) {
    const value = map.get(place);
    if (value !== undefined) part.set(place - from, value);
  }
  return part;
}

const spawnFailure = ({ errors, ...fault }: Failure): Failure =>
  errors === undefined
    ? fault
    : { ...fault, errors: errors.map(({ pointer, detail }) => ({ pointer: pointer.replace("/tasks/", "/spawn/"), detail })) };

function endAttempt(rec: Recorder, { task, attempt, problem, payload, usage }: Settlement, seed: number): "settled" | "retrying" {
  const { tasks } = rec.state;
  const startedAtMs = tasks.startedAtMs[task]!;
  const endedAtMs = Math.max(rec.nowMs, startedAtMs);
  const head = {
    task,
    attempt,
    outcome: "answered",
    status: problem === null ? 200 : 500,
    retryAfterMs: 0,
    startedAtMs,
    endedAtMs,
    tokens: usage[TOKENS] ?? 0,
    costMicros: usage[COST] ?? 0,
  } as const;
  const place = rec.out.keep(formatLine(head, payload));
  const failures = tasks.failures[task]! + 1;
  if (problem === null) succeed(rec, task, place, startedAtMs, endedAtMs);
  else if (problem.retryable && failures < tasks.maxAttempts[task]!) {
    const dueAtMs = rec.nowMs + Math.max(1, backoffMs(failures, chance(seed, task, attempt)));
    record(rec, { kind: "claims.failed", rows: [task, place.row, place.index, startedAtMs, endedAtMs, dueAtMs] });
    return "retrying";
  } else finish(rec, { task, status: FAILED, code: codeOf("upstream_error"), place, startedAtMs, endedAtMs });
  return "settled";
}

/** A lease may have been extended since its timer was set. Where it has ended, the claim is lost. */
export function expireClaim(rec: Recorder, task: number): void {
  const { tasks, timers } = rec.state;
  const untilMs = tasks.dueAtMs[task]!;
  if (untilMs > rec.nowMs) addTimer(timers, untilMs, task);
  else loseTask(rec, task, SUSPICION_EXECUTOR_LOST);
}
