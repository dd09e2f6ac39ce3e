/**
 * The goal's dealings with its tenant: where the upstreams come from, and who
 * is told how the goal stands. One exchange serves both, at most every two
 * seconds while there is work, and at the end until it is acknowledged.
 */
import { REGISTRY_AGE_MS_MAX } from "../../shared/limits.ts";
import type { Registry, TenantRpc } from "../../shared/rpc.ts";
import { type GoalState, liveCount, upstreamNamed } from "./core/state.ts";
import type { Command } from "./core/step.ts";
import { goalReport } from "./views.ts";

export class Directory {
  readonly #tenant: TenantRpc;
  readonly #run: (command: Command) => Promise<unknown>;
  #askedAtMs = 0;
  #isAsking = false;

  constructor(tenant: TenantRpc, run: (command: Command) => Promise<unknown>) {
    this.#tenant = tenant;
    this.#run = run;
  }

  registry(): Promise<Registry> {
    return this.#tenant.registry();
  }

  /** Tells the tenant how the goal stands, and takes a newer registry if there is one. */
  async report(state: GoalState): Promise<void> {
    this.#askedAtMs = Date.now();
    const report = goalReport(state);
    const registry = await this.#tenant.report(report, state.registryVersion);
    if (registry !== null) await this.#run({ kind: "upstreams", ...registry });
    if (report.endedAtMs !== null) await this.#run({ kind: "end-reported" });
  }

  /** After each turn: reports in the background when it is time. A failed report is made again by the watchdog. */
  follow(state: GoalState): void {
    const { goal } = state;
    if (goal === null || goal.endReported || this.#isAsking) return;
    const isOver = goal.phase !== "active";
    const isDue = liveCount(state.counts) > 0 && Date.now() - this.#askedAtMs >= REGISTRY_AGE_MS_MAX;
    if (!isOver && !isDue) return;
    this.#isAsking = true;
    this.report(state)
      .catch((error: unknown) => console.warn(`the tenant took no report of ${goal.id}: ${String(error)}`))
      .finally(() => (this.#isAsking = false));
  }

  /** A task for an upstream that the goal has not heard of is worth a question. */
  async refreshFor(state: GoalState, names: ReadonlySet<string>): Promise<void> {
    const isUnknown = [...names].some((name) => {
      const number = upstreamNamed(state, name);
      return number < 0 || state.upstreams[number]!.config === null;
    });
    if (isUnknown) await this.report(state);
  }
}
