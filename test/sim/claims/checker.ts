/**
 * Watches claims from outside: what was granted, extended and settled, as it
 * was answered, against leases that are kept a second time.
 */
import { codeOf } from "../../../durable-objects/goal/core/codes.ts";
import type { Grant, SettleClaims, Standing } from "../../../durable-objects/goal/core/claims.ts";
import type { GoalState } from "../../../durable-objects/goal/core/state.ts";
import type { TaskStatus } from "../../../shared/protocol/goal.ts";
import { parseLineHead } from "../../../shared/protocol/line.ts";
import type { Model } from "../model.ts";
import type { Turn } from "../shell.ts";
import { must } from "../violation.ts";

interface Lease {
  readonly attempt: number;
  untilMs: number;
}

const SUCCEEDED = 3;
const DENIED = codeOf("denied");

export class ClaimChecker {
  readonly #model: Model;
  /** Claims whose leases last, by task. */
  readonly #held = new Map<number, Lease>();
  /** Every claim that a commit has: task, attempt, fence. */
  readonly #granted = new Set<string>();
  readonly #attempts = new Map<number, number>();
  /** Attempts that were settled: task and attempt. */
  readonly #settled = new Set<string>();
  /** Tasks whose work is done for good, with or without success. */
  readonly #done = new Set<number>();
  /** The attempt of the last problem, by task. */
  readonly #problems = new Map<number, number>();
  #fence = 0;
  #isPaused = false;

  constructor(model: Model) {
    this.#model = model;
  }

  /** A worker was told of its claims. */
  told({ tasks, fence, attempts }: Grant & { readonly attempts?: readonly number[] }): void {
    tasks.forEach((task, i) => {
      const name = `${task}.${attempts![i]!} with ${fence}`;
      must(this.#granted.has(name), "a claim is durable before anybody is told of it", () => name);
    });
  }

  turn({ executed, state, nowMs }: Turn, before: readonly TaskStatus[], statuses: readonly TaskStatus[]): void {
    for (const [task, { attempt, untilMs }] of this.#held) {
      const isOver = untilMs <= nowMs;
      if (isOver) this.#held.delete(task);
      const isStill = statuses[task] === "running" && state.tasks.attempt[task] === attempt;
      must(!isOver || !isStill, "a claim is lost when its lease ends", () => `task ${task} attempt ${attempt}`);
    }
    for (const { command, reply } of executed) {
      if (!reply.ok) continue;
      const { grant, standings } = reply.value;
      switch (command.kind) {
        case "pause":
        case "resume":
          this.#isPaused = command.kind === "pause";
          break;
        case "claim":
          this.#grant(grant!, command.queue, state, nowMs);
          break;
        case "extend-claims":
          for (const standing of standings!) this.#extend(standing, nowMs + command.leaseMs);
          break;
        case "settle-claims":
          standings!.forEach((standing, i) => this.#settle(standing, command.settlements[i]!));
          break;
        default:
      }
    }
    for (const task of this.#held.keys()) if (statuses[task] !== "running") this.#held.delete(task);
    statuses.forEach((status, task) => {
      const isClaimed = status === "running" && this.#model.tasks.get(task)?.spec.work !== undefined;
      must(!isClaimed || this.#held.has(task), "work runs only while somebody holds it", () => `task ${task}, which was ${before[task]!}`);
    });
  }

  #grant({ tasks, fence, untilMs }: Grant, queue: string, state: GoalState, nowMs: number): void {
    if (tasks.length === 0) return;
    must(!this.#isPaused, "a paused goal hands nothing out", () => String(tasks));
    must(fence > this.#fence, "fences rise", () => `${fence} after ${this.#fence}`);
    this.#fence = fence;
    for (const task of tasks) {
      const known = this.#model.tasks.get(task);
      must(known?.spec.work?.queue === queue, "a claim is of its queue", () => `task ${task} from ${queue}`);
      const lease = this.#held.get(task);
      must(lease === undefined || lease.untilMs <= nowMs, "one worker at a time holds a task", () => `task ${task}`);
      must(!this.#done.has(task), "what is settled is never handed out again", () => `task ${task}`);
      const attempt = (this.#attempts.get(task) ?? 0) + 1;
      this.#attempts.set(task, attempt);
      // A later command of the same turn may have claimed it again.
      must(state.tasks.attempt[task]! >= attempt, "each claim is a new attempt", () => `task ${task}: ${attempt}`);
      this.#held.set(task, { attempt, untilMs });
      this.#granted.add(`${task}.${attempt} with ${fence}`);
    }
  }

  #isHeld({ task, attempt }: Standing): boolean {
    return this.#held.get(task)?.attempt === attempt;
  }

  #extend(standing: Standing, untilMs: number): void {
    const { task, attempt, status } = standing;
    const name = (): string => `task ${task} attempt ${attempt}`;
    must(status !== "held" || this.#isHeld(standing), "a claim that is over is not extended", name);
    must(status !== "stale" || !this.#isHeld(standing), "a claim that is held is not stale", name);
    const lease = this.#held.get(task);
    if (status === "held") lease!.untilMs = Math.max(lease!.untilMs, untilMs);
  }

  #settle(standing: Standing, { problem }: SettleClaims["settlements"][number]): void {
    const { task, attempt, status } = standing;
    const name = (): string => `task ${task} attempt ${attempt} ${status}`;
    must(status !== "stale" || !this.#isHeld(standing), "a claim that is held is not stale", name);
    if (status !== "settled" && status !== "retrying") return;
    const claim = `${task}.${attempt}`;
    must(this.#isHeld(standing) !== this.#settled.has(claim), "only the holder of a claim settles it, once", name);
    if (!this.#isHeld(standing)) return;
    this.#settled.add(claim);
    this.#held.delete(task);
    if (status === "settled") this.#done.add(task);
    if (problem === null) this.#problems.delete(task);
    else this.#problems.set(task, attempt);
  }

  /** The results that were kept, by the addresses of their tasks. */
  end({ tasks }: GoalState, lineAt: (row: number, index: number) => string | undefined): void {
    for (const [task, attempt] of this.#problems) {
      if (tasks.status[task]! <= SUCCEEDED) continue;
      const line = lineAt(tasks.resultRow[task]!, tasks.resultIndex[task]!);
      // A denial is a later problem, and replaces it. Work is denied for its queue alone.
      if (tasks.code[task] === DENIED) {
        must(line?.includes('(rule \\"queues\\")') === true, "a task that a policy denied says which rule it was", () => `task ${task}`);
        continue;
      }
      const kept = line === undefined ? 0 : parseLineHead(line).attempt;
      must(
        kept === attempt,
        "a task that has not succeeded keeps its last problem, unless a policy denied it",
        () => `task ${task}: of attempt ${kept}, not ${attempt}`,
      );
    }
  }
}
