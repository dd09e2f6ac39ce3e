/**
 * Watches functions from outside: what was started, what came of it, and what
 * it cost. Reports and callers' commands are what it knows.
 */
import { CALLS, NOTHING } from "../../../shared/policy/account.ts";
import type { GoalState } from "../../../durable-objects/goal/core/state.ts";
import { RUN_WINDOW_TASKS } from "../../../shared/limits.ts";
import { RUN_AGAIN_STATUS } from "../../../shared/policy/outcome.ts";
import type { TaskStatus } from "../../../shared/protocol/goal.ts";
import { type LineHead, parseLineHead } from "../../../shared/protocol/line.ts";
import type { Model } from "../model.ts";
import type { Turn } from "../shell.ts";
import { must } from "../violation.ts";
import type { Deed } from "./executor.ts";

const BACKOFF = 3;
const CHILDREN = 1;

export class RunChecker {
  readonly #model: Model;
  /** Attempts that have begun: task and attempt. */
  readonly #begun = new Set<string>();
  /** What runs said that their calls used: charged one by one, and of what their tasks had set aside; by task. */
  readonly #told = new Map<number, number>();
  readonly #drawn = new Map<number, number>();
  /** Attempts whose end was reported in time, by task. */
  readonly #reported = new Map<number, number>();
  readonly #usedBefore = new Map<number, number>();
  /** Failures that count, by task. */
  readonly #failures = new Map<number, number>();
  /** Functions that could not afford a call, and what there was at most when they found out. */
  readonly #starving = new Map<string, number>();
  /** The least that was left of the budget since a function's latest run was sent. */
  readonly #low = new Map<string, number>();
  #functions: ReadonlySet<string> = new Set();
  #version = 0;
  #life = "";

  constructor(model: Model) {
    this.#model = model;
  }

  /** What a run did. */
  note({ kind, task, attempt }: Deed): void {
    const name = `task ${task} attempt ${attempt}`;
    must(this.#model.tasks.get(task)?.spec.run !== undefined, "only accepted runs are made", () => name);
    if (kind !== "begins") return;
    must(!this.#begun.has(name), "no attempt begins twice", () => name);
    this.#begun.add(name);
  }

  /** `sent` has each task's last attempt before this turn. */
  turn(turn: Turn, before: readonly TaskStatus[], statuses: readonly TaskStatus[], sent: ReadonlyMap<number, number>): void {
    const { state, executed } = turn;
    const isFirst = state.life !== this.#life;
    this.#life = state.life;
    for (const { command, reply } of executed) {
      if (!reply.ok) continue;
      if (command.kind === "create") this.#register(command.registry);
      if (command.kind === "upstreams") this.#register(command);
    }
    const ends = this.#ends(turn, before, sent, isFirst);
    const { limit, spent, reserved } = state.budget.account;
    const left = (limit[CALLS] ?? Number.MAX_SAFE_INTEGER) - spent[CALLS]! - reserved[CALLS]!;
    // A run that went well shows that there is something left, before the turn sends others.
    for (const { task, outcome } of ends) {
      if (outcome !== "budget_exhausted" && outcome !== "not_sent") this.#starving.delete(this.#model.tasks.get(task)!.spec.run!.function);
    }
    this.#sends(turn, left);
    for (const [name, low] of this.#low) this.#low.set(name, Math.min(low, left));
    for (const head of ends) this.#end(head, state, statuses, this.#low.get(this.#model.tasks.get(head.task)!.spec.run!.function) ?? left);
    for (const task of sent.keys()) if (this.#model.tasks.get(task)?.spec.run !== undefined) this.#usage(state, task, statuses[task]!);
  }

  /** Charged one by one, besides what its task had set aside. */
  toldOf(task: number): number {
    return this.#told.get(task) ?? 0;
  }

  /** What was set aside by an attempt whose end nobody reported may all have been used. */
  #usage({ tasks }: GoalState, task: number, status: TaskStatus): void {
    const used = tasks.usedCalls[task]!;
    this.#usedBefore.set(task, used);
    const least = this.toldOf(task) + (this.#drawn.get(task) ?? 0);
    const unheard = tasks.attempt[task]! - (status === "running" ? 1 : 0) - (this.#reported.get(task) ?? 0);
    const most = least + unheard * this.#reserveOf(task);
    must(used >= least && used <= most, "a run's task shows what its calls used", () => `task ${task}: ${used}, ${least} to ${most}`);
  }

  #register({
    version,
    functions = [],
  }: {
    readonly version: number;
    readonly functions?: readonly { readonly name: string }[] | undefined;
  }): void {
    if (version <= this.#version) return;
    this.#version = version;
    this.#functions = new Set(functions.map(({ name }) => name));
  }

  /** Reports that counted: of the current attempt of a run. A new incarnation takes back what runs first. */
  #ends({ settled }: Turn, before: readonly TaskStatus[], sent: ReadonlyMap<number, number>, isFirst: boolean): LineHead[] {
    const seen = new Set<number>();
    return settled.map(parseLineHead).filter(({ task, attempt }) => {
      const isRun = this.#model.tasks.get(task)?.spec.run !== undefined;
      if (!isRun || isFirst || before[task] !== "running" || attempt !== sent.get(task) || seen.has(task)) return false;
      seen.add(task);
      return true;
    });
  }

  #end({ task, outcome, status, calls, drawn = NOTHING }: LineHead, state: GoalState, statuses: readonly TaskStatus[], had: number): void {
    const { spec } = this.#model.tasks.get(task)!;
    const now = statuses[task]!;
    const reason = state.tasks.reason[task]!;
    const said = (): string => `task ${task} is ${now} after ${outcome} ${status}`;
    const count = (sums: Map<number, number>, amount: number): void => void sums.set(task, (sums.get(task) ?? 0) + amount);
    if (outcome === "not_sent") {
      count(this.#reported, 1);
      return must(now !== "succeeded" && now !== "failed", "what was not tried goes on", said);
    }
    // What took the task along in the same turn may have come before its report.
    const isTaken = now === "canceled" || now === "expired";
    // A run uses what was set aside first, so more than that shows that its report counted.
    if (isTaken && state.tasks.usedCalls[task]! - (this.#usedBefore.get(task) ?? 0) <= this.#reserveOf(task)) return;
    count(this.#reported, 1);
    count(this.#told, calls);
    count(this.#drawn, drawn[CALLS]!);
    if (isTaken) return;
    const name = spec.run!.function;
    if (outcome === "budget_exhausted") {
      must(now !== "failed" && now !== "succeeded", "a run that cannot afford its calls waits", said);
      this.#starving.set(name, had);
      return;
    }
    this.#starving.delete(name);
    if (outcome === "returned") {
      return must(
        now === "succeeded" || now === "failed" || (now === "waiting" && reason === CHILDREN),
        "a run that returned is over",
        said,
      );
    }
    if (status !== RUN_AGAIN_STATUS)
      return must(now !== "waiting" && now !== "queued" && now !== "running", "a final failure is final", said);
    const failures = (this.#failures.get(task) ?? 0) + 1;
    this.#failures.set(task, failures);
    const isLast = failures >= state.tasks.maxAttempts[task]!;
    if (isLast) must(now === "failed", "the last failure ends the task", said);
    else must(now !== "failed" && (now !== "waiting" || reason === BACKOFF), "a failure that may be repeated is", said);
  }

  #reserveOf(task: number): number {
    const { call, reserve } = this.#model.tasks.get(task)!.spec;
    return reserve?.calls ?? (call === undefined ? 0 : 1);
  }

  /** `left`: of the budget, after what is sent. */
  #sends({ state, sends }: Turn, left: number): void {
    const before = left + sends.flatMap(({ tasks }) => tasks).reduce((sum, task) => sum + this.#reserveOf(task), 0);
    for (const { upstream, tasks } of sends) {
      const { name: queue, running } = state.upstreams[upstream]!;
      if (!queue.startsWith("run:")) continue;
      const name = queue.slice("run:".length);
      must(this.#functions.has(name), "nothing is sent for a function that is not there", () => name);
      must(running <= RUN_WINDOW_TASKS, "the window of a function holds", () => `${running} of ${name}`);
      for (const task of tasks)
        must(this.#model.tasks.get(task)!.spec.run?.function === name, "a task runs its own function", () => `task ${task}`);
      const had = this.#starving.get(name);
      must(
        had === undefined || before > had,
        "a function without budget rests until there is more",
        () => `${before} for ${had!}: ${name}`,
      );
      const sent = sends.reduce((sum, other) => sum + (other.upstream === upstream ? other.tasks.length : 0), 0);
      if (running === sent) this.#low.set(name, left);
    }
  }
}
