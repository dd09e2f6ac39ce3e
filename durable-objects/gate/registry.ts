/** What a gate knows of upstreams and of its goal: copies that are at most two seconds old while they are used. */
import { type Failure, failure } from "../../shared/errors.ts";
import { REGISTRY_AGE_MS_MAX } from "../../shared/limits.ts";
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
  const tenant = env.TENANT.get(env.TENANT.idFromName("default")) as unknown as TenantRpc;
  return new Copy(() => tenant.registry());
}

/** Why the goal's calls cannot be made; null where they can. */
export function goalCopy(env: Env, goalId: string): Copy<{ readonly failure: Failure | null }> {
  const goal = env.GOAL.get(env.GOAL.idFromName(goalId)) as unknown as Pick<GoalRpc, "view">;
  return new Copy(async () => {
    const view = await goal.view();
    if (!view.ok) return { failure: view.error };
    const { status } = view.value;
    if (status === "active") return { failure: null };
    if (status === "paused") return { failure: failure("conflict", `the goal ${goalId} is paused; resume it first`, { goalId }) };
    return { failure: failure("goal_ended", `the goal ${goalId} is ${status}`, { goalId }) };
  });
}

export type RegistryCopy = ReturnType<typeof registryCopy>;
export type GoalCopy = ReturnType<typeof goalCopy>;
