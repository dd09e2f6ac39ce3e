/** What a gate knows of upstreams and of its goal: copies that are at most two seconds old while they are used. */
import { type Failure, failure } from "../../shared/errors.ts";
import { REGISTRY_AGE_MS_MAX } from "../../shared/limits.ts";
import type { Upstream } from "../../shared/protocol/upstream.ts";
import type { Policy } from "../../shared/policy/rules.ts";
import type { GoalStatus } from "../../shared/protocol/goal.ts";
import type { TabRpc } from "../../shared/rpc-functions.ts";
import type { GoalRpc, Registry, TenantRpc } from "../../shared/rpc.ts";

/** A value that is asked for again when it is too old, by one question at a time. */
class Copy<T> {
  readonly #ask: () => Promise<T>;
  #value: T | null = null;
  #askedAtMs = Number.NEGATIVE_INFINITY;
  #asking: Promise<T> | null = null;

  constructor(ask: () => Promise<T>) {
    this.#ask = ask;
  }

  /** Null where it must be asked for. */
  get fresh(): T | null {
    return Date.now() - this.#askedAtMs < REGISTRY_AGE_MS_MAX ? this.#value : null;
  }

  async get(): Promise<T> {
    return this.fresh ?? (await this.refresh());
  }

  async refresh(): Promise<T> {
    this.#asking ??= this.#renew().finally(() => (this.#asking = null));
    return this.#asking;
  }

  async #renew(): Promise<T> {
    const askedAtMs = Date.now();
    this.#value = await this.#ask();
    this.#askedAtMs = askedAtMs;
    return this.#value;
  }
}

export function registryCopy(env: Env): Copy<Registry> {
  // A stub that has failed once fails for good, so each question has one of its own.
  return new Copy(() => (env.TENANT.get(env.TENANT.idFromName("default")) as unknown as TenantRpc).registry());
}

/** What a gate knows of its goal. */
export interface GoalStanding {
  /** Why its calls cannot be made; null where they can. */
  readonly failure: Failure | null;
  readonly epoch: number;
  readonly policies: readonly Policy[];
}

export const goalStub = (env: Env, goalId: string): Pick<GoalRpc & TabRpc, "view" | "reserve" | "settleReservation" | "tab"> =>
  env.GOAL.get(env.GOAL.idFromName(goalId));

export function goalCopy(env: Env, goalId: string): Copy<GoalStanding> {
  return new Copy(async () => {
    const view = await goalStub(env, goalId).view();
    if (!view.ok) return { failure: view.error, epoch: 0, policies: [] };
    const { status, epoch, policies, budget } = view.value;
    // One that rests for want of budget says so when the call is to be paid for; the call may be cheaper than what waits.
    return { failure: budget.exhausted === true ? null : statusFailure(goalId, status), epoch, policies };
  });
}

function statusFailure(goalId: string, status: GoalStatus): Failure | null {
  if (status === "active") return null;
  if (status === "paused") return failure("conflict", `the goal ${goalId} is paused; resume it first`, { goalId });
  return failure("goal_ended", `the goal ${goalId} is ${status}`, { goalId });
}

/** The upstream that it is. One that is not in the copy may be new. */
export async function upstreamIn(
  registry: RegistryCopy,
  isIt: (upstream: Upstream) => boolean,
): Promise<{ readonly upstream: Upstream; readonly version: number } | null> {
  for (const isSecond of [false, true]) {
    const { upstreams, version } = await (isSecond ? registry.refresh() : registry.get());
    const upstream = upstreams.find(isIt);
    if (upstream !== undefined) return { upstream, version };
  }
  return null;
}

export const unknownUpstream = (name: string): Failure =>
  failure("not_found", `there is no upstream "${name}"; PUT /v1/upstreams/${name} makes one`);

export type RegistryCopy = ReturnType<typeof registryCopy>;
export type GoalCopy = ReturnType<typeof goalCopy>;
