/** Who administers: they change the tenant's policy, approve and deny tasks, revoke tokens, and give out new ones. */
import type { GoalState } from "../../../durable-objects/goal/core/state.ts";
import type { Command } from "../../../durable-objects/goal/core/step.ts";
import type { FunctionVersion } from "../../../shared/protocol/function.ts";
import type { Upstream } from "../../../shared/protocol/upstream.ts";
import type { Bearer } from "../../../shared/token/claims.ts";
import type { Clock } from "../clock.ts";
import type { Random } from "../random.ts";
import { type RightsPlan, tokenPoliciesOf } from "./plan.ts";

/** Above the versions of other changes of the registry, and below that of the last one. */
const VERSION = 100;
const STALE = 0.3;

export interface Surroundings {
  readonly clock: Clock;
  readonly random: Random;
  readonly plan: RightsPlan;
  readonly upstreams: readonly Upstream[];
  readonly functions: () => readonly FunctionVersion[];
  readonly requests: number;
  readonly calmAfterMs: number;
  readonly state: () => GoalState | undefined;
  /** Asks until there is an answer. */
  readonly ask: (id: string, command: Command) => void;
  /** The goal hears of the registry; nobody answers. */
  readonly tell: (command: Command) => void;
}

export class People {
  readonly #around: Surroundings;
  #made = 0;

  constructor(around: Surroundings) {
    this.#around = around;
  }

  start(): void {
    const { clock, random, plan, upstreams, functions, requests, calmAfterMs } = this.#around;
    const anyTime = (work: () => void): void => clock.after(random.between(0, calmAfterMs), work);
    plan.tenant.forEach((policy, i) => {
      anyTime(() => this.#around.tell({ kind: "upstreams", version: VERSION + i, upstreams, policy, functions: functions() }));
    });
    for (let i = 0; i < plan.revocations; i++) anyTime(() => this.#ask({ kind: "revoke" }));
    for (let i = 0; i < requests * plan.decisions; i++)
      anyTime(() => this.#decide(random.between(0, (this.#around.state()?.tasks.n ?? 1) - 1)));
  }

  #ask(command: Command): void {
    this.#around.ask(`p${this.#made++}`, command);
  }

  #decide(task: number): void {
    if (task >= 0) this.#ask({ kind: this.#around.random.chance(0.7) ? "approve-task" : "deny-task", task });
  }

  /** Decides about everything that waits for it. */
  decideAll({ tasks }: GoalState): void {
    for (let task = 0; task < tasks.n; task++) if (tasks.status[task] === 1 && tasks.reason[task] === 6) this.#decide(task);
  }

  /** The token that a request comes with; undefined for the root token. Some were given out before the last revocation. */
  bearer(): Bearer | undefined {
    const { random, plan, state } = this.#around;
    if (!plan.isOn || !random.chance(plan.tokens)) return undefined;
    const epoch = state()?.rights.epoch ?? 0;
    return { epoch: epoch > 0 && random.chance(STALE) ? random.between(0, epoch - 1) : epoch, policies: tokenPoliciesOf(random) };
  }
}
