/**
 * Callers: they submit random tasks and ask for random things, and repeat a
 * request under its id until it is answered. What they were answered is what
 * the system has promised.
 */
import type { Command } from "../../durable-objects/goal/core/step.ts";
import { taskIdOf, type GoalId } from "../../shared/ids.ts";
import { formatLine } from "../../shared/protocol/line.ts";
import { failure } from "../../shared/errors.ts";
import type { FunctionVersion } from "../../shared/protocol/function.ts";
import type { Policy } from "../../shared/policy/rules.ts";
import type { Bearer } from "../../shared/token/claims.ts";
import { UNBOUNDED } from "../../shared/policy/account.ts";
import type { TaskSpec } from "../../shared/protocol/task.ts";
import { type Plan, ruleOf } from "./faults.ts";
import type { Random } from "./random.ts";

export interface Request {
  readonly id: string;
  readonly command: Command;
  readonly bearer?: Bearer | undefined;
}

/** Marks a result that a person gave. */
export const RESOLVED_STATUS = 299;

const METHODS = ["GET", "GET", "PUT", "POST", "POST", "PATCH"] as const;

type Other = Pick<TaskSpec, "work" | "run" | "reserve">;

export class Client {
  readonly #random: Random;
  readonly #plan: Plan;
  readonly #goal: GoalId;
  /** A task's work that is no call; null for any other. */
  readonly #other: () => Other | null;
  readonly #functions: readonly FunctionVersion[];
  readonly #policies: readonly Policy[];
  #made = 0;

  constructor(
    random: Random,
    plan: Plan,
    goal: GoalId,
    other: () => Other | null,
    policies: readonly Policy[],
    functions: readonly FunctionVersion[],
  ) {
    this.#functions = functions;
    this.#policies = policies;
    this.#other = other;
    this.#random = random;
    this.#plan = plan;
    this.#goal = goal;
  }

  #request(command: Command): Request {
    return { id: `r${this.#made++}`, command };
  }

  create(): Request {
    const { rule, deadlineMs, upstreams } = this.#plan;
    const spec = {
      name: "",
      labels: {},
      deadlineMs,
      retentionMs: 60_000,
      completion: rule,
      sealed: this.#random.chance(0.1),
      weight: 1,
      policies: this.#policies,
      ...(this.#plan.calls !== null && { budget: { calls: this.#plan.calls } }),
    };
    const specs = this.#random.chance(0.5) ? [] : this.#loose();
    const registry = { version: 1, upstreams, functions: this.#functions };
    return this.#request({ kind: "create", id: this.#goal, spec, registry, tasks: { specs, failures: new Map(), contentKeys: new Map() } });
  }

  submit(): Request {
    const random = this.#random;
    const specs: (TaskSpec | null)[] = Array.from({ length: random.between(0, this.#plan.tasksMax) }, () => this.#spec());
    const failures = new Map<number, ReturnType<typeof failure>>();
    const contentKeys = new Map<number, string>();
    specs.forEach((spec, place) => {
      if (random.chance(0.02)) {
        specs[place] = null;
        failures.set(place, failure("invalid_request", "not a task"));
      } else if (spec?.dedupe === "content") contentKeys.set(place, `content:${spec.call!.path}`);
    });
    return this.#request({ kind: "submit", specs, failures, contentKeys, atomic: random.chance(0.1) });
  }

  /** Something other than tasks, about a goal that has `n` of them. */
  control(n: number): Request {
    const random = this.#random;
    const task = random.between(0, Math.max(0, n - 1));
    const roll = random.next();
    if (roll < 0.15) return this.#request({ kind: "pause" });
    if (roll < 0.35) return this.#request({ kind: "resume" });
    if (roll < 0.55) return this.#request({ kind: "cancel-task", task });
    if (roll < 0.75) return this.#request({ kind: "retry-task", task });
    if (roll < 0.95) return this.resolve(task);
    return this.#request({ kind: random.chance(0.5) ? "seal" : "cancel" });
  }

  resolve(task: number): Request {
    const head = { task, attempt: 0, outcome: "answered", status: RESOLVED_STATUS, retryAfterMs: 0, startedAtMs: 0, endedAtMs: 0 } as const;
    const line = this.#random.chance(0.5) ? null : formatLine(head, "{}").trimEnd();
    return this.#request({ kind: "resolve", task, as: this.#random.pick(["succeeded", "failed", "retry"]), line });
  }

  /** The registry as it was planned, newer than any change. */
  restore(): Request {
    return this.#request({ kind: "upstreams", version: 1_000, upstreams: this.#plan.upstreams, functions: this.#functions });
  }

  /** Enough for everything. */
  topUp(): Request {
    return this.#request({ kind: "top-up", amounts: [0, 1_000_000, 0, 0], ceilings: UNBOUNDED });
  }

  ask(kind: "seal" | "resume"): Request {
    return this.#request({ kind });
  }

  #key(): string {
    return `k${this.#random.between(0, this.#plan.keys - 1)}`;
  }

  /** A name of a task: mostly a key, which may mean nothing, sometimes an id. */
  #name(): string {
    return this.#random.chance(0.9) ? this.#key() : taskIdOf(this.#goal, this.#random.between(0, 30));
  }

  #names(): string[] {
    return Array.from({ length: this.#random.between(1, 3) }, () => this.#name());
  }

  /** Tasks that cannot be refused: creation is all or nothing. */
  #loose(): TaskSpec[] {
    return Array.from({ length: this.#random.between(1, 10) }, (_, i) => ({ ...this.#work(), key: `k${i}` }));
  }

  #work(): Pick<TaskSpec, "call" | "group"> & Other {
    const random = this.#random;
    const other = this.#other();
    if (other !== null) return other;
    if (random.chance(0.12)) return { group: {} };
    const upstream = random.chance(0.01) ? "nowhere" : random.pick(this.#plan.upstreams).name;
    const idempotent = random.chance(0.1) ? { idempotent: random.chance(0.5) } : {};
    return { call: { upstream, method: random.pick(METHODS), path: `/${random.between(0, 50)}`, ...idempotent } };
  }

  #spec(): TaskSpec {
    const random = this.#random;
    const work = this.#work();
    const isContent = work.call !== undefined && random.chance(0.1);
    return {
      ...work,
      ...(isContent ? { dedupe: "content" } : random.chance(0.6) && { key: this.#key() }),
      ...(random.chance(0.2) && { parentTaskId: this.#name() }),
      ...(random.chance(0.15) && { after: this.#names() }),
      ...(random.chance(0.1) && { afterEnd: this.#names() }),
      ...(random.chance(0.2) && { priority: random.pick(["interactive", "normal", "background"]) }),
      ...(random.chance(0.1) && { ttlMs: random.between(1, 5_000) }),
      ...(random.chance(0.1) && { timeoutMs: random.between(50, 4_000) }),
      ...(random.chance(0.1) && { retry: { maxAttempts: random.between(1, 4) } }),
      ...(random.chance(0.15) && { completion: ruleOf(random) }),
    };
  }
}
