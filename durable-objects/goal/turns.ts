/**
 * Turns: commands are gathered, then all their steps and one commit run in one
 * synchronous turn, and each caller is answered after it. The platform has no
 * group commit across calls; this is it. If anything throws on the way, the
 * object aborts and reloads, because memory must never run ahead of disk.
 */
import { assert } from "../../shared/assert.ts";
import { hasEnded, noteEnded } from "../../shared/ended.ts";
import { type Failure, failure } from "../../shared/errors.ts";
import { DELETION_RETRY_MS, STALLED_MS, WATCHDOG_MS } from "../../shared/limits.ts";
import type { FundRequest } from "../../shared/policy/account.ts";
import type { Grant, Report } from "../../shared/protocol/admission.ts";
import type { FlightMessage } from "../../shared/protocol/flight.ts";
import { parseLineHead } from "../../shared/protocol/line.ts";
import type { TaskSpec } from "../../shared/protocol/task.ts";
import type { LockMessage } from "../../shared/policy/lock-steps.ts";
import type { SubgoalOrder, SubgoalReport } from "../../shared/protocol/subgoal.ts";
import { err, ok } from "../../shared/result.ts";
import type { Bearer } from "../../shared/token/claims.ts";
import type { Answer, IdempotencyKey, JsonReply } from "../../shared/rpc.ts";
import { newLife, randomSeed } from "../kit/chance.ts";
import type { Governors } from "../kit/governors.ts";
import { storedReply } from "../kit/replies.ts";
import { askAtMs } from "./core/admission.ts";
import { QUEUED, WAITING } from "./core/codes.ts";
import { flightsAtMs } from "./core/flight-turn.ts";
import { ancestorsOf } from "./core/kin.ts";
import { awaitsLocks } from "./core/lock-state.ts";
import { letsGo } from "./core/locks.ts";
import type { Out } from "./core/recorder.ts";
import { revocation } from "./core/rights.ts";
import type { Refusal } from "./core/settle.ts";
import { type GoalState, newState, upstreamNamed } from "./core/state.ts";
import { type Command, type Reply, step } from "./core/step.ts";
import { tenantLocksAt } from "./core/tenant-locks.ts";
import { isBusy, isStalled, wakeAt } from "./core/wake.ts";
import type { LockDesk } from "./lock-desk.ts";
import { LineKeeper } from "./lines.ts";
import { Pace } from "./pace.ts";
import { batchOf, type Inbox, permitMsOf, Runner, type Transport } from "./runner.ts";
import type { Commit, GoalStore, NewOffer } from "./store.ts";

/** A command with what its caller needs of it. */
export interface Ask {
  readonly command: Command;
  /** The request body that the command's tasks come from. */
  readonly offer?: Omit<NewOffer, "offer">;
  readonly idempotency?: IdempotencyKey | undefined;
  /** What has to be known of the token behind it; left out where it is restricted to nothing. */
  readonly bearer?: Bearer | undefined;
  /** The answer as JSON, made right after the step. */
  readonly render?: (reply: Done) => string;
  /** Whether the answer is kept under the key; left out, it is. One without effect may come out better the next time. */
  readonly isKept?: (reply: Done) => boolean;
}

type Done = Extract<Reply, { ok: true }>["value"];

interface Waiting {
  readonly ask: Ask;
  readonly resolve: (answer: Answer<JsonReply>) => void;
}

interface Surroundings {
  readonly ctx: DurableObjectState;
  readonly store: GoalStore;
  readonly transport: Transport;
  readonly governors: Governors;
  /** Asks the account above for funds, and runs the command that brings its answer. */
  readonly askFunds: (request: FundRequest) => Promise<unknown>;
  /** After each turn, with whether the goal has changed. */
  readonly committed: (hasChanged: boolean) => void;
  readonly locks: LockDesk;
  /** Tells a shard of flights, and runs the command that brings its answer. */
  readonly tellFlights: (message: FlightMessage) => Promise<unknown>;
  /** Sends what goals have to tell one another. */
  readonly tellSubgoal: (order: SubgoalOrder) => Promise<void>;
  readonly tellParent: (report: SubgoalReport) => Promise<void>;
  readonly destroy: () => Promise<void>;
}

/** Whether a turn also sends what may run, or leaves that to the next one. */
type Order = "send too" | "answer first";

type Mutable<T> = { -readonly [K in keyof T]: T[K] extends readonly (infer I)[] ? I[] : T[K] };

export class Turns {
  readonly #around: Surroundings;
  readonly #runner: Runner;
  readonly #pace = new Pace();
  #state: GoalState;
  #waiting: Waiting[] = [];
  #lines: string[] = [];
  /** Somebody waits for locks, and one of the lines may let go of some. */
  #isHandOver = false;
  #closed: { readonly batch: number; readonly refusal: Refusal | undefined }[] = [];
  #isRecovered = false;
  readonly #life = newLife();
  #timer: number | null = null;
  #timerAtMs = Number.MAX_SAFE_INTEGER;
  #alarmAtMs = Number.MAX_SAFE_INTEGER;

  constructor(around: Surroundings) {
    this.#around = around;
    this.#state = this.#alive(around.store.load());
    const inbox: Inbox = {
      lines: (text) => this.#take(text),
      closed: (batch, refusal) => {
        this.#closed.push({ batch, refusal });
        this.#gather();
      },
      aborted: (upstream, count) => void this.run({ command: { kind: "closed", upstream, count } }),
    };
    this.#runner = new Runner(around.transport, inbox, (upstream) => permitMsOf(this.#state, upstream, Date.now()));
    // A new incarnation goes on with what the last one left, whoever woke it.
    if (isBusy(this.#state)) this.#schedule(Date.now());
  }

  /** What this incarnation holds is told apart from what the last one held. */
  #alive(state: GoalState): GoalState {
    state.life = this.#life;
    return state;
  }

  get state(): GoalState {
    return this.#state;
  }

  /** Runs a command in the next turn, together with what else comes in by then. */
  run(ask: Ask): Promise<Answer<JsonReply>> {
    return this.#runAt(Date.now(), ask);
  }

  /** As `run`, for what is worth no commit of its own: it comes at the pace of commits. */
  runPaced(ask: Ask): Promise<Answer<JsonReply>> {
    const nowMs = Date.now();
    return this.#runAt(nowMs + this.#pace.delayMs(nowMs, this.#lines.length), ask);
  }

  #runAt(atMs: number, ask: Ask): Promise<Answer<JsonReply>> {
    return new Promise((resolve) => {
      this.#waiting.push({ ask, resolve });
      this.#schedule(atMs);
    });
  }

  /** Runs a command at once, and sends what it made possible in a turn of its own, so that nothing delays the answer. */
  runNow(ask: Ask): Promise<Answer<JsonReply>> {
    return new Promise((resolve) => {
      this.#waiting.push({ ask, resolve });
      this.#turn("answer first");
      this.#schedule(Date.now());
    });
  }

  /** Takes result lines that came by another way than a batch's own stream. */
  async settle(text: string): Promise<void> {
    for (const line of text.split("\n")) if (line !== "") this.#lines.push(line);
    await this.run({ command: { kind: "tick" } });
  }

  /** The alarm: time has passed, and there may be nobody else to notice. */
  async wake(): Promise<void> {
    this.#alarmAtMs = Number.MAX_SAFE_INTEGER;
    await this.run({ command: { kind: "tick" } });
  }

  /** The answer to an earlier request with this key; null where there is none. */
  stored(idempotency: IdempotencyKey | undefined): Answer<JsonReply> | null {
    if (idempotency === undefined || this.#around.store.isEmpty) return null;
    const stored = storedReply(this.#around.store.sql, idempotency);
    if (!stored.ok) return stored;
    return stored.value === null ? null : ok({ json: stored.value, replayed: true });
  }

  #take(text: string): void {
    const isContended = awaitsLocks(this.#state);
    let from = 0;
    for (let end = text.indexOf("\n"); end >= 0; end = text.indexOf("\n", from)) {
      const line = text.slice(from, end);
      this.#lines.push(line);
      if (isContended) this.#isHandOver ||= letsGo(this.#state, parseLineHead(line).task);
      from = end + 1;
    }
    this.#gather();
  }

  /** Plans a turn for what executors reported, at the pace that commits are worth. */
  #gather(): void {
    const nowMs = Date.now();
    // A lock that others wait for is worth a commit of its own.
    this.#schedule(this.#isHandOver ? nowMs : nowMs + this.#pace.delayMs(nowMs, this.#lines.length));
  }

  #schedule(atMs: number): void {
    if (atMs >= this.#timerAtMs) return;
    clearTimeout(this.#timer);
    this.#timerAtMs = atMs;
    this.#timer = setTimeout(() => this.#turn(), Math.max(0, atMs - Date.now()));
  }

  #turn(order: Order = "send too"): void {
    clearTimeout(this.#timer);
    this.#timerAtMs = Number.MAX_SAFE_INTEGER;
    const waiting = this.#waiting;
    this.#waiting = [];
    try {
      this.#commitAll(waiting, order);
    } catch (error) {
      console.error("a goal's turn failed; the object reloads", error);
      this.#around.ctx.abort(`a turn failed: ${String(error)}`);
      throw error;
    }
  }

  #commitAll(waiting: readonly Waiting[], order: Order): void {
    const { store } = this.#around;
    const nowMs = Date.now();
    const lines = new LineKeeper(store.nextRow);
    const commit: Mutable<Commit> = { changes: [], lines, offers: [], replies: [], values: [] };
    const out: Out = {
      changes: commit.changes,
      sends: [],
      aborts: [],
      reports: [],
      values: commit.values,
      lines: [],
      lockMessages: [],
      flightMessages: [],
      warms: [],
      orders: [],
      report: null,
      keep: (line) => lines.keep(line),
      callOf: (offer, place) => {
        // An offer of this turn is not on disk yet.
        const fresh = commit.offers.find((each) => each.offer === offer);
        return fresh === undefined ? store.calls.get(offer, place) : (fresh.specs[place] as TaskSpec).call;
      },
      destroy: false,
    };
    const settled = this.#lines.length;
    this.#stepReports(nowMs, out);
    const answers = waiting.map(({ ask }) => this.#answer(ask, nowMs, out, commit));
    if (order === "send too") this.#send(nowMs, out);
    if (this.#state.goal === null) this.#state = this.#alive(newState());
    else if (out.changes.length > 0 || commit.replies.length > 0) {
      store.commit(commit);
      this.#pace.spend(nowMs, settled);
    }
    this.#afterCommit(nowMs, out);
    waiting.forEach(({ resolve }, i) => resolve(answers[i]!));
  }

  #send(nowMs: number, out: Out): void {
    step(this.#state, nowMs, { kind: "dispatch", seed: randomSeed(), isOver: hasEnded(ancestorsOf(this.#state)) }, out);
  }

  /** What time and executors bring, before what callers ask. */
  #stepReports(nowMs: number, out: Out): void {
    if (this.#state.goal === null) return;
    if (!this.#isRecovered) step(this.#state, nowMs, { kind: "recover" }, out);
    this.#isRecovered = true;
    const lines = this.#lines;
    this.#lines = [];
    this.#isHandOver = false;
    if (lines.length > 0) step(this.#state, nowMs, { kind: "settle", lines, seed: randomSeed() }, out);
    for (const lost of this.#closed.splice(0)) step(this.#state, nowMs, { kind: "batch-lost", ...lost }, out);
    step(this.#state, nowMs, { kind: "tick" }, out);
  }

  #answer(
    { command, offer, idempotency, bearer, render, isKept }: Ask,
    nowMs: number,
    out: Out,
    commit: Mutable<Commit>,
  ): Answer<JsonReply> {
    // Before an answer is given again: nothing is read with a token that is revoked.
    const revoked = bearer === undefined ? null : revocation(this.#state, bearer);
    if (revoked !== null) return err(revoked);
    const earlier = this.#earlier(idempotency, commit);
    if (earlier !== null) return earlier;
    const number = this.#state.nextOffer;
    const reply = step(this.#state, nowMs, command, out, bearer);
    this.#isRecovered ||= command.kind === "create" || command.kind === "obey";
    if (!reply.ok) return reply;
    if (this.#state.nextOffer > number) {
      assert(offer !== undefined, "tasks come with the offer that they are from");
      commit.offers.push({ ...offer, offer: number });
    }
    const json = render?.(reply.value) ?? "{}";
    if (idempotency !== undefined && isKept?.(reply.value) !== false) commit.replies.push({ idempotency, body: json });
    return ok({ json, replayed: false });
  }

  /** The reply under this key, from disk or from earlier in the same turn. */
  #earlier(idempotency: IdempotencyKey | undefined, commit: Mutable<Commit>): Answer<JsonReply> | null {
    if (idempotency === undefined) return null;
    const inTurn = commit.replies.find((reply) => reply.idempotency.key === idempotency.key);
    if (inTurn === undefined) return this.stored(idempotency);
    if (inTurn.idempotency.fingerprint === idempotency.fingerprint) return ok({ json: inTurn.body, replayed: true });
    return err(reusedKey());
  }

  /** Reports to a governor, and takes its answer in a turn of its own. */
  async #exchange(report: Report): Promise<void> {
    const { name } = report.upstream;
    const grant = await this.#around.governors.exchange(name, report);
    if (grant === null) await this.run({ command: { kind: "unanswered", upstream: name } });
    else await this.grant(name, report.life, grant);
  }

  /** Takes a governor's grant. Calls that are open may stay so for as long as it lasts. */
  async grant(name: string, life: string, grant: Grant): Promise<void> {
    if (life !== this.#life) return;
    // What a grant lets start is a commit too.
    await this.runPaced({ command: { kind: "grant", upstream: name, life, grant } });
    const upstream = upstreamNamed(this.#state, name);
    if (upstream >= 0) this.#runner.renew(upstream);
  }

  /** Tells a shard of locks, and takes its answer in a turn of its own. */
  async #tell(message: LockMessage): Promise<void> {
    await this.run({ command: { kind: "lock-news", message, news: await this.#around.locks.tell(message) } });
  }

  #afterCommit(nowMs: number, out: Out): void {
    const { store, ctx, locks, destroy, committed } = this.#around;
    const state = this.#state;
    // Before anybody is told: executors may have begun none of what was sent.
    if (state.goal !== null && state.goal.phase !== "active") noteEnded(state.goal.id);
    for (const send of out.sends) ctx.waitUntil(this.#runner.send(send, batchOf(state, send, store.calls, nowMs)));
    for (const [name, tasks] of out.warms) ctx.waitUntil(this.#runner.warm(state.runs.versions.get(name)!, tasks));
    for (const report of out.reports) ctx.waitUntil(this.#exchange(report));
    if (out.funds !== undefined) ctx.waitUntil(this.#around.askFunds(out.funds));
    for (const message of out.lockMessages) ctx.waitUntil(this.#tell(message));
    for (const message of out.flightMessages) ctx.waitUntil(this.#around.tellFlights(message));
    if (out.lines.length > 0) locks.end(out.lines);
    for (const order of out.orders) ctx.waitUntil(this.#around.tellSubgoal(order));
    if (out.report !== null) ctx.waitUntil(this.#around.tellParent(out.report));
    if (out.aborts.length > 0) this.#runner.abort(out.aborts, (task) => state.tasks.upstream[task]!);
    if (state.goal === null) return;
    store.compact(state);
    // Inputs leave memory once they are sent; what is tried again is read again.
    if (state.counts[QUEUED] === 0 && state.counts[WAITING] === 0) store.calls.clear();
    if (out.destroy) {
      // Set before it begins: the alarm that brought us here is spent, whatever becomes of the deletion.
      void ctx.storage.setAlarm(nowMs + DELETION_RETRY_MS);
      ctx.waitUntil(destroy());
    } else this.#arm(nowMs);
    committed(out.changes.length > 0);
  }

  /** One timer for this incarnation, and one alarm for the next; each is only ever moved earlier. */
  #arm(nowMs: number): void {
    const askMs = askAtMs(this.#state);
    if (askMs !== null) this.#schedule(Math.max(askMs, nowMs));
    const locksMs = Math.min(tenantLocksAt(this.#state), flightsAtMs(this.#state));
    if (locksMs < Number.MAX_SAFE_INTEGER) this.#schedule(Math.max(locksMs, nowMs));
    const wakeMs = wakeAt(this.#state);
    if (wakeMs === null) return;
    const patienceMs = isBusy(this.#state) ? WATCHDOG_MS : isStalled(this.#state) ? STALLED_MS : Number.MAX_SAFE_INTEGER;
    // What is nearer is the timer's business: an alarm is a row, and its turn comes at no pace.
    const alarmMs = Math.max(nowMs + WATCHDOG_MS, Math.min(wakeMs, nowMs + patienceMs)) + 1;
    if (wakeMs <= nowMs + WATCHDOG_MS) this.#schedule(Math.max(wakeMs, nowMs + this.#pace.delayMs(nowMs, 0)));
    if (alarmMs >= this.#alarmAtMs) return;
    this.#alarmAtMs = alarmMs;
    this.#around.store.rowsWritten++;
    void this.#around.ctx.storage.setAlarm(alarmMs);
  }
}

const reusedKey = (): Failure => failure("idempotency_key_reused", "this Idempotency-Key was used for a different request; use a new key");
