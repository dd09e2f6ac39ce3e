/**
 * Drives the goal's core in tests: a clock that is told the time, an executor
 * that answers as it is told, and a journal that can be replayed at any point.
 */
import { apply } from "../../durable-objects/goal/core/apply.ts";
import type { Change } from "../../durable-objects/goal/core/change.ts";
import { STATUS_WORDS } from "../../durable-objects/goal/core/codes.ts";
import type { Out, Send } from "../../durable-objects/goal/core/recorder.ts";
import { toSnapshot } from "../../durable-objects/goal/core/snapshot.ts";
import { type GoalState, newState } from "../../durable-objects/goal/core/state.ts";
import { type Command, type Reply, step } from "../../durable-objects/goal/core/step.ts";
import { goalIdFrom } from "../../shared/ids.ts";
import type { GoalSpec } from "../../shared/protocol/goal.ts";
import { formatLine, type Outcome } from "../../shared/protocol/line.ts";
import type { CompletionRule, TaskSpec } from "../../shared/protocol/task.ts";
import type { Upstream } from "../../shared/protocol/upstream.ts";

export const START_MS = 1_800_000_000_000;
export const GOAL_ID = goalIdFrom(START_MS, new Uint8Array(16));

export const upstream = (over: Partial<Upstream> = {}): Upstream => ({
  name: "api",
  origin: "http://localhost:1",
  maxConcurrency: null,
  ratePerSecond: null,
  timeoutMs: 30_000,
  idempotency: "none",
  retry: { maxAttempts: 5 },
  headers: {},
  ...over,
});

export const get = (over: Partial<TaskSpec> = {}): TaskSpec => ({ call: { upstream: "api", method: "GET", path: "/" }, ...over });
export const post = (over: Partial<TaskSpec> = {}): TaskSpec => ({ call: { upstream: "api", method: "POST", path: "/" }, ...over });
export const group = (over: Partial<TaskSpec> = {}): TaskSpec => ({ group: {}, ...over });

export interface Answer {
  readonly outcome?: Outcome;
  readonly status?: number;
  readonly retryAfterMs?: number;
  readonly attempt?: number;
  readonly ms?: number;
}

export class Driver {
  nowMs = START_MS;
  state: GoalState = newState();
  readonly journal: Change[] = [];
  readonly offers = new Map<number, readonly unknown[]>();
  sends: Send[] = [];
  aborts: Out["aborts"] = [];
  destroyed = false;
  #row = 1;

  constructor(
    options: { spec?: Partial<GoalSpec>; upstreams?: readonly Upstream[]; tasks?: readonly TaskSpec[]; rule?: CompletionRule } = {},
  ) {
    const spec: GoalSpec = {
      name: "",
      labels: {},
      deadlineMs: null,
      retentionMs: 1_000,
      completion: options.rule ?? {},
      sealed: false,
      ...options.spec,
    };
    const registry = { version: 1, upstreams: options.upstreams ?? [upstream()] };
    const specs = options.tasks ?? [];
    this.do({ kind: "create", id: GOAL_ID, spec, registry, tasks: { specs, failures: new Map(), contentKeys: new Map() } });
  }

  do(command: Command): Reply {
    const offer = this.state.nextOffer;
    const row = this.#row++;
    let index = 0;
    const out: Out = { changes: [], sends: [], aborts: [], keep: () => ({ row, index: index++ }), destroy: false };
    const reply = step(this.state, this.nowMs, command, out);
    // As on disk: what is written is text, and shares nothing with memory.
    this.journal.push(...(JSON.parse(JSON.stringify(out.changes)) as Change[]));
    if (this.state.nextOffer > offer)
      this.offers.set(offer, command.kind === "create" ? command.tasks.specs : (command as { specs?: readonly TaskSpec[] }).specs!);
    this.sends.push(...out.sends);
    this.aborts.push(...out.aborts);
    this.destroyed ||= out.destroy;
    return reply;
  }

  submit(specs: readonly TaskSpec[], atomic = false): Reply {
    return this.do({ kind: "submit", specs, failures: new Map(), contentKeys: new Map(), atomic });
  }

  /** Sends what may run; answers with the batches. */
  dispatch(): Send[] {
    this.sends = [];
    this.do({ kind: "dispatch" });
    return this.sends;
  }

  line(task: number, answer: Answer = {}): string {
    const { outcome = "answered", status = 200, retryAfterMs = 0, attempt = this.state.tasks.attempt[task]!, ms = 10 } = answer;
    const head = { task, attempt, outcome, status, retryAfterMs, startedAtMs: this.nowMs - ms, endedAtMs: this.nowMs };
    return formatLine(head, `{"status":${status},"body":null}`);
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

  status(task: number): string {
    return STATUS_WORDS[this.state.tasks.status[task]!]!;
  }

  statuses(): string[] {
    return Array.from({ length: this.state.tasks.n }, (_, task) => this.status(task));
  }

  /** What a new incarnation would load. */
  replayed(): GoalState {
    const state = newState();
    for (const change of this.journal) apply(state, change, (offer) => this.offers.get(offer)!);
    return state;
  }
}

/** Everything that must survive, as one comparable value. */
export function durable(state: GoalState): unknown {
  const { meta, columns } = toSnapshot(state);
  return JSON.parse(
    JSON.stringify({ meta, columns: Object.fromEntries(Object.entries(columns).map(([name, column]) => [name, [...column]])) }),
  );
}
