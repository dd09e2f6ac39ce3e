/**
 * Whether a call that is passed through may be made: by the tenant's policy, by
 * that of its goal, and while the token for that goal is not revoked. What the
 * token itself allows the edge has asked already.
 */
import { type Failure, failure } from "../../shared/errors.ts";
import { type Policy, type Rules, rulesOf } from "../../shared/policy/rules.ts";
import type { CallAsked } from "../../shared/rpc-flight.ts";
import type { GoalStanding, RegistryCopy } from "./registry.ts";

const NONE: readonly Policy[] = [];

export class Permissions {
  readonly #registry: RegistryCopy;
  /** The last check that was compiled, and what of. */
  #compiled: { readonly tenant: Policy | null; readonly goal: readonly Policy[]; readonly rules: Rules | null } | null = null;

  constructor(registry: RegistryCopy) {
    this.#registry = registry;
  }

  async refusal({ upstream, method, path, bearer }: CallAsked, goal: GoalStanding | null): Promise<Failure | null> {
    if (goal !== null && bearer?.epoch !== undefined && bearer.epoch !== goal.epoch) {
      return failure("unauthorized", 'the tokens of this goal were revoked (caveat "goal")');
    }
    const { policy = null } = this.#registry.fresh ?? (await this.#registry.get());
    const verdict = this.#rules(policy, goal?.policies ?? NONE)?.call(upstream, method, path) ?? "allowed";
    if (verdict === "allowed") return null;
    if (verdict !== "needs approval") return failure("permission_denied", verdict.detail);
    const detail = `${method} ${path.slice(0, 128)} at "${upstream}" needs approval (rule "requireApproval"); submit it as a task, which can wait for that`;
    return failure("permission_denied", detail);
  }

  #rules(tenant: Policy | null, goal: readonly Policy[]): Rules | null {
    if (this.#compiled?.tenant !== tenant || this.#compiled.goal !== goal) {
      const origins = [
        { from: "the tenant's policy", policies: tenant === null ? NONE : [tenant] },
        { from: "the goal's policy", policies: goal },
      ];
      this.#compiled = { tenant, goal, rules: rulesOf(origins) };
    }
    return this.#compiled.rules;
  }
}
