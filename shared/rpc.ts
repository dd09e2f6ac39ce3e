/**
 * The typed contract of each hop. Every arrow between rooms is one interface
 * here; rooms never import one another. Mutating calls are idempotent.
 */
import type { Failure } from "./errors.ts";
import type { Amounts, Bounds, FundRequest } from "./policy/account.ts";
import type { CallEnd } from "./policy/outcome.ts";
import type { Grant, Report, UpstreamLive } from "./protocol/admission.ts";
import type { AccountView, BudgetView, Reserver } from "./protocol/budget.ts";
import type { FunctionVersion, RunTimes } from "./protocol/function.ts";
import type { Counts, GoalSpec, GoalStatus, GoalView, TaskStatus } from "./protocol/goal.ts";
import type { Reserve } from "./protocol/task.ts";
import type { RelativeRpc } from "./rpc-relatives.ts";
import type { Upstream } from "./protocol/upstream.ts";
import type { Policy } from "./policy/rules.ts";
import type { Result } from "./result.ts";
import type { RefusalRpc, WholeAnswer } from "./rpc-flight.ts";
import type { LocksRpc, StateValue, StateWrite } from "./rpc-locks.ts";
import type { Bearer } from "./token/claims.ts";

export type Answer<T> = Result<T, Failure>;

/** A request-level idempotency key with the fingerprint of the request that carries it. */
export interface IdempotencyKey {
  /** Scoped by route and token subject, so two routes never meet. */
  readonly key: string;
  /** SHA-256 of everything that makes the request what it is, in hex. */
  readonly fingerprint: string;
}

/** JSON that is ready to be sent, so that large answers are serialised once. */
export interface JsonReply {
  readonly json: string;
  /** True where a stored answer is given again. */
  readonly replayed: boolean;
  /** Tasks that the goal would still take. */
  readonly tasksLeft?: number;
}

// edge → goal

export interface CreateGoalRequest {
  readonly goalId: string;
  readonly spec: GoalSpec;
  /** The tasks given inline, as one JSON array. Empty where there are none. */
  readonly tasksJson: string;
  readonly idempotency?: IdempotencyKey | undefined;
}

export interface SubmitRequest {
  /** The body as it arrived. */
  readonly body: Uint8Array;
  readonly format: "json" | "ndjson";
  /** List every task's receipt, not only the rejected ones. */
  readonly allReceipts: boolean;
  /** Take all tasks or none. */
  readonly atomic: boolean;
  readonly idempotency?: IdempotencyKey | undefined;
  readonly bearer?: Bearer | undefined;
}

export interface TaskQuery {
  readonly status?: TaskStatus | undefined;
  /** A task's id or key. */
  readonly parentTaskId?: string | undefined;
  /** `name` or `name=value`. */
  readonly label?: string | undefined;
  readonly cursor?: string | undefined;
  readonly limit: number;
}

export interface ResultsQuery {
  readonly cursor?: string | undefined;
  readonly limit: number;
  /** Stream until the goal ends. */
  readonly follow: boolean;
}

export interface EventsQuery {
  /** The `Last-Event-ID` of an earlier stream. */
  readonly lastEventId?: string | undefined;
  /** Also send one event for each task that ends. */
  readonly tasks: boolean;
}

/** A worker outside asks for work. */
export interface ClaimRequest {
  readonly queue: string;
  readonly max: number;
  readonly leaseMs: number;
  readonly waitMs: number;
  readonly idempotency?: IdempotencyKey | undefined;
  readonly bearer?: Bearer | undefined;
}

/** A place in the line of those who wait for work. Dropping it leaves the line. */
export interface ClaimPlaceRpc {
  /** Once: `{claims: […]}` as soon as there is work, and without any when `waitMs` have passed. */
  claimed(): Promise<Answer<JsonReply>>;
  /** Its caller has gone. */
  leave(): Promise<void>;
}

/** How one claim ended, as its holder says; or why what it says cannot be taken. */
export type ClaimSettlement = { readonly taskId: string } & (
  | { readonly fault: Failure }
  | {
      /** The task's number in the goal; -1 where the id is not of this goal. */
      readonly task: number;
      readonly attempt: number;
      readonly problem: { readonly retryable: boolean } | null;
      /** The result or problem as JSON text. */
      readonly payload: string;
      /** What its holder says that it used, in the order of dimensions; null where it says nothing. */
      readonly usage: Bounds;
      /** How many of the spawned tasks are its own; they follow those of the settlement before. */
      readonly spawns: number;
    }
);

export interface SettleClaimsRequest {
  readonly settlements: readonly ClaimSettlement[];
  /** The children of all settlements, as one JSON array. Empty where there are none. */
  readonly spawnedJson: string;
  readonly idempotency?: IdempotencyKey | undefined;
  readonly bearer?: Bearer | undefined;
}

export interface HeartbeatRequest {
  readonly claims: readonly { readonly taskId: string; readonly task: number; readonly attempt: number }[];
  readonly leaseMs: number;
  readonly bearer?: Bearer | undefined;
}

export type GoalVerb = "cancel" | "pause" | "resume" | "seal";

/** Whoever holds permits. */
export interface PermitsRpc {
  /** A governor tells one life of the client of permits that it did not ask for just now. */
  permits(upstream: string, life: string, grant: Grant): Promise<void>;
}

/** The last argument of what a caller asks for is what has to be known of the caller's token. A revoked one gets no answer but that. */
export interface GoalRpc extends PermitsRpc, LocksRpc, RelativeRpc {
  /** A shard has given this goal one of these locks, and it should ask which. */
  locksFree(names: readonly string[]): Promise<void>;
  readState(key: string, bearer?: Bearer): Promise<Answer<StateValue>>;
  /** Answers with `{version}`, or with `stale_version` or `stale_fence`. */
  writeState(write: StateWrite, idempotency?: IdempotencyKey, bearer?: Bearer): Promise<Answer<JsonReply>>;
  create(request: CreateGoalRequest): Promise<Answer<JsonReply>>;
  submit(request: SubmitRequest): Promise<Answer<JsonReply>>;
  /** Pause, resume, cancel or seal; repeating one changes nothing. */
  control(verb: GoalVerb, bearer?: Bearer): Promise<Answer<GoalView>>;
  view(bearer?: Bearer): Promise<Answer<GoalView>>;
  /** A page as JSON: `{items, nextCursor}`. */
  listTasks(query: TaskQuery, bearer?: Bearer): Promise<Answer<string>>;
  tree(root: string | undefined, depth: number, bearer?: Bearer): Promise<Answer<string>>;
  /** The task as JSON; waits until it is terminal, at most `waitMs`. */
  getTask(index: number, waitMs: number, bearer?: Bearer): Promise<Answer<{ json: string; terminal: boolean }>>;
  cancelTask(index: number, bearer?: Bearer): Promise<Answer<string>>;
  /** Lets a task that waits for approval go on, or ends it as denied; repeating it changes nothing. */
  decideTask(index: number, verdict: "approve" | "deny", bearer?: Bearer): Promise<Answer<string>>;
  /** Ends all tokens that are for this goal, and answers with the new epoch. */
  revokeTokens(bearer?: Bearer): Promise<Answer<{ epoch: number }>>;
  /** Makes a new task with `retryOf`. */
  retryTask(index: number, idempotency?: IdempotencyKey, bearer?: Bearer): Promise<Answer<JsonReply>>;
  /** Decides a task whose outcome is unknown. `resultJson` is a `CallResult`. */
  resolveTask(index: number, as: "succeeded" | "failed" | "retry", resultJson?: string, bearer?: Bearer): Promise<Answer<string>>;
  /** NDJSON, closed by `{"end": …}`. */
  results(query: ResultsQuery, bearer?: Bearer): Promise<Answer<ReadableStream<Uint8Array>>>;
  /** `text/event-stream`. */
  events(query: EventsQuery): Promise<Answer<ReadableStream<Uint8Array>>>;
  /** What can be claimed at once, as `{claims: […]}`. Without claims where others wait already. */
  claim(request: ClaimRequest): Promise<Answer<JsonReply>>;
  /** A place in the line for work; it answers at once, so that no caller can go away unnoticed. */
  awaitClaims(request: ClaimRequest): Promise<ClaimPlaceRpc>;
  /** `{settlements: […]}`, a line for each, in their order. */
  settleClaims(request: SettleClaimsRequest): Promise<Answer<JsonReply>>;
  /** Extends leases: `{claims: […]}`, a line for each, in their order. */
  heartbeat(request: HeartbeatRequest): Promise<Answer<string>>;
  events(query: EventsQuery, bearer?: Bearer): Promise<Answer<ReadableStream<Uint8Array>>>;
  /** Result lines of an executor whose stream broke. */
  settle(lines: string): Promise<void>;
  /** The account above may have more than when the goal last asked. A hint: one that is lost is made up for in time. */
  moreFunds(): Promise<void>;
  budget(bearer?: Bearer): Promise<Answer<BudgetView>>;
  /** Adds to the limit, up to the ceilings, or takes from it. Answers with the account as JSON. */
  topUp(amounts: Amounts, ceilings: Bounds, idempotency?: IdempotencyKey, bearer?: Bearer): Promise<Answer<JsonReply>>;
  /** Sets a part of the budget aside: `{reservationId, expiresAt, …}` as JSON. */
  reserve(by: Reserver, amounts: Amounts, ttlMs: number, who: ReservedFor): Promise<Answer<JsonReply>>;
  /** `used`: null where nothing was; null in a dimension where it was what was reserved. */
  settleReservation(
    by: Reserver,
    reservation: number,
    used: Bounds | null,
    idempotency?: IdempotencyKey,
    bearer?: Bearer,
  ): Promise<Answer<JsonReply>>;
}

// edge → gate

/** Whoever calls with a key may call again, and meets itself. */
export interface KeyedCall extends IdempotencyKey {
  /** Making the call twice does no harm. */
  readonly isRepeatable: boolean;
}

export interface PassRequest {
  /** The gate's own name, which it gives to governors. */
  readonly gate: string;
  readonly upstream: string;
  readonly method: string;
  /** Path and query. */
  readonly path: string;
  /** What has to be known of the caller's token. */
  readonly bearer?: Bearer | undefined;
  /** The goal that the call is made for. */
  readonly goalId?: string | undefined;
  /** How long the caller waits for a permit. */
  readonly waitMs: number;
  /** What the call sets aside in its goal's budget; what it leaves out is one call and as its upstream says. */
  readonly reserve?: Reserve | undefined;
  /** Places of origins that failed this call already. */
  readonly avoid: readonly number[];
  readonly keyed?: KeyedCall | undefined;
  /** A second try of a call that takes long: it goes only where nobody else wants the permit. */
  readonly isSecond?: boolean;
}

/** Who wants a part of a goal's budget. */
export interface ReservedFor {
  readonly idempotency?: IdempotencyKey | undefined;
  readonly bearer?: Bearer | undefined;
  /** For a second try of a call: only what nothing else will need. */
  readonly isSecond?: boolean;
}

/** Leave to make one call, and where to. */
export interface Opening {
  readonly origin: string;
  /** The origin's place in the upstream's list. */
  readonly place: number;
  /** Sent with the call; they win over the caller's. */
  readonly headers: Readonly<Record<string, string>>;
  readonly timeoutMs: number;
  /** The call must not be open for longer than this unless it is renewed; null where the upstream sets no hard bound. */
  readonly permitMs: number | null;
  /** Where an answer says how many tokens it used, as a JSON pointer; null where none is asked for. */
  readonly tokensPointer: string | null;
  /** As `tokensPointer`, of what the call cost in millionths of a US dollar. */
  readonly costPointer?: string | null;
  /** Answers of the upstream are never shared between calls. */
  readonly isUnshared?: boolean;
  /** A call that takes longer may be made a second time, if it is safe to; left out where none may. */
  readonly hedgeAfterMs?: number;
  /** Calls that the gate may have open, and how many more it may start now. */
  readonly granted: number;
  readonly free: number;
}

/**
 * A place in a gate's queue, and then a permit. Dropping it gives both back; a
 * caller that goes away while it waits says so by `done`, because the runtime may
 * keep what is waited on.
 */
export interface PassRpc {
  /** Once, first: waits for the permit. Or the answer that the call's key has already. */
  opened(): Promise<Answer<{ readonly opening: Opening } | { readonly replay: WholeAnswer }>>;
  /** How much longer the permit lasts. */
  renew(): Promise<number>;
  /** The call has ended. `answer`: what a call with a key is answered from now on; null where it is too large to keep. */
  done(end: CallEnd, answer?: WholeAnswer | null): Promise<void>;
}

export interface GateRpc extends PermitsRpc, RefusalRpc {
  /** Answers at once, so that no caller can go away unnoticed. */
  enter(request: PassRequest): Promise<PassRpc>;
}

// goal and gate → governor

export interface GovernorRpc {
  /** One message a tick and upstream, both ways. */
  exchange(report: Report): Promise<Grant>;
  /** Calls a second that a newcomer of this weight may expect; 0 while nobody knows. */
  outlook(weight: number): Promise<number>;
  live(): Promise<UpstreamLive>;
}

// edge and goal → tenant

export interface Registry {
  /** Rises with every change of an upstream, of a function or of the policy. */
  readonly version: number;
  readonly upstreams: readonly Upstream[];
  /** The newest version of each function; left out for none. */
  readonly functions?: readonly FunctionVersion[];
  /** What all goals of the tenant may do; left out or null where it is not restricted. */
  readonly policy?: Policy | null;
  /** Dimensions that the tenant's budget bounds, in their order; left out for none. */
  readonly bounded?: readonly boolean[];
}

/** What the directory knows of a goal; the goal reports it. */
export interface GoalReport {
  readonly goalId: string;
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly status: GoalStatus;
  readonly createdAtMs: number;
  readonly deadlineAtMs: number | null;
  readonly endedAtMs: number | null;
  readonly sealed: boolean;
  readonly counts: Counts;
  /** What it has spent in total, in the order of dimensions; left out where the goal above it accounts for it. */
  readonly spent?: Amounts;
  /** It has ended and will spend no more: what it was granted and has not spent flows back. */
  readonly isFinal?: boolean;
  /** Of the runs that ended since the last report. A report that is repeated counts them twice, and one that is lost not at all. */
  readonly runTimes?: readonly RunTimes[];
}

export interface GoalsQuery {
  readonly cursor?: string | undefined;
  readonly limit: number;
  readonly status?: GoalStatus | undefined;
}

export interface TenantRpc {
  putUpstream(upstream: Upstream): Promise<Answer<{ created: boolean }>>;
  getUpstream(name: string): Promise<Answer<Upstream>>;
  listUpstreams(): Promise<Answer<readonly Upstream[]>>;
  /** Goals that have work for it keep their own copy until they refresh theirs. */
  deleteUpstream(name: string): Promise<Answer<null>>;
  registry(): Promise<Registry>;
  /** Sets the policy of all goals; null takes it away. */
  putPolicy(policy: Policy | null): Promise<void>;
  /** Tokens of an earlier epoch are revoked. */
  tokenEpoch(): Promise<number>;
  /** Ends all tokens of an epoch up to `epoch`; answers with the new one. */
  revokeTokens(epoch: number): Promise<number>;
  /** A goal asks for grants, and learns their totals once they are durable. The same totals as before mean that there is no more. */
  fund(goalId: string, request: FundRequest): Promise<Bounds>;
  /** A goal that was funded was not made after all. */
  unfund(goalId: string): Promise<void>;
  budget(): Promise<Answer<AccountView>>;
  /** Null in a dimension: no limit. Goals hear within two seconds of what is bounded. */
  putBudget(limit: Bounds): Promise<Answer<AccountView>>;
  /** Maps an idempotency key to one goal id, for ever: the first proposal wins. */
  claimGoalId(idempotency: IdempotencyKey, proposedGoalId: string): Promise<Answer<{ goalId: string }>>;
  /** Puts a goal's report into the directory; answers with the registry if it is newer than `knownVersion`. */
  report(report: GoalReport, knownVersion: number): Promise<Registry | null>;
  /** Takes a deleted goal out of the directory. */
  forget(goalId: string): Promise<void>;
  listGoals(query: GoalsQuery): Promise<Answer<{ items: readonly GoalReport[]; nextCursor: string | null }>>;
}
