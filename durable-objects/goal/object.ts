/**
 * The Durable Object of one goal. It only carries things around: commands come
 * in, a turn runs all of them and makes one commit, then batches are sent, the
 * alarm is armed and the callers are answered. What to do is decided in `core/`.
 */
import { DurableObject } from "cloudflare:workers";
import { failure } from "../../shared/errors.ts";
import type { GoalId } from "../../shared/ids.ts";
import { SHARED_COMMIT_BYTES_MAX, TASKS_PER_GOAL_MAX } from "../../shared/limits.ts";
import type { Amounts, Bounds, FundRequest } from "../../shared/policy/account.ts";
import type { Grant } from "../../shared/protocol/admission.ts";
import type { BudgetView, Reserver } from "../../shared/protocol/budget.ts";
import type { GoalFlightNews } from "../../shared/protocol/flight.ts";
import type { GoalView } from "../../shared/protocol/goal.ts";
import { type Granted, type LockRelease, type LockView, viewOf } from "../../shared/policy/lock-steps.ts";
import { formatLine } from "../../shared/protocol/line.ts";
import type { ParentWord, SubgoalOrder, SubgoalReport } from "../../shared/protocol/subgoal.ts";
import type { CreateSubgoalRequest, SubgoalBirth } from "../../shared/rpc-relatives.ts";
import { err, ok } from "../../shared/result.ts";
import type { GoalAsk, GoalAskRpc, TabReply, TabRequest, TabRpc } from "../../shared/rpc-functions.ts";
import type { FlightGoalRpc } from "../../shared/rpc-flight.ts";
import type { LocksRpc, OutsideAsk, StateValue, StateWrite } from "../../shared/rpc-locks.ts";
import type {
  Answer,
  ClaimPlaceRpc,
  ClaimRequest,
  CreateGoalRequest,
  EventsQuery,
  GoalRpc,
  ReservedFor,
  GoalVerb,
  HeartbeatRequest,
  IdempotencyKey,
  JsonReply,
  ResultsQuery,
  SettleClaimsRequest,
  SubmitRequest,
  TaskQuery,
  TenantRpc,
} from "../../shared/rpc.ts";
import type { Bearer } from "../../shared/token/claims.ts";
import { type Governors, governorsOf } from "../kit/governors.ts";
import { ClaimDesk } from "./claim-desk.ts";
import { isTerminal } from "./core/codes.ts";
import { revocation } from "./core/rights.ts";
import { AskDesk } from "./ask-desk.ts";
import { BudgetDesk } from "./budget-desk.ts";
import { Directory } from "./directory.ts";
import { entryNames, parseOffer } from "./offers.ts";
import { FlightDesk } from "./flight-desk.ts";
import { LockDesk } from "./lock-desk.ts";
import { outlooksOf } from "./outlooks.ts";
import { prepare } from "./prepare.ts";
import { TaskReader, treeJson } from "./reader.ts";
import { RelativesDesk } from "./relatives-desk.ts";
import { RunLocks } from "./run-locks.ts";
import { Signal, within } from "./signal.ts";
import { StateDesk } from "./state-desk.ts";
import { GoalStore } from "./store.ts";
import { Streams } from "./streams.ts";
import { transportOf } from "./transport.ts";
import { type Ask, Turns } from "./turns.ts";
import { goalView, receiptsJson } from "./views.ts";

const missing = () => err(failure("not_found", "there is no such goal"));
const NO_NAMES: ReadonlySet<string> = new Set();

export class Goal extends DurableObject<Env> implements GoalRpc, GoalAskRpc, TabRpc, FlightGoalRpc {
  readonly #store: GoalStore;
  readonly #turns: Turns;
  readonly #reader: TaskReader;
  readonly #streams: Streams;
  readonly #signal = new Signal();
  readonly #desk: ClaimDesk;
  readonly #relatives: RelativesDesk;
  readonly #directory: Directory;
  readonly #governors: Governors;
  readonly #budget: BudgetDesk;
  readonly #locks: LockDesk;
  readonly #flights: FlightDesk;
  readonly #shared: StateDesk;
  readonly #runLocks: RunLocks;
  readonly #asks: AskDesk;

  constructor(ctx: DurableObjectState, env: Env) {
    super(ctx, env);
    this.#store = new GoalStore(ctx.storage);
    this.#reader = new TaskReader(this.#store);
    const tenant = env.TENANT.get(env.TENANT.idFromName("default")) as unknown as TenantRpc;
    this.#governors = governorsOf(env);
    const goalOf = (goalId: string): GoalRpc => env.GOAL.get(env.GOAL.idFromName(goalId));
    this.#budget = new BudgetDesk(
      () => this.#turns,
      (goalId, request) => {
        const { parent } = this.#turns.state.goal!.spec;
        return parent === undefined ? tenant.fund(goalId, request) : goalOf(parent.goalId).fundSubgoal(goalId, parent.task, request);
      },
    );
    this.#locks = new LockDesk(env, () => this.#turns);
    this.#flights = new FlightDesk(env, () => this.#turns);
    this.#shared = new StateDesk(() => this.#turns, this.#store);
    const shard = (number: number): LocksRpc => env.LOCKS.get(env.LOCKS.idFromName(String(number)));
    this.#runLocks = new RunLocks(() => this.#turns.state, this.#locks, shard);
    this.#asks = new AskDesk({
      turns: () => this.#turns,
      store: this.#store,
      reader: this.#reader,
      directory: () => this.#directory,
      budget: this.#budget,
      locks: this.#runLocks,
    });
    this.#turns = new Turns({
      ctx,
      store: this.#store,
      transport: transportOf(ctx, env),
      governors: this.#governors,
      askFunds: (request) => this.#budget.ask(request),
      locks: this.#locks,
      tellFlights: (message) => this.#flights.tell(message),
      tellSubgoal: (order) => this.#relatives.tellSubgoal(order),
      tellParent: (report) => this.#relatives.tellParent(report),
      committed: (hasChanged) => {
        this.#signal.fire();
        this.#directory.follow(this.#turns.state);
        if (hasChanged) this.#desk.committed();
        if (hasChanged) this.#relatives.committed();
        if (hasChanged) this.#runLocks.committed();
      },
      destroy: () => this.#destroy(tenant),
    });
    this.#directory = new Directory(tenant, (command) => this.#turns.run({ command }));
    this.#desk = new ClaimDesk(this.#turns, this.#store, this.#directory, this.#budget);
    this.#relatives = new RelativesDesk({
      turns: this.#turns,
      store: this.#store,
      directory: this.#directory,
      signal: this.#signal,
      goal: goalOf,
      prepare: (missing, wanted) => this.#budget.prepare(missing, wanted),
    });
    this.#streams = new Streams({ state: () => this.#turns.state, view: () => this.#view(), reader: this.#reader, signal: this.#signal });
  }

  #view(): GoalView {
    return goalView(this.#turns.state, this.#store.rowsWritten, Date.now());
  }

  get #exists(): boolean {
    return this.#turns.state.goal !== null;
  }

  /** Why a caller gets no answer: there is no goal, or its token is revoked. */
  #refusal(bearer: Bearer | undefined): Answer<never> | null {
    if (!this.#exists) return missing();
    const revoked = bearer === undefined ? null : revocation(this.#turns.state, bearer);
    return revoked === null ? null : err(revoked);
  }

  async create({ goalId, spec, tasksJson, idempotency }: CreateGoalRequest): Promise<Answer<JsonReply>> {
    const body = new TextEncoder().encode(tasksJson === "" ? "[]" : tasksJson);
    const values = parseOffer(body, "array");
    if (!values.ok) return values;
    const { registry, funds } = await this.#directory.opening(goalId, this.#exists ? 0 : values.value.length);
    const tasks = await prepare(values.value);
    const reply = await this.#turns.run({
      command: { kind: "create", id: goalId as GoalId, spec, registry, funds, tasks },
      offer: { format: "array", body, specs: values.value },
      idempotency,
      render: () => JSON.stringify(this.#view()),
    });
    if (reply.ok) await this.#directory.report(this.#turns.state);
    else if (funds !== undefined && !this.#exists) await this.#directory.close(goalId);
    return reply;
  }

  async submit({ body, format, allReceipts, atomic, idempotency, bearer }: SubmitRequest): Promise<Answer<JsonReply>> {
    const refusal = this.#refusal(bearer);
    if (refusal !== null) return refusal;
    const stored = this.#turns.stored(idempotency);
    if (stored !== null) return stored;
    const values = parseOffer(body, format);
    if (!values.ok) return values;
    const names = entryNames(values.value);
    await this.#directory.refreshFor(this.#turns.state, names);
    await this.#budget.prepareTasks(values.value.length);
    const prepared = await prepare(values.value);
    // A first task has nothing ahead of it at an upstream that is new to the goal; only the others need an estimate.
    const outlooks = allReceipts ? await outlooksOf(this.#governors, this.#turns.state, names) : undefined;
    const ask: Ask = {
      command: { kind: "submit", ...prepared, atomic, ...(outlooks === undefined ? {} : { outlooks }) },
      offer: { format, body, specs: values.value },
      idempotency,
      bearer,
      render: ({ receipts }) => receiptsJson(this.#turns.state, receipts!, allReceipts),
    };
    // A large body is worth a commit of its own; small ones wait a moment for one another.
    const reply = await (body.byteLength > SHARED_COMMIT_BYTES_MAX ? this.#turns.runNow(ask) : this.#turns.run(ask));
    return reply.ok ? ok({ ...reply.value, tasksLeft: TASKS_PER_GOAL_MAX - this.#turns.state.tasks.n }) : reply;
  }

  async control(verb: GoalVerb, bearer?: Bearer): Promise<Answer<GoalView>> {
    if (!this.#exists) return missing();
    const ask: Ask = { command: { kind: verb }, bearer };
    // What is to stop costs a call for every moment that it does not.
    const reply = await (verb === "cancel" ? this.#turns.runNow(ask) : this.#turns.run(ask));
    return reply.ok ? ok(this.#view()) : reply;
  }

  async revokeTokens(bearer?: Bearer): Promise<Answer<{ epoch: number }>> {
    if (!this.#exists) return missing();
    const reply = await this.#turns.run({ command: { kind: "revoke" }, bearer });
    return reply.ok ? ok({ epoch: this.#turns.state.rights.epoch }) : reply;
  }

  async view(bearer?: Bearer): Promise<Answer<GoalView>> {
    return this.#refusal(bearer) ?? ok(this.#view());
  }

  async listTasks(query: TaskQuery, bearer?: Bearer): Promise<Answer<string>> {
    return this.#refusal(bearer) ?? this.#reader.page(this.#turns.state, query);
  }

  async tree(root: string | undefined, depth: number, bearer?: Bearer): Promise<Answer<string>> {
    return this.#refusal(bearer) ?? treeJson(this.#turns.state, root, depth);
  }

  async getTask(index: number, waitMs: number, bearer?: Bearer): Promise<Answer<{ json: string; terminal: boolean }>> {
    const state = this.#turns.state;
    const refusal = this.#refusal(bearer);
    if (refusal !== null) return refusal;
    if (index >= state.tasks.n) return err(failure("not_found", "there is no such task"));
    const until = Date.now() + waitMs;
    while (!isTerminal(state.tasks.status[index]!)) {
      if (!(await within(this.#signal.changed(), until - Date.now()))) break;
    }
    return ok({ json: this.#reader.json(state, index), terminal: isTerminal(state.tasks.status[index]!) });
  }

  async cancelTask(index: number, bearer?: Bearer): Promise<Answer<string>> {
    return this.#decideTask({ command: { kind: "cancel-task", task: index }, bearer });
  }

  async decideTask(index: number, verdict: "approve" | "deny", bearer?: Bearer): Promise<Answer<string>> {
    if (!this.#exists) return missing();
    // What was policy when the task was taken may be none by now.
    await this.#directory.refreshFor(this.#turns.state, NO_NAMES);
    return this.#decideTask({ command: { kind: `${verdict}-task`, task: index }, bearer });
  }

  async retryTask(index: number, idempotency?: IdempotencyKey, bearer?: Bearer): Promise<Answer<JsonReply>> {
    if (!this.#exists) return missing();
    await this.#directory.refreshFor(this.#turns.state, NO_NAMES);
    await this.#budget.prepareTasks(1);
    const render: Ask["render"] = ({ task }) => this.#reader.json(this.#turns.state, task!);
    return this.#turns.run({ command: { kind: "retry-task", task: index }, idempotency, bearer, render });
  }

  async resolveTask(index: number, as: "succeeded" | "failed" | "retry", resultJson?: string, bearer?: Bearer): Promise<Answer<string>> {
    const now = Date.now();
    const head = { task: index, attempt: 0, outcome: "answered", status: 0, retryAfterMs: 0, startedAtMs: now, endedAtMs: now } as const;
    const line = resultJson === undefined ? null : formatLine(head, resultJson);
    return this.#decideTask({ command: { kind: "resolve", task: index, as, line }, bearer });
  }

  async #decideTask(ask: Ask & { command: { task: number } }): Promise<Answer<string>> {
    if (!this.#exists) return missing();
    const reply = await this.#turns.run(ask);
    return reply.ok ? ok(this.#reader.json(this.#turns.state, ask.command.task)) : reply;
  }

  async results(query: ResultsQuery, bearer?: Bearer): Promise<Answer<ReadableStream<Uint8Array>>> {
    return this.#refusal(bearer) ?? this.#streams.results(query);
  }

  async events(query: EventsQuery, bearer?: Bearer): Promise<Answer<ReadableStream<Uint8Array>>> {
    return this.#refusal(bearer) ?? this.#streams.events(query);
  }

  async claim(request: ClaimRequest): Promise<Answer<JsonReply>> {
    return this.#refusal(request.bearer) ?? this.#desk.claim(request);
  }

  async awaitClaims(request: ClaimRequest): Promise<ClaimPlaceRpc> {
    return this.#desk.place(request);
  }

  async settleClaims(request: SettleClaimsRequest): Promise<Answer<JsonReply>> {
    return this.#refusal(request.bearer) ?? this.#desk.settle(request);
  }

  async heartbeat(request: HeartbeatRequest): Promise<Answer<string>> {
    return this.#refusal(request.bearer) ?? this.#desk.heartbeat(request);
  }

  async settle(lines: string): Promise<void> {
    if (this.#exists) await this.#turns.settle(lines);
  }

  async moreFunds(): Promise<void> {
    if (!this.#exists) return;
    this.#relatives.moreFunds();
    await this.#turns.run({ command: { kind: "ask-again" } });
  }

  async budget(bearer?: Bearer): Promise<Answer<BudgetView>> {
    return this.#refusal(bearer) ?? this.#budget.view();
  }

  async topUp(amounts: Amounts, ceilings: Bounds, idempotency?: IdempotencyKey, bearer?: Bearer): Promise<Answer<JsonReply>> {
    return this.#refusal(bearer) ?? this.#budget.topUp(amounts, ceilings, { idempotency, bearer });
  }

  async reserve(by: Reserver, amounts: Amounts, ttlMs: number, who: ReservedFor): Promise<Answer<JsonReply>> {
    return this.#refusal(who.bearer) ?? this.#budget.reserve(by, amounts, ttlMs, who);
  }

  async settleReservation(
    by: Reserver,
    reservation: number,
    used: Bounds | null,
    idempotency?: IdempotencyKey,
    bearer?: Bearer,
  ): Promise<Answer<JsonReply>> {
    return this.#refusal(bearer) ?? this.#budget.settle(by, reservation, used, { idempotency, bearer });
  }

  async tab(request: TabRequest): Promise<Answer<TabReply>> {
    return this.#budget.tab(request);
  }

  async ask(asks: readonly GoalAsk[]): Promise<readonly Answer<string>[]> {
    return this.#asks.ask(asks);
  }

  async acquireLock(ask: OutsideAsk, bearer?: Bearer): Promise<Answer<Granted>> {
    return this.#refusal(bearer) ?? this.#locks.acquire(ask, bearer);
  }

  async releaseLock(release: LockRelease, bearer?: Bearer): Promise<Answer<null>> {
    return this.#refusal(bearer) ?? this.#locks.release(release, bearer);
  }

  async lookAtLock(name: string, bearer?: Bearer): Promise<Answer<LockView>> {
    return this.#refusal(bearer) ?? ok(viewOf(this.#turns.state.locks.table, name));
  }

  async readState(key: string, bearer?: Bearer): Promise<Answer<StateValue>> {
    return this.#refusal(bearer) ?? this.#shared.read(key);
  }

  async writeState(write: StateWrite, idempotency?: IdempotencyKey, bearer?: Bearer): Promise<Answer<JsonReply>> {
    return this.#refusal(bearer) ?? this.#shared.write(write, { idempotency, bearer });
  }

  async locksFree(names: readonly string[]): Promise<void> {
    if (this.#exists) await this.#turns.run({ command: { kind: "locks-free", names } });
  }

  async flightNews(news: GoalFlightNews): Promise<void> {
    await this.#flights.hear(news);
  }

  async createSubgoal(request: CreateSubgoalRequest): Promise<Answer<JsonReply>> {
    return this.#refusal(request.bearer) ?? this.#relatives.create(request);
  }

  async obey(order: SubgoalOrder, birth: SubgoalBirth | null): Promise<Answer<SubgoalReport>> {
    return this.#relatives.obey(order, birth);
  }

  async fundSubgoal(goalId: string, task: number, request: FundRequest): Promise<Bounds | null> {
    return this.#relatives.fund(goalId, task, request);
  }

  async hear(report: SubgoalReport): Promise<ParentWord> {
    return this.#relatives.hear(report);
  }

  async permits(upstream: string, life: string, grant: Grant): Promise<void> {
    if (this.#exists) await this.#turns.grant(upstream, life, grant);
  }

  override async alarm(): Promise<void> {
    await this.#turns.wake();
  }

  /** The directory forgets the goal first: a crash in between leaves a goal that will be asked to go again. */
  async #destroy(tenant: TenantRpc): Promise<void> {
    const { id } = this.#turns.state.goal!;
    try {
      await tenant.forget(id);
    } catch (error) {
      // The next alarm tries again.
      return console.warn(`the tenant did not forget ${id}: ${String(error)}`);
    }
    await this.ctx.storage.deleteAlarm();
    await this.ctx.storage.deleteAll();
    this.ctx.abort("the goal is past its retention");
  }
}
