/**
 * Drives the goal's core in tests: a clock that is told the time, an executor
 * that answers as it is told, a governor that is generous unless a test says
 * otherwise, and a journal that can be replayed at any point.
 */
import { admissionOf } from "../../durable-objects/goal/core/admission.ts";
import { apply } from "../../durable-objects/goal/core/apply.ts";
import type { Change } from "../../durable-objects/goal/core/change.ts";
import { STATUS_WORDS } from "../../durable-objects/goal/core/codes.ts";
import type { Out, Send } from "../../durable-objects/goal/core/recorder.ts";
import { toSnapshot } from "../../durable-objects/goal/core/snapshot.ts";
import { type GoalState, newState } from "../../durable-objects/goal/core/state.ts";
import { type Command, type Reply, step } from "../../durable-objects/goal/core/step.ts";
import { type GoalId, goalIdFrom } from "../../shared/ids.ts";
import { LANES_DEFAULT } from "../../shared/limits.ts";
import type { Amounts, FundRequest } from "../../shared/policy/account.ts";
import type { Lease } from "../../shared/policy/lease.ts";
import type { Grant, Report } from "../../shared/protocol/admission.ts";
import type { FunctionVersion } from "../../shared/protocol/function.ts";
import type { GoalSpec } from "../../shared/protocol/goal.ts";
import type { SubgoalOrder, SubgoalReport } from "../../shared/protocol/subgoal.ts";
import { type Beaten, formatLine, type Outcome } from "../../shared/protocol/line.ts";
import type { CompletionRule, TaskSpec } from "../../shared/protocol/task.ts";
import type { Upstream } from "../../shared/protocol/upstream.ts";
import type { Bearer } from "../../shared/token/claims.ts";

export const START_MS = 1_800_000_000_000;
export const LIFE = "0123456789abcdef";
/** A lease from the beginning of time to long after any test. */
export const FOREVER_MS = START_MS * 10;
export const GOAL_ID = goalIdFrom(START_MS, new Uint8Array(16));

export const upstream = (over: Partial<Upstream> = {}): Upstream => ({
  name: "api",
  origins: ["http://localhost:1"],
  maxConcurrency: null,
  ratePerSecond: null,
  tokensPerMinute: null,
  reserve: { tokens: 0 },
  usage: { tokens: null },
  timeoutMs: 30_000,
  idempotency: "none",
  retry: { maxAttempts: 5 },
  headers: {},
  ...over,
});

export const get = (over: Partial<TaskSpec> = {}): TaskSpec => ({ call: { upstream: "api", method: "GET", path: "/" }, ...over });
export const post = (over: Partial<TaskSpec> = {}): TaskSpec => ({ call: { upstream: "api", method: "POST", path: "/" }, ...over });
export const run = (over: Partial<TaskSpec> = {}, name = "summarize"): TaskSpec => ({ run: { function: name, input: 1 }, ...over });
export const version = (over: Partial<FunctionVersion> = {}): FunctionVersion => ({
  name: "summarize",
  version: "a".repeat(64),
  engine: "snapshot",
  limits: { cpuMs: 100, memoryBytes: 1_000_000 },
  bundleBytes: 1,
  snapshotBytes: 1,
  initMs: 1,
  createdAtMs: START_MS,
  ...over,
});
export const group = (over: Partial<TaskSpec> = {}): TaskSpec => ({ group: {}, ...over });

export interface Answer {
  readonly outcome?: Outcome;
  readonly status?: number;
  readonly retryAfterMs?: number;
  readonly attempt?: number;
  readonly ms?: number;
  /** What a run's calls used. */
  readonly calls?: number;
  readonly tokens?: number;
  /** What they used of what its task had set aside. */
  readonly drawn?: Amounts | undefined;
  /** The other try of the attempt, where there were two. */
  readonly beaten?: Beaten;
}

/** What a governor may say; what is left out is as a generous one says it. */
export type Permits = Partial<Grant>;

interface Options {
  readonly spec?: Partial<GoalSpec>;
  readonly upstreams?: readonly Upstream[];
  readonly functions?: readonly FunctionVersion[];
  readonly tasks?: readonly TaskSpec[];
  readonly rule?: CompletionRule;
  /** Left out: every upstream takes what it declares, for ever. */
  readonly governor?: "generous" | "by hand";
  readonly id?: GoalId;
  /** Nothing is there yet: the goal above will make it. */
  readonly isUnborn?: boolean;
}

export class Driver {
  nowMs = START_MS;
  state: GoalState = { ...newState(), life: LIFE };
  readonly journal: Change[] = [];
  readonly offers = new Map<number, readonly unknown[]>();
  sends: Send[] = [];
  /** Every report to a governor, in order. */
  readonly reports: Report[] = [];
  /** Ends of waits for locks by callers from outside. */
  readonly lines: Out["lines"] = [];
  readonly lockMessages: Out["lockMessages"] = [];
  readonly flightMessages: Out["flightMessages"] = [];
  readonly #isGenerous: boolean;
  #granted = 0;
  aborts: Out["aborts"] = [];
  /** Functions whose executors may get ready. */
  readonly warms: Out["warms"] = [];
  destroyed = false;
  /** The latest question to the account above. */
  asked: FundRequest | undefined;
  /** What goals have to tell one another since this was last emptied. */
  orders: SubgoalOrder[] = [];
  reported: SubgoalReport[] = [];
  #row = 1;
  readonly #replica = newState();
  #replicated = 0;

  constructor(options: Options = {}) {
    this.#isGenerous = options.governor !== "by hand";
    const spec: GoalSpec = {
      name: "",
      labels: {},
      deadlineMs: null,
      retentionMs: 1_000,
      completion: options.rule ?? {},
      sealed: false,
      weight: 1,
      ...options.spec,
    };
    const registry = { version: 1, upstreams: options.upstreams ?? [upstream()], functions: options.functions ?? [] };
    const specs = options.tasks ?? [];
    if (options.isUnborn === true) return;
    this.do({ kind: "create", id: options.id ?? GOAL_ID, spec, registry, tasks: { specs, failures: new Map(), contentKeys: new Map() } });
  }

  do(command: Command, bearer?: Bearer): Reply {
    const offer = this.state.nextOffer;
    const row = this.#row++;
    let index = 0;
    const out: Out = {
      changes: [],
      sends: [],
      aborts: [],
      reports: [],
      orders: [],
      report: null,
      keep: () => ({ row, index: index++ }),
      callOf: (number, place) => (this.offers.get(number)![place] as TaskSpec).call,
      values: [],
      lines: [],
      lockMessages: [],
      flightMessages: [],
      warms: [],
      destroy: false,
    };
    const reply = step(this.state, this.nowMs, command, out, bearer);
    // As on disk: what is written is text, and shares nothing with memory.
    this.journal.push(...(JSON.parse(JSON.stringify(out.changes)) as Change[]));
    if (this.state.nextOffer > offer) this.offers.set(offer, specsOf(command));
    this.sends.push(...out.sends);
    this.aborts.push(...out.aborts);
    this.warms.push(...out.warms);
    this.reports.push(...out.reports);
    this.asked = out.funds ?? this.asked;
    this.lines.push(...out.lines);
    this.lockMessages.push(...out.lockMessages);
    this.flightMessages.push(...out.flightMessages);
    this.destroyed ||= out.destroy;
    this.orders.push(...out.orders);
    if (out.report !== null) this.reported.push(out.report);
    return reply;
  }

  submit(specs: readonly TaskSpec[], atomic = false): Reply {
    return this.do({ kind: "submit", specs, failures: new Map(), contentKeys: new Map(), atomic });
  }

  /** Sends what may run; answers with the batches. */
  dispatch(seed = 7): Send[] {
    this.sends = [];
    if (this.#isGenerous) for (const { name, config } of this.state.upstreams) if (config !== null) this.grant({}, name);
    this.do({ kind: "dispatch", seed });
    return this.sends;
  }

  lease(name = "api"): Lease {
    return admissionOf(this.state, this.state.upstreamNumbers.get(name)!).lease;
  }

  /** A governor's answer to the latest report, or its push after it. It replaces what was granted before. */
  grant(permits: Permits = {}, name = "api"): Grant {
    const { config } = this.state.upstreams[this.state.upstreamNumbers.get(name)!]!;
    const grant: Grant = {
      epoch: 1,
      number: ++this.#granted,
      seq: this.lease(name).seq,
      calls: config?.maxConcurrency ?? LANES_DEFAULT,
      starts: null,
      ttlMs: FOREVER_MS,
      gateMs: 0,
      isOpen: false,
      origins: null,
      callsPerSecond: 0,
      ...permits,
    };
    this.take(grant, name);
    return grant;
  }

  /** Takes a grant as it is. */
  take(grant: Grant, name = "api"): void {
    this.do({ kind: "grant", upstream: name, life: this.state.life, grant });
  }

  /** The upstream is down: `probes` calls may be made to see whether it is back. */
  openCircuit(probes = 0, name = "api"): void {
    this.grant({ isOpen: true, calls: probes, starts: probes }, name);
  }

  closeCircuit(permits: Permits = {}, name = "api"): void {
    this.grant({ ...permits, isOpen: false }, name);
  }

  line(task: number, answer: Answer = {}): string {
    const {
      outcome = "answered",
      status = 200,
      retryAfterMs = 0,
      attempt = this.state.tasks.attempt[task]!,
      ms = 300,
      calls,
      tokens,
      drawn,
      beaten,
    } = answer;
    const head = { task, attempt, outcome, status, retryAfterMs, startedAtMs: this.nowMs - ms, endedAtMs: this.nowMs };
    const used = { ...(calls !== undefined && { calls }), ...(tokens !== undefined && { tokens }), drawn, beaten };
    return formatLine({ ...head, ...used }, `{"status":${status},"body":null}`);
  }

  settle(tasks: readonly number[], answer: Answer = {}): Reply {
    return this.do({ kind: "settle", lines: tasks.map((task) => this.line(task, answer)), seed: 7 });
  }

  /** Runs until nothing is queued or running, every call answered alike. */
  runAll(answer: Answer = {}): void {
    for (let sends = this.dispatch(); sends.length > 0; sends = this.dispatch()) {
      this.nowMs += 10;
      for (const { tasks } of sends) this.settle(tasks, answer);
    }
  }

  passMs(ms: number): void {
    this.nowMs += ms;
    this.do({ kind: "tick" });
  }

  specOf(task: number): TaskSpec {
    const { offer, position } = this.state.tasks;
    return this.offers.get(offer[task]!)![position[task]!] as TaskSpec;
  }

  status(task: number): string {
    return STATUS_WORDS[this.state.tasks.status[task]!]!;
  }

  statuses(): string[] {
    return Array.from({ length: this.state.tasks.n }, (_, task) => this.status(task));
  }

  /** What a new incarnation would load. */
  replayed(): GoalState {
    const state = newState();
    this.#replay(state, 0);
    return state;
  }

  /** The same, kept up as the journal grows, which is cheap to compare with again and again; nobody may change it. */
  get replica(): GoalState {
    this.#replay(this.#replica, this.#replicated);
    this.#replicated = this.journal.length;
    return this.#replica;
  }

  /** Applies copies: a state takes over what is in a change. */
  #replay(state: GoalState, from: number): void {
    for (const change of structuredClone(this.journal.slice(from))) apply(state, change, (offer) => this.offers.get(offer)!);
  }
}

function specsOf(command: Command): readonly unknown[] {
  if (command.kind === "obey") return command.birth!.tasks.specs;
  if (command.kind === "create") return command.tasks.specs;
  if (command.kind === "settle-claims") return command.spawn.specs;
  return (command as { specs?: readonly TaskSpec[] }).specs!;
}

/** Everything that must survive, as one comparable value. */
export function durable(state: GoalState): unknown {
  const { meta, columns } = toSnapshot(state);
  return JSON.parse(
    JSON.stringify({ meta, columns: Object.fromEntries(Object.entries(columns).map(([name, column]) => [name, [...column]])) }),
  );
}
