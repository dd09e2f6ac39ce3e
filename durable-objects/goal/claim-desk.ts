/**
 * Where workers outside come for work: the lines of those who wait, one for
 * each queue, and what they are told. A commit that makes work ready serves the
 * first in line in the next turn; nobody polls.
 */
import { RpcTarget } from "cloudflare:workers";
import { failure, problemOf } from "../../shared/errors.ts";
import { taskIdOf } from "../../shared/ids.ts";
import { CLAIM_CHARS_MAX, CLAIMERS_WAITING_MAX } from "../../shared/limits.ts";
import { err, ok } from "../../shared/result.ts";
import type {
  Answer,
  ClaimPlaceRpc,
  ClaimRequest,
  ClaimSettlement,
  HeartbeatRequest,
  JsonReply,
  SettleClaimsRequest,
} from "../../shared/rpc.ts";
import { randomSeed } from "../kit/chance.ts";
import type { BudgetDesk } from "./budget-desk.ts";
import { canStart } from "./core/afford.ts";
import type { Grant, Settlement, Standing } from "./core/claims.ts";
import { fencesByName } from "./core/locks.ts";
import { isPaused } from "./core/kin.ts";
import { type GoalState, upstreamNamed, workQueueName } from "./core/state.ts";
import type { Directory } from "./directory.ts";
import { entryNames, parseOffer } from "./offers.ts";
import { prepare } from "./prepare.ts";
import type { GoalStore } from "./store.ts";
import type { Turns } from "./turns.ts";

interface Claimer {
  readonly request: ClaimRequest;
  /** In the turn that comes next. */
  isAsking: boolean;
  /** Something has changed since it asked, perhaps after its place in that turn. */
  hasMissed: boolean;
  /** It has waited for as long as it would. */
  isDue: boolean;
  /** Has its answer, or has gone. */
  isOver: boolean;
  resolve: (answer: Answer<JsonReply>) => void;
}

const NO_CLAIMS = '{"claims":[]}';
const nothing: Answer<JsonReply> = ok({ json: NO_CLAIMS, replayed: false });
const isNothing = (answer: Answer<JsonReply>): boolean => answer.ok && answer.value.json === NO_CLAIMS;

export class ClaimDesk {
  readonly #turns: Turns;
  readonly #store: GoalStore;
  readonly #directory: Directory;
  readonly #budget: BudgetDesk;
  /** Who waits, by queue, in the order of arrival. */
  readonly #lines = new Map<string, Set<Claimer>>();
  #waiting = 0;

  constructor(turns: Turns, store: GoalStore, directory: Directory, budget: BudgetDesk) {
    this.#turns = turns;
    this.#store = store;
    this.#directory = directory;
    this.#budget = budget;
  }

  /** What is there right now. Those who wait come first. */
  async claim(request: ClaimRequest): Promise<Answer<JsonReply>> {
    const stored = this.#turns.stored(request.idempotency);
    if (stored !== null) return stored;
    const spare = readyIn(this.#turns.state, request.queue) - this.#wanted(request.queue);
    return spare > 0 || !this.#lines.has(request.queue) ? this.#ask(request) : nothing;
  }

  /** The most that those in line would take. */
  #wanted(queue: string): number {
    let wanted = 0;
    for (const { request } of this.#lines.get(queue) ?? []) wanted += request.max;
    return wanted;
  }

  /** A place at the end of the line. */
  place(request: ClaimRequest): ClaimPlaceRpc {
    return new ClaimPlace(this, { request, isAsking: false, hasMissed: false, isDue: false, isOver: false, resolve: () => undefined });
  }

  /** After each change: whoever can be served now is. */
  committed(): void {
    if (this.#waiting === 0) return;
    for (const [queue, line] of this.#lines) this.#serve(queue, line);
  }

  wait(claimer: Claimer): Promise<Answer<JsonReply>> {
    const { queue, waitMs } = claimer.request;
    if (this.#waiting >= CLAIMERS_WAITING_MAX) {
      const detail = `${CLAIMERS_WAITING_MAX} claim requests wait in this goal already`;
      return Promise.resolve(err(failure("temporary_reduced_capacity", detail, { retryAfterMs: 1_000 })));
    }
    this.#waiting++;
    const line = this.#lines.get(queue) ?? new Set();
    this.#lines.set(queue, line.add(claimer));
    return new Promise((resolve) => {
      const timer = setTimeout(() => this.#end(claimer), waitMs);
      claimer.resolve = (answer) => {
        clearTimeout(timer);
        resolve(answer);
      };
      this.#serve(queue, line);
    });
  }

  /** The time is up. What it may be given in the next turn is still its own. */
  #end(claimer: Claimer): void {
    claimer.isDue = true;
    if (!claimer.isAsking) this.leave(claimer, nothing);
  }

  /** Takes a claimer out of its line. */
  leave(claimer: Claimer, answer: Answer<JsonReply>): void {
    if (claimer.isOver) return;
    claimer.isOver = true;
    const { queue } = claimer.request;
    const line = this.#lines.get(queue);
    if (line?.delete(claimer) === true) this.#waiting--;
    if (line?.size === 0) this.#lines.delete(queue);
    claimer.resolve(answer);
  }

  #serve(queue: string, line: ReadonlySet<Claimer>): void {
    let ready = readyIn(this.#turns.state, queue);
    for (const claimer of line) {
      if (ready <= 0) return;
      ready -= claimer.request.max;
      if (claimer.isAsking) claimer.hasMissed = true;
      else void this.#try(claimer);
    }
  }

  /** Whoever comes away with nothing keeps its place until something changes: what is ready may be out of reach. */
  async #try(claimer: Claimer): Promise<void> {
    claimer.isAsking = true;
    do {
      claimer.hasMissed = false;
      const answer = await this.#ask(claimer.request);
      if (!isNothing(answer) || claimer.isDue) this.leave(claimer, answer);
    } while (claimer.hasMissed && !claimer.isOver);
    claimer.isAsking = false;
  }

  #ask({ queue, max, leaseMs, idempotency, bearer }: ClaimRequest): Promise<Answer<JsonReply>> {
    const inputs: string[] = [];
    let chars = 0;
    const fits = (task: number): boolean => {
      const { offer, position } = this.#turns.state.tasks;
      const input = JSON.stringify(this.#store.calls.work(offer[task]!, position[task]!)?.input ?? null);
      chars += input.length;
      if (inputs.length > 0 && chars > CLAIM_CHARS_MAX) return false;
      inputs.push(input);
      return true;
    };
    return this.#turns.run({
      command: { kind: "claim", queue, max, leaseMs, fits },
      idempotency,
      bearer,
      isKept: ({ grant }) => grant!.tasks.length > 0,
      render: ({ grant }) => claimsJson(this.#turns.state, grant!, inputs),
    });
  }

  async settle({ settlements, spawnedJson, idempotency, bearer }: SettleClaimsRequest): Promise<Answer<JsonReply>> {
    const stored = this.#turns.stored(idempotency);
    if (stored !== null) return stored;
    const body = new TextEncoder().encode(spawnedJson === "" ? "[]" : spawnedJson);
    const values = parseOffer(body, "array");
    if (!values.ok) return values;
    await this.#directory.refreshFor(this.#turns.state, entryNames(values.value));
    await this.#budget.prepareTasks(values.value.length);
    return this.#turns.run({
      command: {
        kind: "settle-claims",
        settlements: settlementsOf(settlements),
        spawn: await prepare(values.value),
        seed: randomSeed(),
      },
      offer: { format: "array", body, specs: values.value },
      idempotency,
      bearer,
      render: ({ standings }) => settledJson(settlements, standings!),
    });
  }

  async heartbeat({ claims, leaseMs, bearer }: HeartbeatRequest): Promise<Answer<string>> {
    const pairs = claims.map(({ task, attempt }) => [task, attempt] as const);
    const render = ({ standings }: { standings?: readonly Standing[] }): string => {
      const { dueAtMs } = this.#turns.state.tasks;
      const lines = standings!.map(({ task, attempt, status }, i) => ({
        taskId: claims[i]!.taskId,
        attempt,
        status,
        ...(status === "held" && { leaseExpiresAt: timestamp(dueAtMs[task]!) }),
      }));
      return JSON.stringify({ claims: lines });
    };
    const reply = await this.#turns.run({ command: { kind: "extend-claims", claims: pairs, leaseMs }, bearer, render });
    return reply.ok ? ok(reply.value.json) : reply;
  }
}

/** One who waits. The runtime disposes of it when its caller lets go or is gone, in some versions not before it was served. */
class ClaimPlace extends RpcTarget implements ClaimPlaceRpc {
  readonly #desk: ClaimDesk;
  readonly #claimer: Claimer;

  constructor(desk: ClaimDesk, claimer: Claimer) {
    super();
    this.#desk = desk;
    this.#claimer = claimer;
  }

  claimed(): Promise<Answer<JsonReply>> {
    return this.#desk.wait(this.#claimer);
  }

  async leave(): Promise<void> {
    this[Symbol.dispose]();
  }

  [Symbol.dispose](): void {
    this.#desk.leave(this.#claimer, nothing);
  }
}

/** Tasks that could be claimed now. When the goal has ended everybody is told. */
function readyIn(state: GoalState, queue: string): number {
  const { goal, upstreams } = state;
  if (goal?.phase !== "active") return Number.POSITIVE_INFINITY;
  const number = upstreamNamed(state, workQueueName(queue));
  return number < 0 || isPaused(state) || !canStart(state, upstreams[number]!) ? 0 : upstreams[number]!.queued;
}

const timestamp = (ms: number): string => new Date(ms).toISOString();

/** The locks that the task holds, where it has any: a store can refuse a fence that is too late. */
function locksJson(state: GoalState, task: number): string {
  const fences = fencesByName(state, task);
  return fences.size === 0 ? "" : `"locks":${JSON.stringify([...fences].map(([name, fence]) => ({ name, fence })))},`;
}

function claimsJson(state: GoalState, { tasks, fence, untilMs }: Grant, inputs: readonly string[]): string {
  const goalId = state.goal!.id;
  const tail = `"leaseExpiresAt":"${timestamp(untilMs)}","fence":${fence}}`;
  const claims = tasks.map((task, i) => {
    const head = `{"taskId":"${taskIdOf(goalId, task)}","attempt":${state.tasks.attempt[task]!},"input":${inputs[i]!}`;
    return `${head},${locksJson(state, task)}${tail}`;
  });
  return `{"claims":[${claims.join(",")}]}`;
}

/** What the core takes: the settlements that are ones. */
function settlementsOf(settlements: readonly ClaimSettlement[]): Settlement[] {
  let spawned = 0;
  return settlements.flatMap((one) => {
    if ("fault" in one) return [];
    const { task, attempt, problem, payload, usage, spawns } = one;
    const from = spawned;
    spawned += spawns;
    return [{ task, attempt, problem, payload, usage, spawn: [from, spawned] as const }];
  });
}

function settledJson(settlements: readonly ClaimSettlement[], standings: readonly Standing[]): string {
  let next = 0;
  const lines = settlements.map((one) => {
    const { taskId } = one;
    const { status, problem } = "fault" in one ? ({ status: "rejected", problem: one.fault } as const) : standings[next++]!;
    return { taskId, status, ...(problem !== undefined && { problem: problemOf({ ...problem, taskId }) }) };
  });
  return JSON.stringify({ settlements: lines });
}
