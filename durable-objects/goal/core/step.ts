/**
 * The goal's one decision function: `step(state, nowMs, command, out)`. It is
 * deterministic: time and chance come in with the call. It changes the state in
 * place, and `out` says what to commit and what to send after the commit.
 */
import { type Failure, failure } from "../../../shared/errors.ts";
import { type GoalId, taskIdOf } from "../../../shared/ids.ts";
import { SUSPICION_EXECUTOR_LOST, SUSPICION_RESTART } from "../../../shared/limits.ts";
import type { Policy } from "../../../shared/policy/rules.ts";
import { available, type Bounds, canReserve, TASKS } from "../../../shared/policy/account.ts";
import type { FlightMessage, GoalFlightNews } from "../../../shared/protocol/flight.ts";
import type { Grant } from "../../../shared/protocol/admission.ts";
import type { GoalSpec } from "../../../shared/protocol/goal.ts";
import type { Granted, LockAsk, LockMessage, LockNews, LockRelease } from "../../../shared/policy/lock-steps.ts";
import { err, ok, type Result } from "../../../shared/result.ts";
import {
  type Claim,
  claim,
  type ExtendClaims,
  extendClaims,
  type Grant as ClaimGrant,
  type SettleClaims,
  settleClaims,
  type Standing,
} from "./claims.ts";
import type { Bearer } from "../../../shared/token/claims.ts";
import { type Spawned, type SpawnRuns, spawnRuns } from "./asks.ts";
import { decideApproval, refusalFor } from "./approval.ts";
import { takeGrantFromAbove } from "./budget.ts";
import { ask, noteClosed, noteUnanswered, takeGrant } from "./admission.ts";
import { CANCELED, codeOf, FAILED, isTerminal, STATUS_WORDS } from "./codes.ts";
import { dispatch } from "./dispatch.ts";
import { recoverFlights, takeFlightNews, tellFlights } from "./flight-turn.ts";
import { closeEmptyGroups, decideGoal, finish, stopGoal, succeed } from "./lifecycle.ts";
import { acquireLock, releaseLock, serveLocks } from "./lock-turn.ts";
import { type Out, type Place, Recorder, type Registered } from "./recorder.ts";
import { revocation, rulesFor } from "./rights.ts";
import { relate, tellRelatives, type RelativeCommand, type RelativeDone } from "./relatives.ts";
import { isDoubtful, loseBatch, type Refusal, refuseBatch, settle } from "./settle.ts";
import { type BudgetCommand, decideBudget, exhausted, takeBounds } from "./reservations.ts";
import { type WriteState, writeState } from "./shared-state.ts";
import { type GoalState, ROOT } from "./state.ts";
import { beginSubgoals } from "./subgoals.ts";
import { draftOf, type Receipts, type Submit, take } from "./submit.ts";
import type { Drawn } from "./tabs.ts";
import { hearOfLocks, resumeLanes, takeNews, tellShards } from "./tenant-locks.ts";
import { tick } from "./tick.ts";

export type Command =
  | {
      readonly kind: "create";
      readonly id: GoalId;
      readonly spec: GoalSpec;
      readonly registry: Registered;
      /** Grants that the account above has made already. */
      readonly funds?: Bounds | undefined;
      readonly tasks: Omit<Submit, "kind" | "atomic">;
    }
  | Submit
  | Claim
  | SettleClaims
  | SpawnRuns
  | ExtendClaims
  | RelativeCommand
  /** Result lines; `seed` is a random 32-bit integer. */
  | { readonly kind: "settle"; readonly lines: readonly string[]; readonly seed: number }
  /** `refusal` where the batch was lost before an executor said anything. */
  | { readonly kind: "batch-lost"; readonly batch: number; readonly refusal?: Refusal | undefined }
  /** A new incarnation knows of no executor: sent once after loading. */
  | { readonly kind: "recover" }
  | ({ readonly kind: "upstreams" } & Registered)
  | { readonly kind: "pause" }
  | { readonly kind: "resume" }
  | { readonly kind: "seal" }
  | { readonly kind: "cancel" }
  | { readonly kind: "cancel-task"; readonly task: number }
  | { readonly kind: "retry-task"; readonly task: number }
  | { readonly kind: "approve-task"; readonly task: number }
  | { readonly kind: "deny-task"; readonly task: number }
  /** Tokens that are for this goal end. */
  | { readonly kind: "revoke" }
  | { readonly kind: "resolve"; readonly task: number; readonly as: "succeeded" | "failed" | "retry"; readonly line: string | null }
  | { readonly kind: "end-reported" }
  | { readonly kind: "tick" }
  /** A governor's grant to one life of this goal. */
  | { readonly kind: "grant"; readonly upstream: string; readonly life: string; readonly grant: Grant }
  /** Calls that were aborted are closed. */
  | { readonly kind: "closed"; readonly upstream: number; readonly count: number }
  /** A report to a governor got no answer. */
  | { readonly kind: "unanswered"; readonly upstream: string }
  /** A caller from outside asks for one of the goal's own locks, or lets one go. */
  | { readonly kind: "acquire-lock"; readonly ask: LockAsk }
  | { readonly kind: "release-lock"; readonly release: LockRelease }
  | WriteState
  /** A shard of the tenant's locks has answered; null where it has not. */
  | { readonly kind: "lock-news"; readonly message: LockMessage; readonly news: LockNews | null }
  /** A shard of flights has something to say: an answer to a message, or by itself (null). No news: it did not answer. */
  | { readonly kind: "flight-news"; readonly message: FlightMessage | null; readonly news: GoalFlightNews | null }
  /** A shard has given this goal something, and it should ask. */
  | { readonly kind: "locks-free"; readonly names: readonly string[] }
  /**
   * Sends what may run, and writes reports. Once a turn, after the commands that came in. `seed` is a random 32-bit integer.
   * `isOver`: a goal above has ended, so nothing is begun until it says so itself.
   */
  | { readonly kind: "dispatch"; readonly seed: number; readonly isOver?: boolean }
  | BudgetCommand;

interface Done extends RelativeDone {
  readonly receipts?: Receipts;
  readonly task?: number;
  readonly reservation?: number;
  readonly drawn?: Drawn;
  readonly spawned?: readonly Spawned[];
  readonly grant?: ClaimGrant;
  readonly standings?: readonly Standing[];
  /** Of a value of the shared state. */
  readonly version?: number;
  readonly lock?: { readonly granted: Granted } | { readonly seq: number };
}

export type Reply = Result<Done, Failure>;

const DONE: Reply = ok({});
const ONE_TASK = [1, 0, 0, 0];
const UNLIMITED = Number.MAX_SAFE_INTEGER;

const ANYBODY: Bearer = { policies: [] };

/** `bearer` is what has to be known of the token behind a command that a caller sent. */
export function step(state: GoalState, nowMs: number, command: Command, out: Out, bearer: Bearer = ANYBODY): Reply {
  const rec = new Recorder(state, nowMs, out);
  const revoked = revocation(state, bearer);
  const reply = revoked === null ? decide(rec, command, bearer) : err(revoked);
  serveLocks(rec);
  decideGoal(rec);
  // Ends whatever is left of locks where that was the goal's end.
  serveLocks(rec);
  return reply;
}

/** What may begin begins, and what others are to be told is written. */
function send(rec: Recorder, { seed, isOver = false }: { readonly seed: number; readonly isOver?: boolean }): void {
  tellFlights(rec);
  if (!isOver) {
    dispatch(rec, seed);
    beginSubgoals(rec);
  }
  tellRelatives(rec);
  ask(rec);
  tellShards(rec);
}

function decide(rec: Recorder, command: Command, bearer: Bearer): Reply {
  switch (command.kind) {
    case "create":
      return create(rec, command);
    case "submit":
      return submitTo(rec, command, bearer.policies);
    case "settle":
      settle(rec, command.lines, command.seed);
      return DONE;
    case "batch-lost":
      if (command.refusal === undefined) loseBatch(rec, command.batch, SUSPICION_EXECUTOR_LOST);
      else refuseBatch(rec, command.batch, command.refusal);
      return DONE;
    case "recover":
      loseBatch(rec, null, SUSPICION_RESTART);
      recoverFlights(rec);
      return DONE;
    case "upstreams":
      if (rec.setRegistry(command) && rec.state.goal?.spec.parent === undefined) takeBounds(rec, command.bounded);
      return DONE;
    case "end-reported":
      if (!rec.state.goal!.endReported) rec.noteEndReported();
      return DONE;
    case "tick":
      tick(rec);
      return DONE;
    case "obey":
    case "hear":
    case "fund-subgoal":
    case "obeyed":
    case "not-obeyed":
    case "heard":
    case "not-heard":
      return relate(rec, command);
    case "dispatch":
      send(rec, command);
      return DONE;
    case "grant":
      takeGrant(rec, command.upstream, command.life, command.grant);
      return DONE;
    case "closed":
      noteClosed(rec, command.upstream, command.count);
      return DONE;
    case "unanswered":
      noteUnanswered(rec, command.upstream);
      return DONE;
    case "lock-news":
    case "locks-free":
    case "flight-news":
      return hearShard(rec, command);
    case "write-state":
      return write(rec, command);
    case "acquire-lock":
    case "release-lock":
      return lock(rec, command);
    case "spawn":
    case "claim":
    case "settle-claims":
    case "extend-claims":
      return pull(rec, command, bearer);
    default:
      return control(rec, command, bearer);
  }
}

/** What shards of locks and of flights say. */
function hearShard(rec: Recorder, command: Extract<Command, { kind: "lock-news" | "locks-free" | "flight-news" }>): Reply {
  if (command.kind === "lock-news") takeNews(rec, command.message, command.news);
  else if (command.kind === "locks-free") hearOfLocks(rec, command.names);
  else takeFlightNews(rec, command.message, command.news);
  return DONE;
}

function write(rec: Recorder, command: WriteState): Reply {
  const { goal } = rec.state;
  if (goal === null) return err(missingGoal());
  if (goal.phase !== "active") return err(endedGoal(rec.state));
  const written = writeState(rec, command);
  return written.ok ? ok({ version: written.value }) : written;
}

function lock(rec: Recorder, command: Extract<Command, { kind: "acquire-lock" | "release-lock" }>): Reply {
  const { goal } = rec.state;
  if (goal === null) return err(missingGoal());
  if (goal.phase !== "active") return err(endedGoal(rec.state));
  if (command.kind === "release-lock") {
    const released = releaseLock(rec, command.release);
    return released.ok ? DONE : released;
  }
  const acquired = acquireLock(rec, command.ask);
  return acquired.ok ? ok({ lock: acquired.value }) : acquired;
}

/** What workers ask: those outside, and functions. Holders of claims are told of the goal's end claim by claim. */
function pull(rec: Recorder, command: Claim | SettleClaims | ExtendClaims | SpawnRuns, bearer: Bearer): Reply {
  const { goal } = rec.state;
  if (goal === null) return err(missingGoal());
  if (command.kind === "spawn") return ok({ spawned: spawnRuns(rec, command, bearer) });
  if (command.kind === "settle-claims") return ok({ standings: settleClaims(rec, command, bearer) });
  if (command.kind === "extend-claims") return ok({ standings: extendClaims(rec, command, bearer) });
  return goal.phase === "active" ? ok({ grant: claim(rec, command) }) : err(endedGoal(rec.state));
}

type Control = Extract<Command, { kind: "pause" | "resume" | "seal" | "cancel" | "revoke" } | AboutTask> | BudgetCommand;
type AboutTask = Extract<Command, { kind: "cancel-task" | "retry-task" | "approve-task" | "deny-task" | "resolve" }>;

/** What a caller asks of the goal or of one task. Asking again changes nothing. */
function control(rec: Recorder, command: Control, bearer: Bearer): Reply {
  const goal = rec.state.goal;
  if (goal === null) return err(missingGoal());
  switch (command.kind) {
    case "pause":
    case "resume":
      return setPaused(rec, command.kind === "pause");
    case "seal":
      if (goal.phase === "active" && !goal.sealed) {
        rec.seal();
        closeEmptyGroups(rec);
      }
      return DONE;
    case "cancel":
      if (goal.phase === "canceled") return DONE;
      if (goal.phase !== "active") return err(endedGoal(rec.state));
      stopGoal(rec, "canceled", "canceled");
      return DONE;
    case "revoke":
      rec.revokeTokens();
      return DONE;
    case "top-up":
    case "reserve":
    case "settle-reservation":
    case "funded":
    case "ask-again":
      return goal.phase === "active" ? decideBudget(rec, command) : err(endedGoal(rec.state));
    // What a gate has not used it gives back, also after the end.
    case "tab":
      return decideBudget(rec, command);
    default:
      return decideTask(rec, command, bearer);
  }
}

function decideTask(rec: Recorder, command: AboutTask, bearer: Bearer): Reply {
  if (command.task >= rec.state.tasks.n) return err(failure("not_found", "there is no such task in this goal"));
  switch (command.kind) {
    case "cancel-task":
      return cancelTask(rec, command.task);
    case "retry-task":
      return retryTask(rec, command.task, bearer);
    case "approve-task":
    case "deny-task":
      return decideApproval(rec, command.task, command.kind === "approve-task", bearer);
    case "resolve":
      return resolve(rec, command, bearer);
  }
}

const missingGoal = (): Failure => failure("not_found", "there is no such goal");

function endedGoal(state: GoalState): Failure {
  const { id, phase } = state.goal!;
  return failure("goal_ended", `the goal has ended: ${phase}`, { goalId: id });
}

/**
 * A second creation of the same goal changes nothing; its caller has the first
 * one's answer. If the tasks cannot be taken, the goal is not created, and the
 * shell drops what this step left.
 */
function create(rec: Recorder, { id, spec, registry, funds, tasks }: Extract<Command, { kind: "create" }>): Reply {
  if (rec.state.goal !== null) return DONE;
  rec.setRegistry(registry);
  const command: Submit = { kind: "submit", atomic: true, ...tasks };
  const room = Math.min(spec.budget?.tasks ?? UNLIMITED, registry.bounded?.[TASKS] === true ? (funds?.[TASKS] ?? 0) : UNLIMITED);
  // What the token behind it may is in the goal's own policies already.
  const draft = draftOf(rec.state, command, rulesFor(rec.state, spec.policies ?? [], []), room);
  if (!draft.ok) return err(draft.error);
  rec.create(id, spec);
  takeBounds(rec, registry.bounded);
  if (funds !== undefined) takeGrantFromAbove(rec, funds);
  const receipts = take(rec, command, draft.value, []);
  if (spec.sealed) closeEmptyGroups(rec);
  return ok({ receipts });
}

function submitTo(rec: Recorder, command: Submit, policies: readonly Policy[]): Reply {
  const { goal } = rec.state;
  if (goal === null) return err(missingGoal());
  if (goal.phase !== "active") return err(endedGoal(rec.state));
  if (goal.sealed) return err(failure("goal_sealed", "the goal is sealed and takes no more tasks", { goalId: goal.id }));
  const rules = rulesFor(rec.state, goal.spec.policies ?? [], policies);
  const draft = draftOf(rec.state, command, rules, available(rec.state.budget.account, TASKS));
  return draft.ok ? ok({ receipts: take(rec, command, draft.value, policies) }) : err(draft.error);
}

function setPaused(rec: Recorder, paused: boolean): Reply {
  const goal = rec.state.goal!;
  if (goal.phase !== "active") return err(endedGoal(rec.state));
  if (goal.paused !== paused) rec.pause(paused);
  if (!paused) resumeLanes(rec.state);
  return DONE;
}

function cancelTask(rec: Recorder, task: number): Reply {
  if (!isTerminal(rec.state.tasks.status[task]!)) finish(rec, { task, status: CANCELED, code: codeOf("canceled") });
  return ok({ task });
}

function retryTask(rec: Recorder, task: number, bearer: Bearer): Reply {
  const { state } = rec;
  const refusal = refusalFor(rec, task, bearer);
  if (refusal !== null) return err(refusal);
  const taskId = taskIdOf(state.goal!.id, task);
  if (state.goal!.phase !== "active") return err(endedGoal(state));
  const status = state.tasks.status[task]!;
  if (!isTerminal(status)) {
    return err(failure("conflict", `the task is ${STATUS_WORDS[status]}; only an ended task can be retried`, { taskId }));
  }
  const parent = state.tasks.parent[task]!;
  if (parent !== ROOT && isTerminal(state.tasks.status[parent]!)) {
    return err(failure("conflict", "the task's parent has ended and takes no more children", { taskId }));
  }
  if (!canReserve(state.budget.account, ONE_TASK)) return err(exhausted("another task"));
  rec.repeat(task);
  // In a sealed goal a repeated group has nothing to wait for: no child can come.
  if (state.goal!.sealed) closeEmptyGroups(rec);
  return ok({ task: state.tasks.n - 1 });
}

function resolve(rec: Recorder, { task, as, line }: Extract<Command, { kind: "resolve" }>, bearer: Bearer): Reply {
  const { state } = rec;
  const refusal = refusalFor(rec, task, bearer);
  if (refusal !== null) return err(refusal);
  if (!isDoubtful(rec, task)) {
    const taskId = taskIdOf(state.goal!.id, task);
    return err(failure("conflict", "only a task that waits with reason outcome_unknown can be resolved", { taskId }));
  }
  const place: Place | undefined = line === null ? undefined : rec.out.keep(line);
  if (as === "retry") rec.release(task);
  else if (as === "failed") finish(rec, { task, status: FAILED, code: codeOf("outcome_unknown"), place });
  else succeed(rec, task, place ?? { row: 0, index: 0 }, 0, 0);
  return ok({ task });
}
