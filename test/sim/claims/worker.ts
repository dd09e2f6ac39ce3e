/**
 * Simulated workers outside: they claim, take their time, extend their leases,
 * settle, bring children, come late, say things twice, and die. A worker that
 * dies leaves its claims as they are, and another takes its place.
 */
import type { Grant, Settlement, Standing } from "../../../durable-objects/goal/core/claims.ts";
import type { Command } from "../../../durable-objects/goal/core/step.ts";
import { type GoalId, taskIdOf } from "../../../shared/ids.ts";
import { UNBOUNDED } from "../../../shared/policy/account.ts";
import type { TaskSpec } from "../../../shared/protocol/task.ts";
import type { Clock } from "../clock.ts";
import type { Random } from "../random.ts";
import type { WorkerFaults, WorkPlan } from "./plan.ts";

interface Surroundings {
  readonly clock: Clock;
  readonly random: Random;
  readonly plan: WorkPlan;
  readonly goal: GoalId;
  readonly faults: () => WorkerFaults;
  /** Asks until there is an answer. */
  readonly ask: (id: string, command: Command, then: (text: string) => void) => void;
  /** A worker was told of its claims. */
  readonly told: (grant: Grant) => void;
}

interface Held {
  readonly task: number;
  readonly attempt: number;
}

type Said = Pick<Settlement, "problem" | "payload">;

const RESULT: Said = { problem: null, payload: '{"status":200,"body":1}' };
const POLL_MS_MAX = 400;

export class Workers {
  readonly #around: Surroundings;
  #asked = 0;
  #named = 0;
  #children: number;

  constructor(around: Surroundings) {
    this.#around = around;
    this.#children = around.plan.children;
  }

  start(): void {
    if (this.#around.plan.queues.length === 0) return;
    for (let i = 0; i < this.#around.plan.workers; i++) this.#later(POLL_MS_MAX, () => this.#poll());
  }

  #later(msMax: number, then: () => void): void {
    this.#around.clock.after(this.#around.random.between(1, msMax), then);
  }

  #ask(command: Command, then: (text: string) => void): void {
    this.#around.ask(`w${this.#asked++}`, command, then);
  }

  #poll(): void {
    const { random, plan, told } = this.#around;
    const [queue, max] = [random.pick(plan.queues), random.between(1, plan.max)];
    this.#ask({ kind: "claim", queue, max, leaseMs: plan.leaseMs, fits: () => true }, (text) => {
      const { grant, error } = JSON.parse(text) as { grant?: Grant & { attempts: number[] }; error?: string };
      if (error === "goal_ended") return;
      if (grant !== undefined && grant.tasks.length > 0) {
        told(grant);
        this.#work(grant.tasks.map((task, i) => ({ task, attempt: grant.attempts[i]! })));
      }
      this.#later(POLL_MS_MAX, () => this.#poll());
    });
  }

  /** All claims of a request are settled by one request, or each by its own. */
  #work(claims: readonly Held[]): void {
    const { random, faults, plan } = this.#around;
    const alive = claims.filter(() => !random.chance(faults().dies));
    for (const some of random.chance(0.5) ? [alive] : alive.map((claim) => [claim])) {
      if (some.length === 0) continue;
      const isLate = random.chance(faults().late);
      const isExtended = random.chance(faults().extends);
      const workMs = random.between(1, isLate || isExtended ? 3 * plan.leaseMs : Math.ceil(plan.leaseMs / 3));
      if (isExtended) this.#extend(some, workMs);
      this.#around.clock.after(workMs, () => this.#settle(some));
    }
  }

  #extend(claims: readonly Held[], leftMs: number): void {
    const { plan, clock } = this.#around;
    const stepMs = Math.ceil(plan.leaseMs / 3);
    if (leftMs <= stepMs) return;
    clock.after(stepMs, () => {
      const command: Command = { kind: "extend-claims", claims: claims.map(({ task, attempt }) => [task, attempt]), leaseMs: plan.leaseMs };
      this.#ask(command, () => undefined);
      this.#extend(claims, leftMs - stepMs);
    });
  }

  #settle(claims: readonly Held[]): void {
    const { random, faults } = this.#around;
    const specs: TaskSpec[] = [];
    const settlements = claims.map(({ task, attempt }): Settlement => {
      const said = this.#say();
      const from = specs.length;
      if (said.problem === null) specs.push(...this.#spawn(task));
      return { task, attempt, ...said, usage: UNBOUNDED, spawn: [from, specs.length] };
    });
    this.#send(settlements, specs, (standings) => {
      // Children that cannot be taken are left out the next time.
      const refused = settlements.filter((_, i) => standings[i]!.status === "rejected");
      if (refused.length > 0) this.#send(withoutChildren(refused), [], () => undefined);
    });
    if (random.chance(faults().twice)) {
      this.#later(2_000, () =>
        this.#send(
          withoutChildren(settlements).map((one) => ({ ...one, ...this.#say() })),
          [],
          () => undefined,
        ),
      );
    }
  }

  #send(settlements: readonly Settlement[], specs: readonly TaskSpec[], then: (standings: readonly Standing[]) => void): void {
    const spawn = { specs, failures: new Map(), contentKeys: new Map() };
    const seed = this.#around.random.between(0, 2 ** 32 - 1);
    this.#ask({ kind: "settle-claims", settlements, spawn, seed }, (text) => {
      const { standings } = JSON.parse(text) as { standings?: readonly Standing[] };
      if (standings !== undefined) then(standings);
    });
  }

  #say(): Said {
    const { random, faults } = this.#around;
    if (random.chance(faults().retryable)) return { problem: { retryable: true }, payload: '{"detail":"later"}' };
    if (random.chance(faults().final)) return { problem: { retryable: false }, payload: '{"detail":"never"}' };
    return RESULT;
  }

  /** Children of `task`, some of them of one another. */
  #spawn(task: number): TaskSpec[] {
    const { random, faults, plan, goal } = this.#around;
    if (this.#children <= 0 || !random.chance(faults().spawns)) return [];
    const parentTaskId = taskIdOf(goal, task);
    const work = (): TaskSpec => ({ parentTaskId, work: { queue: random.pick(plan.queues), input: random.between(0, 9) } });
    const specs: TaskSpec[] = Array.from({ length: random.between(1, 3) }, work);
    if (random.chance(0.3)) {
      const key = `s${this.#named++}`;
      specs.push({ parentTaskId, key, group: {} });
      if (random.chance(0.7)) specs.push({ ...work(), parentTaskId: key });
    }
    this.#children -= specs.length;
    if (random.chance(faults().badSpawn)) specs.push({ ...work(), after: ["nowhere at all"] });
    return specs;
  }
}

const withoutChildren = (settlements: readonly Settlement[]): Settlement[] => settlements.map((one) => ({ ...one, spawn: [0, 0] }));
