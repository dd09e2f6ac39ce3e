/**
 * The object of one tenant: the registry of upstreams and functions, and the
 * directory of goals. No method awaits, so each is one atomic turn: rows are written first,
 * memory follows, and a write that throws leaves memory as it was.
 */
import { DurableObject } from "cloudflare:workers";
import { retryable } from "cloudflare:durable-objects";
import { failure } from "../../shared/errors.ts";
import { FUNCTIONS_MAX, UPSTREAMS_MAX } from "../../shared/limits.ts";
import { type Bounds, type FundRequest } from "../../shared/policy/account.ts";
import type { AccountView } from "../../shared/protocol/budget.ts";
import { type Latencies, latencyView, type LatencyView, newLatencies, noteLatencies } from "../../shared/policy/latencies.ts";
import type { FunctionVersion, RunTimes } from "../../shared/protocol/function.ts";
import type { Counts } from "../../shared/protocol/goal.ts";
import type { Policy } from "../../shared/policy/rules.ts";
import type { Upstream } from "../../shared/protocol/upstream.ts";
import { err, ok } from "../../shared/result.ts";
import type { Answer, GoalReport, GoalRpc, GoalsQuery, IdempotencyKey, Registry, TenantRpc } from "../../shared/rpc.ts";
import type { FunctionRegistryRpc } from "../../shared/rpc-functions.ts";
import { effectOf, isRunning } from "./core/directory.ts";
import { canonicalUpstream } from "./core/registry.ts";
import { Treasury } from "./core/treasury.ts";
import { TenantStore } from "./store.ts";

/** Running goals beyond this show the counts of their last durable report. */
const LIVE_COUNTS_MAX = 10_000;

const unknownUpstream = (name: string) => failure("not_found", `there is no upstream "${name}"; PUT /v1/upstreams/${name} makes one`);

const unknownFunction = (name: string) => failure("not_found", `there is no function "${name}"; PUT /v1/functions/${name} makes one`);

export class Tenant extends DurableObject<Env> implements TenantRpc, FunctionRegistryRpc {
  readonly #store: TenantStore;
  readonly #treasury: Treasury;
  /** Null until read, and again after each change. */
  #registry: Registry | null = null;
  #tokenEpoch: number | null = null;
  /** Running counts by goal, oldest first; lost with the object, and reported again. */
  readonly #liveCounts = new Map<string, Counts>();
  /** How long runs took, by function; lost with the object, as a governor's are. */
  readonly #runTimes = new Map<string, Latencies>();

  static {
    // A repeated DELETE would answer `not_found` for its own success, so it is not marked.
    retryable(this.prototype.putFunction, this.prototype.hasVersion);
    retryable(this.prototype.putUpstream, this.prototype.claimGoalId, this.prototype.report, this.prototype.forget);
    retryable(this.prototype.putPolicy, this.prototype.revokeTokens);
    retryable(this.prototype.fund, this.prototype.unfund, this.prototype.putBudget);
  }

  constructor(ctx: DurableObjectState, env: Env) {
    super(ctx, env);
    this.#store = new TenantStore(ctx.storage);
    this.#treasury = new Treasury(this.#store);
  }

  async putUpstream(upstream: Upstream): Promise<Answer<{ created: boolean }>> {
    const { version, upstreams } = this.#current();
    const known = upstreams.find(({ name }) => name === upstream.name);
    if (known === undefined && upstreams.length >= UPSTREAMS_MAX) {
      return err(failure("quota_exceeded", `there are ${UPSTREAMS_MAX} upstreams, which is the most; delete one first`));
    }
    const spec = canonicalUpstream(upstream);
    if (known !== undefined && canonicalUpstream(known) === spec) return ok({ created: false });
    this.#store.putUpstream(upstream.name, spec, version + 1);
    this.#registry = null;
    return ok({ created: known === undefined });
  }

  async getUpstream(name: string): Promise<Answer<Upstream>> {
    const upstream = this.#current().upstreams.find((one) => one.name === name);
    return upstream === undefined ? err(unknownUpstream(name)) : ok(upstream);
  }

  async fund(goalId: string, request: FundRequest): Promise<Bounds> {
    const known = this.#store.goal(goalId);
    return this.#treasury.fund(goalId, request, known === null || isRunning(known));
  }

  async unfund(goalId: string): Promise<void> {
    if (this.#store.goal(goalId) === null) this.#treasury.unfund(goalId);
  }

  /** Goals that wait for funds ask again when they hear that there may be some. */
  #tellWaiting(): void {
    for (const goalId of this.#treasury.takeWaiting()) {
      const goal = this.env.GOAL.get(this.env.GOAL.idFromName(goalId)) as unknown as Pick<GoalRpc, "moreFunds">;
      this.ctx.waitUntil(goal.moreFunds().catch((error: unknown) => console.warn(`${goalId} was not told of funds: ${String(error)}`)));
    }
  }

  async budget(): Promise<Answer<AccountView>> {
    return ok(this.#treasury.view());
  }

  async putBudget(limit: Bounds): Promise<Answer<AccountView>> {
    const set = this.#treasury.setLimit(limit, this.#current().version + 1);
    if (!set.ok) return set;
    this.#registry = null;
    this.#tellWaiting();
    return ok(this.#treasury.view());
  }

  async listUpstreams(): Promise<Answer<readonly Upstream[]>> {
    return ok(this.#current().upstreams);
  }

  async deleteUpstream(name: string): Promise<Answer<null>> {
    const { version, upstreams } = this.#current();
    if (!upstreams.some((one) => one.name === name)) return err(unknownUpstream(name));
    this.#store.deleteUpstream(name, version + 1);
    this.#registry = null;
    return ok(null);
  }

  async putFunction(made: FunctionVersion): Promise<Answer<{ created: boolean; function: FunctionVersion; replaced: string | null }>> {
    const { version, functions = [] } = this.#current();
    const known = functions.find(({ name }) => name === made.name);
    if (known === undefined && functions.length >= FUNCTIONS_MAX) {
      return err(failure("quota_exceeded", `there are ${FUNCTIONS_MAX} functions, which is the most; delete one first`));
    }
    if (known?.version === made.version) return ok({ created: false, function: known, replaced: null });
    this.#store.putFunction(made, version + 1);
    this.#registry = null;
    // How long another version took says nothing of this one.
    this.#runTimes.delete(made.name);
    return ok({ created: true, function: made, replaced: this.#unused(known) });
  }

  async getFunction(name: string): Promise<Answer<FunctionVersion>> {
    const known = this.#current().functions?.find((one) => one.name === name);
    return known === undefined ? err(unknownFunction(name)) : ok(known);
  }

  async functionLive(name: string): Promise<LatencyView> {
    return latencyView(this.#runTimes.get(name) ?? newLatencies());
  }

  async listFunctions(): Promise<Answer<readonly FunctionVersion[]>> {
    return ok(this.#current().functions ?? []);
  }

  async deleteFunction(name: string): Promise<Answer<{ replaced: string | null }>> {
    const { version, functions = [] } = this.#current();
    const known = functions.find((one) => one.name === name);
    if (known === undefined) return err(unknownFunction(name));
    this.#store.deleteFunction(name, version + 1);
    this.#registry = null;
    this.#runTimes.delete(name);
    return ok({ replaced: this.#unused(known) });
  }

  async hasVersion(version: string): Promise<boolean> {
    return this.#has(version);
  }

  #has(version: string): boolean {
    return this.#current().functions?.some((one) => one.version === version) ?? false;
  }

  #unused(before: FunctionVersion | undefined): string | null {
    return before === undefined || this.#has(before.version) ? null : before.version;
  }

  async registry(): Promise<Registry> {
    return this.#current();
  }

  async putPolicy(policy: Policy | null): Promise<void> {
    const { version, policy: known = null } = this.#current();
    if (JSON.stringify(policy) === JSON.stringify(known)) return;
    this.#store.putPolicy(policy, version + 1);
    this.#registry = null;
  }

  async tokenEpoch(): Promise<number> {
    this.#tokenEpoch ??= this.#store.tokenEpoch();
    return this.#tokenEpoch;
  }

  async revokeTokens(epoch: number): Promise<number> {
    const next = Math.max(this.#store.tokenEpoch(), epoch + 1);
    this.#store.setTokenEpoch(next);
    this.#tokenEpoch = next;
    return next;
  }

  async claimGoalId(idempotency: IdempotencyKey, proposedGoalId: string): Promise<Answer<{ goalId: string }>> {
    const claimed = this.#store.claimGoalId(idempotency, proposedGoalId);
    return claimed.ok ? ok({ goalId: claimed.value }) : claimed;
  }

  async report(report: GoalReport, knownVersion: number): Promise<Registry | null> {
    const effect = effectOf(this.#store.goal(report.goalId), report);
    if (effect === "durable") this.#store.putGoal(report);
    this.#noteRuns(report.runTimes ?? []);
    if (effect !== "ignored") {
      this.#keepCounts(report);
      if (report.spent !== undefined) this.#treasury.take(report.goalId, report.spent, report.isFinal === true);
      if (report.isFinal === true) this.#tellWaiting();
    }
    const registry = this.#current();
    return registry.version > knownVersion ? registry : null;
  }

  async forget(goalId: string): Promise<void> {
    this.#store.forgetGoal(goalId);
    this.#liveCounts.delete(goalId);
  }

  async listGoals(query: GoalsQuery): Promise<Answer<{ items: readonly GoalReport[]; nextCursor: string | null }>> {
    const rows = this.#store.goals(query);
    const items = rows.slice(0, query.limit).map((row) => ({ ...row, counts: this.#liveCounts.get(row.goalId) ?? row.counts }));
    return ok({ items, nextCursor: rows.length > query.limit ? items.at(-1)!.goalId : null });
  }

  #current(): Registry {
    if (this.#registry === null) {
      const bounded = this.#treasury.bounded();
      const registry = this.#store.registry();
      this.#registry = bounded === undefined ? registry : { ...registry, bounded };
    }
    return this.#registry;
  }

  #noteRuns(runTimes: readonly RunTimes[]): void {
    const { functions = [] } = this.#current();
    for (const { function: name, latencies } of runTimes) {
      if (!functions.some((one) => one.name === name)) continue;
      const kept = this.#runTimes.get(name) ?? newLatencies();
      this.#runTimes.set(name, kept);
      noteLatencies(kept, latencies);
    }
  }

  #keepCounts(report: GoalReport): void {
    this.#liveCounts.delete(report.goalId);
    if (!isRunning(report)) return;
    this.#liveCounts.set(report.goalId, report.counts);
    if (this.#liveCounts.size <= LIVE_COUNTS_MAX) return;
    const [oldest] = this.#liveCounts.keys();
    this.#liveCounts.delete(oldest!);
  }
}
