/**
 * Watches rights from outside: what was asked under which token, what the
 * policies said at the time, who was approved. Policies are read a second time
 * here, as plainly as they can be.
 */
import type { Policy } from "../../../shared/policy/rules.ts";
import type { TaskSpec } from "../../../shared/protocol/task.ts";
import type { Model } from "../model.ts";
import type { Executed, Turn } from "../shell.ts";
import { must } from "../violation.ts";
import type { RightsPlan } from "./plan.ts";

const DENIED = 11;
type Work = Pick<TaskSpec, "call" | "work">;

const isListed = (list: readonly string[] | undefined, name: string): boolean => list === undefined || list.includes(name);

function isAllowed({ methods, upstreams, queues }: Policy, { call, work }: Work): boolean {
  if (work !== undefined) return isListed(queues, work.queue);
  return call === undefined || (isListed(methods, call.method ?? "GET") && isListed(upstreams, call.upstream));
}

function needsApproval({ requireApproval = [] }: Policy, { call }: Work): boolean {
  if (call === undefined) return false;
  return requireApproval.some(({ upstream, method, path }) => {
    const isMeant = (upstream === "*" || upstream === call.upstream) && (method ?? call.method) === call.method;
    return isMeant && (path === undefined || call.path.startsWith("/1"));
  });
}

export class RightsChecker {
  readonly #plan: RightsPlan;
  readonly #model: Model;
  readonly #approved = new Set<number>();
  readonly #denied = new Set<number>();
  /** What the token allowed that a task came with. */
  readonly #tokens = new Map<number, readonly Policy[]>();
  /** Every policy that the tenant has had. */
  readonly #past: Policy[] = [];
  #tenant: Policy | null = null;
  #version = 1;
  #epoch = 0;

  constructor(plan: RightsPlan, model: Model) {
    this.#plan = plan;
    this.#model = model;
  }

  turn({ executed, sends, state }: Turn): void {
    for (const each of executed) {
      this.#token(each);
      if (each.reply.ok) this.#take(each);
    }
    for (const { tasks } of sends) for (const task of tasks) this.#starts(task);
    for (const task of state.ended) {
      if (state.tasks.code[task] !== DENIED || this.#denied.has(task)) continue;
      const { spec } = this.#model.tasks.get(task)!;
      must(
        this.#past.some((policy) => !isAllowed(policy, spec)),
        "a task is denied for a reason",
        () => `task ${task}`,
      );
      this.#denied.add(task);
    }
  }

  #token({ command, reply, bearer }: Executed): void {
    if (bearer?.epoch === undefined || command.kind === "create") return;
    const isStale = bearer.epoch !== this.#epoch;
    must(!isStale || !reply.ok, "a revoked token changes nothing", () => `${command.kind} of epoch ${bearer.epoch!} at ${this.#epoch}`);
    const isRefused = !reply.ok && reply.error.code === "unauthorized";
    must(isStale || !isRefused, "a token that is not revoked is heard", () => command.kind);
  }

  #take({ command, reply, bearer }: Executed): void {
    const value = reply.ok ? reply.value : {};
    switch (command.kind) {
      case "upstreams":
        if (command.version <= this.#version) return;
        this.#version = command.version;
        this.#tenant = command.policy ?? null;
        if (this.#tenant !== null) this.#past.push(this.#tenant);
        return;
      case "revoke":
        this.#epoch++;
        return;
      case "approve-task":
      case "deny-task":
        (command.kind === "approve-task" ? this.#approved : this.#denied).add(command.task);
        return;
      case "retry-task":
        this.#tokens.set(value.task!, this.#tokens.get(command.task) ?? []);
        return;
      case "submit": {
        const { tasks, joins } = value.receipts!;
        const token = bearer?.policies ?? [];
        command.specs.forEach((spec, place) => {
          if (spec === null || tasks[place]! < 0) return;
          const allows = [...this.#plan.goal, ...this.#standing(), ...token].every((policy) => isAllowed(policy, spec));
          must(allows, "no task is taken that a policy denies", () => `place ${place}`);
          if (joins[place] === 0) this.#tokens.set(tasks[place]!, token);
        });
        return;
      }
      case "claim":
        for (const task of value.grant!.tasks) this.#mayStart(task);
        return;
      default:
    }
  }

  #standing(): readonly Policy[] {
    return this.#tenant === null ? [] : [this.#tenant];
  }

  #mayStart(task: number): TaskSpec {
    const { spec } = this.#model.tasks.get(task)!;
    const all = [...this.#plan.goal, ...this.#standing(), ...(this.#tokens.get(task) ?? [])];
    must(
      all.every((policy) => isAllowed(policy, spec)),
      "nothing starts that a policy denies",
      () => `task ${task}`,
    );
    must(!this.#denied.has(task), "what was denied never starts", () => `task ${task}`);
    return spec;
  }

  #starts(task: number): void {
    const spec = this.#mayStart(task);
    const needs = [...this.#plan.goal, ...this.#standing()].some((policy) => needsApproval(policy, spec));
    must(!needs || this.#approved.has(task), "what needs approval starts once it has it", () => `task ${task}`);
  }
}
