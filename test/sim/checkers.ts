/**
 * Watches a world from outside: after every turn, at every call, and at the
 * end. What it compares with is recounted, or comes from the callers' side and
 * from the upstreams' ledger; it calls nothing of the core but the comparison
 * of two states.
 */
import type { Grant } from "../../durable-objects/goal/core/claims.ts";
import type { GoalState } from "../../durable-objects/goal/core/state.ts";
import { wakeAt } from "../../durable-objects/goal/core/wake.ts";
import { LEASE_GRACE_MS } from "../../shared/limits.ts";
import { parseLineHead } from "../../shared/protocol/line.ts";
import { TASK_STATUSES, type TaskStatus } from "../../shared/protocol/goal.ts";
import { BudgetChecker } from "./budgets/checker.ts";
import type { Call } from "./executor.ts";
import type { Plan } from "./faults.ts";
import { RESOLVED_STATUS } from "./client.ts";
import { HedgeChecker } from "./hedges/checker.ts";
import { checkCounters } from "./counters.ts";
import { firstDifference, isDurablyEqual } from "./durable.ts";
import { judged, Model } from "./model.ts";
import type { Turn } from "./shell.ts";
import { PermitChecker } from "./permits.ts";
import { RightsChecker } from "./rights/checker.ts";
import type { RightsPlan } from "./rights/plan.ts";
import { RunChecker } from "./runs/checker.ts";
import type { Deed } from "./runs/executor.ts";
import type { Disk } from "./storage.ts";
import { ClaimChecker } from "./claims/checker.ts";
import { must } from "./violation.ts";

/** Whether a status is an end. */
const isEnd = (status: TaskStatus): boolean => status !== "queued" && status !== "waiting" && status !== "running";

const REASON = { children: 1, backoff: 3 } as const;
const CHILDREN_FAILED = 5;

export class Checkers {
  readonly model: Model;
  readonly #permits: PermitChecker;
  readonly #claims: ClaimChecker;
  readonly #runs: RunChecker;
  readonly #rights: RightsChecker;
  readonly #hedges: HedgeChecker;
  readonly #budget = new BudgetChecker();
  readonly #disk: Disk;
  readonly #plan: Plan;
  readonly #ends = new Map<number, TaskStatus>();
  readonly #calls = new Map<number, Call[]>();
  readonly #ran = new Set<string>();
  /** Attempts that were sent and whose results are not durable, by upstream. */
  readonly #out = new Map<string, Map<number, number>>();
  /** When a `Retry-After` lets the next call start, by upstream. */
  readonly #gates = new Map<string, number>();
  readonly #promised = new Map<number, string>();
  /** The last attempt that was sent, by task. */
  readonly #sent = new Map<number, number>();
  readonly #offers = new Map<number, { readonly text: string; readonly specs: readonly unknown[] }>();
  #lateSeen = 0;
  #endsSeen = 0;
  #goalEnd: string | null = null;
  #statuses: TaskStatus[] = [];

  constructor(plan: Plan, disk: Disk, rights: RightsPlan) {
    this.model = new Model(plan.upstreams);
    this.#claims = new ClaimChecker(this.model);
    this.#runs = new RunChecker(this.model);
    this.#rights = new RightsChecker(rights, this.model);
    this.#hedges = new HedgeChecker(this.model);
    this.#permits = new PermitChecker(this.model, this.#hedges.backups);
    this.#plan = plan;
    this.#disk = disk;
  }

  /** A worker was told of its claims. */
  told(grant: Grant): void {
    this.#claims.told(grant);
  }

  /** What a function's run did. */
  ran(deed: Deed): void {
    this.#runs.note(deed);
    if (deed.kind === "calls") this.#budget.called();
    else this.#follows(deed.task, `task ${deed.task} attempt ${deed.attempt}`);
  }

  /** A caller was told that these tasks were accepted. */
  promised(tasks: readonly number[], request: string): void {
    for (const task of tasks) if (task >= 0) this.#promised.set(task, request);
  }

  turn(turn: Turn): void {
    const { state, nowMs } = turn;
    if (state.goal === null) return;
    const before = this.#statuses;
    this.#statuses = [];
    for (let task = 0; task < state.tasks.n; task++) this.#statuses.push(TASK_STATUSES[state.tasks.status[task]!]!);
    for (const executed of turn.executed) {
      if (executed.id !== null && executed.reply.ok) {
        must(!this.#ran.has(executed.id), "a request has its effect once", () => executed.id!);
        this.#ran.add(executed.id);
      }
      this.model.note(executed, nowMs);
    }
    this.#claims.turn(turn, before, this.#statuses);
    this.#runs.turn(turn, before, this.#statuses, this.#sent);
    this.#rights.turn(turn);
    this.#hedges.turn(turn, this.#statuses);
    this.#absorption(state);
    this.#budget.turn(turn, (task) => this.#runs.toldOf(task));
    this.#permits.turn(turn, before, this.#statuses, this.#sent, state.late - this.#lateSeen);
    this.#late(turn);
    this.#gate(turn, before);
    this.#sends(turn, before);
    checkCounters(state, (task) => this.#isWork(task));
    this.#families(state, nowMs);
    this.#times(state, nowMs);
    this.#stored(state);
  }

  /** What an upstream saw. */
  call(call: Call, state: GoalState | undefined): void {
    this.#budget.call(call);
    const { task, attempt } = call;
    const earlier = this.#calls.get(task) ?? [];
    this.#calls.set(task, [...earlier, call]);
    const name = `task ${task} attempt ${attempt}`;
    this.#hedges.call(call, state);
    const known = this.model.tasks.get(task);
    must(known?.upstream !== null && known !== undefined, "only accepted calls are made", () => name);
    if (!known.isIdempotent) {
      const mayHave = earlier.some(({ effect }) => effect === "maybe");
      must(!mayHave || this.model.allowedAgain.has(task), "what must not be repeated is never sent twice", () => name);
      // One decision allows one more call that may have its effect.
      if (mayHave) this.#calls.set(task, [{ ...call }]);
      if (call.effect === "maybe") this.model.allowedAgain.delete(task);
    }
    this.#follows(task, name);
  }

  #follows(task: number, name: string): void {
    const known = this.model.tasks.get(task)!;
    for (const other of [...known.after, ...known.afterEnd]) {
      must(this.#ends.has(other), "a task starts after what it comes after has ended", () => `${name} before ${other}`);
    }
    for (const other of known.after) {
      must(this.#ends.get(other) === "succeeded", "a task starts after what it comes after has succeeded", () => `${name}: ${other}`);
    }
  }

  /** What disk gives back is what memory holds. */
  compare(memory: GoalState): void {
    const disk = this.#disk.load();
    must(isDurablyEqual(disk, memory), "state rebuilt from disk equals memory", () => firstDifference(disk, memory));
  }

  /** Everything is over: each promise was kept. */
  end(state: GoalState): void {
    must(state.goal !== null && state.goal.phase !== "active", "the goal comes to an end", () => this.#standing(state));
    for (const [task, request] of this.#promised) {
      must(this.#ends.has(task), "every accepted task ends in one terminal state", () => `task ${task}, promised to ${request}`);
    }
    const tasks = state.tasks.n;
    must(this.model.tasks.size === tasks, "no task comes from nowhere", () => `${tasks} tasks, ${this.model.tasks.size} accepted`);
    this.#budget.end(state);
    this.#claims.end(state, (row, index) => this.#disk.rows.get(row)?.[index]);
    must(state.ended.length === tasks, "each task ends once", () => `${state.ended.length} ends of ${tasks} tasks`);
  }

  #standing(state: GoalState): string {
    const open = this.#statuses.flatMap((status, task) => (isEnd(status) ? [] : [`${task}:${status}/${state.tasks.reason[task]!}`]));
    return `${state.goal?.phase ?? "none"} sealed=${String(state.goal?.sealed)} paused=${String(state.goal?.paused)} ${open.slice(0, 20).join(" ")}`;
  }

  #absorption(state: GoalState): void {
    for (const [task, end] of this.#ends) {
      must(this.#statuses[task] === end, "terminal states absorb", () => `task ${task} was ${end}, is ${this.#statuses[task] ?? "gone"}`);
    }
    this.#statuses.forEach((status, task) => {
      if (isEnd(status)) this.#ends.set(task, status);
    });
    const { phase, endedAtMs } = state.goal!;
    const end = phase === "active" ? null : `${phase} at ${endedAtMs!}`;
    must(
      this.#goalEnd === null || this.#goalEnd === end,
      "a goal's end never changes",
      () => `${this.#goalEnd!} became ${end ?? "active"}`,
    );
    this.#goalEnd = end;
  }

  #sends({ state, sends, settled, nowMs }: Turn, before: readonly TaskStatus[]): void {
    for (const line of settled) {
      const { task, attempt } = parseLineHead(line);
      for (const open of this.#out.values()) if (open.get(task) === attempt) open.delete(task);
    }
    for (const open of this.#out.values()) for (const task of open.keys()) if (this.#statuses[task] !== "running") open.delete(task);
    const { goal, tasks } = state;
    must(sends.length === 0 || !this.model.isPaused, "nothing starts while the goal is paused", () => `${sends.length} batches`);
    must(sends.length === 0 || goal!.phase === "active", "nothing starts after the end", () => `${sends.length} batches`);
    for (const { upstream, lanes, tasks: batch, isBackup } of sends) {
      const { name } = state.upstreams[upstream]!;
      const maxConcurrency = this.model.upstream(name)?.maxConcurrency ?? null;
      const open = this.#out.get(name) ?? new Map<number, number>();
      this.#out.set(name, open);
      for (const task of isBackup === true ? [] : batch) {
        must(!this.#isEndedBefore(before, task), "an ended task never starts", () => `task ${task}`);
        // Lost and sent again in one turn: the newer attempt takes the older one's place.
        must((open.get(task) ?? 0) < tasks.attempt[task]!, "a task is sent again only as a newer attempt", () => `task ${task}`);
        open.set(task, tasks.attempt[task]!);
        this.#sent.set(task, tasks.attempt[task]!);
        const known = this.model.tasks.get(task)!;
        must(known.isIdempotent || batch.length <= lanes, "what must not be repeated starts at once", () => `task ${task}`);
      }
      must(nowMs >= (this.#gates.get(name) ?? 0), "a gate that Retry-After closed is kept", () => name);
      // Permits that rest on an older registry may be more.
      const isBounded = maxConcurrency !== null && this.#permits.isUpToDate(name, this.model.version);
      must(!isBounded || open.size <= maxConcurrency, "maxConcurrency holds", () => `${open.size} open at ${name}`);
    }
  }

  /** A task that ran and is in backoff now shows that its report was taken, and with it what it says about the upstream. */
  #gate({ settled, state, nowMs }: Turn, before: readonly TaskStatus[]): void {
    for (const { task, attempt, retryAfterMs } of settled.map(parseLineHead)) {
      const isCurrent = before[task] === "running" && attempt === this.#sent.get(task);
      const isTaken = isCurrent && this.#statuses[task] === "waiting" && state.tasks.reason[task] === REASON.backoff;
      if (!isTaken || retryAfterMs === 0) continue;
      const { upstream } = this.model.tasks.get(task)!;
      this.#gates.set(upstream!, Math.max(this.#gates.get(upstream!) ?? 0, nowMs + retryAfterMs));
    }
  }

  #isWork(task: number): boolean {
    return this.model.tasks.get(task)?.spec.work !== undefined;
  }

  #isEndedBefore(before: readonly TaskStatus[], task: number): boolean {
    const status = before[task];
    return status !== undefined && isEnd(status);
  }

  #families(state: GoalState, nowMs: number): void {
    const goal = state.goal!;
    const members = new Map<number | null, TaskStatus[]>();
    for (const [task, { parent }] of this.model.tasks) {
      const list = members.get(parent) ?? [];
      members.set(parent, list);
      list.push(this.#statuses[task]!);
    }
    const roots = members.get(null) ?? [];
    const isDeadlinePast = goal.deadlineAtMs !== null && nowMs >= goal.deadlineAtMs;
    if (goal.phase === "active") {
      must(!this.model.isSealed || judged(this.#plan.rule, roots, true) === "open", "a sealed goal ends when it is decided", () =>
        String(roots),
      );
    } else if (goal.phase === "succeeded" || goal.phase === "failed") {
      const verdict = judged(this.#plan.rule, roots, true);
      must(
        verdict === goal.phase || isDeadlinePast,
        "the goal ends as its rule says",
        () => `${goal.phase} for ${verdict}: ${String(roots)}`,
      );
    } else {
      must(goal.phase === "expired" ? isDeadlinePast : this.model.isCancelAsked, "the goal ends for a reason", () => goal.phase);
    }
    for (const [parent, children] of members) if (parent !== null) this.#parent(state, parent, children);
    for (const [task, { after, afterEnd }] of this.model.tasks) {
      if (after.length + afterEnd.length > 0) this.#follower(task, after, afterEnd);
    }
  }

  #parent({ tasks }: GoalState, parent: number, children: readonly TaskStatus[]): void {
    const { rule } = this.model.tasks.get(parent)!;
    const status = this.#statuses[parent]!;
    const live = children.filter((child) => !isEnd(child)).length;
    if (isEnd(status)) {
      must(live === 0, "an ended parent has no live children", () => `task ${parent} is ${status}`);
      const says = status === "succeeded" ? "succeeded" : tasks.code[parent] === CHILDREN_FAILED ? "failed" : null;
      must(
        says === null || judged(rule, children, false) === says,
        "a parent ends as its rule says",
        () => `task ${parent}: ${String(children)}`,
      );
    } else if (status === "waiting" && tasks.reason[parent] === REASON.children) {
      must(judged(rule, children, false) === "open", "a parent ends when it is decided", () => `task ${parent}: ${String(children)}`);
    }
  }

  #follower(task: number, after: readonly number[], afterEnd: readonly number[]): void {
    const status = this.#statuses[task]!;
    const ends = [...after, ...afterEnd].map((other) => this.#statuses[other]!);
    const isBroken = after.some((other) => isEnd(this.#statuses[other]!) && this.#statuses[other] !== "succeeded");
    must(!isBroken || isEnd(status), "a failed dependency ends the task", () => `task ${task} is ${status}`);
    if (status === "queued" || status === "running" || status === "succeeded") {
      must(ends.every(isEnd), "a task is released when its dependencies have ended", () => `task ${task} is ${status}`);
    }
  }

  /** Nothing that time should have brought about is still to come, and the wake time is not later than the next of it. */
  #times(state: GoalState, nowMs: number): void {
    const { goal, tasks, batches } = state;
    const wakeMs = wakeAt(state)!;
    must(wakeMs >= nowMs - 1, "a goal does not wake for what is past", () => `${nowMs - wakeMs} ms ago`);
    if (goal!.phase !== "active") return;
    const due = (atMs: number, what: () => string): void => {
      must(atMs > nowMs, "what is due has happened", what);
      must(wakeMs <= atMs, "the goal wakes in time", () => `${what()}, ${wakeMs - atMs} ms late`);
    };
    if (goal!.deadlineAtMs !== null) due(goal!.deadlineAtMs, () => "the deadline");
    for (const [batch, { leaseUntilMs }] of batches) due(leaseUntilMs, () => `the lease of batch ${batch}`);
    for (const [task, { expiresAtMs, spec }] of this.model.tasks) {
      if (isEnd(this.#statuses[task]!)) continue;
      if (tasks.reason[task] === REASON.backoff) due(tasks.dueAtMs[task]!, () => `the backoff of task ${task}`);
      const hasStarted = tasks.attempt[task]! > 0 || (spec.group !== undefined && tasks.reason[task] === REASON.children);
      if (expiresAtMs !== null && !hasStarted) due(expiresAtMs, () => `the time to live of task ${task}`);
      if (this.#statuses[task] !== "running") continue;
      if (spec.work !== undefined) {
        due(tasks.dueAtMs[task]!, () => `the lease of task ${task}`);
        continue;
      }
      const lease = batches.get(tasks.batch[task]!);
      const isBounded = lease !== undefined && lease.leaseUntilMs <= nowMs + tasks.timeoutMs[task]! + lease.timeoutMs + LEASE_GRACE_MS + 1;
      must(isBounded, "every running task has a lease that ends", () => `task ${task}`);
    }
  }

  /** The addresses of each task that ended lead to its own input, and to the result of its last attempt. */
  #stored({ tasks, ended }: GoalState): void {
    for (const task of ended.slice(this.#endsSeen)) {
      const spec = this.#offer(tasks.offer[task]!)[tasks.position[task]!];
      const isOwn = JSON.stringify(spec) === JSON.stringify(this.model.tasks.get(task)!.spec);
      must(isOwn, "an input is where its address says", () => `task ${task}`);
      if (tasks.resultRow[task] === 0) continue;
      const line = this.#disk.rows.get(tasks.resultRow[task]!)?.[tasks.resultIndex[task]!];
      const head = line === undefined ? null : parseLineHead(line);
      must(head?.task === task, "a result is where its address says", () => `task ${task}`);
      const last = tasks.attempt[task]!;
      // What a person decided is of no attempt; what a claimer reported stays when later ones say nothing.
      must(
        head.attempt === last || head.status === RESOLVED_STATUS || (this.#isWork(task) && head.attempt < last),
        "a result is of the last attempt",
        () => `task ${task}: ${head.attempt} of ${last}`,
      );
    }
    this.#endsSeen = ended.length;
  }

  /** The offer as it is on disk, whose text never changes. */
  #offer(offer: number): readonly unknown[] {
    const text = this.#disk.offers.get(offer) ?? "[]";
    if (this.#offers.get(offer)?.text !== text) this.#offers.set(offer, { text, specs: JSON.parse(text) as unknown[] });
    return this.#offers.get(offer)!.specs;
  }

  /** Reports of attempts that are not the last one sent are counted, and have no effect. */
  #late({ settled, state }: Turn): void {
    const stale = settled.map(parseLineHead).filter(({ task, attempt }) => attempt !== this.#sent.get(task)).length;
    must(state.late - this.#lateSeen >= stale, "a stale report is dropped", () => `${stale} stale, ${state.late - this.#lateSeen} counted`);
    this.#lateSeen = state.late;
  }
}
