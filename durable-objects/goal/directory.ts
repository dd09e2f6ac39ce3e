/**
 * The goal's dealings with its tenant: where the upstreams come from, and who
 * is told how the goal stands. One exchange serves both, at most every two
 * seconds while there is work, and at the end until it is acknowledged.
 */
import { REGISTRY_AGE_MS_MAX, WATCHDOG_MS } from "../../shared/limits.ts";
import { type Bounds, TASKS } from "../../shared/policy/account.ts";
import type { Registry, TenantRpc } from "../../shared/rpc.ts";
import { isKnown, takeTimes } from "./core/run-state.ts";
import { type GoalState, liveCount } from "./core/state.ts";
import type { Command } from "./core/step.ts";
import { goalReport } from "./views.ts";

const isOutdated = ({ counts }: GoalState, ageMs: number): boolean => liveCount(counts) > 0 && ageMs >= REGISTRY_AGE_MS_MAX;

export class Directory {
  readonly #tenant: TenantRpc;
  readonly #run: (command: Command) => Promise<unknown>;
  #askedAtMs = 0;
  /** When the tenant was last told of the end, and whether of one after which nothing changes any more. */
  #endToldAtMs = 0;
  #isFinalTold = false;
  #isAsking = false;

  constructor(tenant: TenantRpc, run: (command: Command) => Promise<unknown>) {
    this.#tenant = tenant;
    this.#run = run;
  }

  /** What a goal begins with: the registry, and grants for its first tasks where the tenant's budget bounds them. */
  async opening(goalId: string, tasks: number): Promise<{ readonly registry: Registry; readonly funds: Bounds | undefined }> {
    const registry = await this.#tenant.registry();
    if (tasks === 0 || registry.bounded?.[TASKS] !== true) return { registry, funds: undefined };
    const first = [tasks, 0, 0, 0];
    return { registry, funds: await this.#tenant.fund(goalId, { need: first, want: first }) };
  }

  /** The goal was not made after all. */
  close(goalId: string): Promise<void> {
    return this.#tenant.unfund(goalId);
  }

  /** Tells the tenant how the goal stands, and takes a newer registry if there is one. */
  async report(state: GoalState): Promise<void> {
    this.#askedAtMs = Date.now();
    const report = { ...goalReport(state), ...(state.runs.times.size > 0 && { runTimes: takeTimes(state) }) };
    const registry = await this.#tenant.report(report, state.registryVersion);
    if (registry !== null) await this.#run({ kind: "upstreams", ...registry });
    if (report.isFinal === true) await this.#run({ kind: "end-reported" });
  }

  /** After each turn: reports in the background when it is time. A failed report is made again by the watchdog. */
  follow(state: GoalState): void {
    const { goal } = state;
    if (goal === null || goal.endReported || this.#isAsking) return;
    const nowMs = Date.now();
    const isOver = goal.phase !== "active";
    // Other turns follow the end, and each of them would tell an overloaded tenant once more.
    const isNews = isOver && !this.#isFinalTold && goalReport(state).isFinal === true;
    const isDue = isOver ? isNews || nowMs - this.#endToldAtMs >= WATCHDOG_MS / 2 : isOutdated(state, nowMs - this.#askedAtMs);
    if (!isDue) return;
    if (isOver) this.#endToldAtMs = nowMs;
    this.#isFinalTold ||= isNews;
    this.#isAsking = true;
    this.report(state)
      .catch((error: unknown) => console.warn(`the tenant took no report of ${goal.id}: ${String(error)}`))
      .finally(() => (this.#isAsking = false));
  }

  /** A task for an upstream or a function that the goal has not heard of is worth a question, and so is one that comes after a long rest: its policy may have changed. */
  async refreshFor(state: GoalState, names: ReadonlySet<string>): Promise<void> {
    if ([...names].some((name) => !isKnown(state, name))) return this.report(state);
    if (Date.now() - this.#askedAtMs < REGISTRY_AGE_MS_MAX) return;
    // What is known will do where the tenant does not answer.
    await this.report(state).catch((error: unknown) => console.warn(`the tenant did not answer: ${String(error)}`));
  }
}
