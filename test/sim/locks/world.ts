/**
 * A world of locks: a shard of the tenant's, contenders outside, and goals
 * whose tasks declare locks of the tenant and of their goal. Messages get lost
 * both ways, the shard and the goals crash, holders pause past their time.
 */
import { isTerminal, RUNNING } from "../../../durable-objects/goal/core/codes.ts";
import { holderOf } from "../../../durable-objects/goal/core/locks.ts";
import { tenantLocksAt } from "../../../durable-objects/goal/core/tenant-locks.ts";
import type { LockMessage, LockNews } from "../../../shared/policy/lock-steps.ts";
import type { LockSpec, TaskSpec } from "../../../shared/protocol/task.ts";
import { goalIdFrom } from "../../../shared/ids.ts";
import { TENANT_LOCK_TTL_MS } from "../../../shared/limits.ts";
import { Driver, get, group, LIFE } from "../../core/goal-harness.ts";
import { Clock } from "../clock.ts";
import { isDurablyEqual } from "../durable.ts";
import { Random } from "../random.ts";
import { Violation } from "../violation.ts";
import { LockChecker } from "./checker.ts";
import { Contender } from "./contender.ts";
import { ShardSim } from "./shard.ts";
import { runWorld } from "../seed.ts";

const START_MS = 1_800_000_000_000;
const NAMES = ["t1", "t2", "t3"];
const OWN_NAMES = ["g1", "g2", "g3"];
const CALM_AFTER_MS = 20_000;
/** Nothing of what was said before the calm is in the shard any more: a place and a hold have had their time. */
const CLEAR_AFTER_MS = CALM_AFTER_MS + 2 * TENANT_LOCK_TTL_MS + 1_000;
/** How long an ended task's lock of the tenant may stay once nothing gets lost: three messages, and a rest after a lost one. */
const RELEASE_MS = 600;
const END_AFTER_MS = 300_000;

interface Outcome {
  readonly seed: number;
  readonly hash: string;
  readonly violation: string | null;
  readonly grants: number;
  readonly tasks: number;
}

class World {
  readonly clock = new Clock(START_MS);
  readonly checker = new LockChecker();
  tasks = 0;
  readonly #random: Random;
  readonly #faults: { readonly lost: number; readonly crash: number; readonly shardCrash: number; readonly slow: number };
  /** The first goal hears nothing of the shard in between, nor the shard of it. */
  readonly #cutMs: readonly [number, number];
  readonly #shard: ShardSim;
  readonly #contenders: readonly Contender[];
  readonly #goals: readonly Driver[];
  readonly #say: (text: string) => void;

  constructor(seed: number, say: (text: string) => void) {
    this.#random = new Random(seed);
    this.#say = say;
    this.#faults = {
      lost: this.#random.some(0.3),
      crash: this.#random.some(0.1),
      shardCrash: this.#random.some(0.05),
      slow: this.#random.some(0.2),
    };
    const cutFromMs = START_MS + this.#random.between(0, 4_000);
    this.#cutMs = [cutFromMs, cutFromMs + (this.#random.chance(0.3) ? this.#random.between(5_000, 20_000) : 0)];
    say(`seed ${seed} ${JSON.stringify({ ...this.#faults, cutMs: this.#cutMs })}`);
    const { clock, checker } = this;
    this.#shard = new ShardSim({
      clock,
      random: this.#random.fork(),
      crashes: () => (this.isCalm ? 0 : this.#faults.shardCrash),
      committed: (change, table) => checker.committed(change, table),
      settled: ({ request, outcome }) => {
        say(`${clock.nowMs - START_MS} ${request.holder} ${outcome.ok ? outcome.value.fence : outcome.error.code}`);
        if (!outcome.ok) checker.gaveUp(request.seq);
        const contender = this.#contenders.find(({ line }) => line?.seq === request.seq);
        if (contender !== undefined && !this.#isLost()) contender.line!.end(outcome.ok ? outcome.value : null);
        const goal = this.#goals.find((one) => one.state.goal!.id === request.owner);
        if (goal !== undefined && !this.#isLost()) {
          clock.after(this.#random.between(0, 20), () => this.#step(goal, () => void goal.do({ kind: "locks-free", names: NAMES })));
        }
      },
    });
    this.#contenders = Array.from({ length: this.#random.between(0, 6) }, (_, i) => {
      const run = this.#shard.run.bind(this.#shard);
      return new Contender(`c${i}`, {
        clock,
        random: this.#random.fork(),
        names: NAMES,
        isCalm: () => this.isCalm,
        isLost: () => this.#isLost(),
        run,
        checker,
      });
    });
    this.#goals = Array.from({ length: this.#random.between(1, 3) }, (_, i) => this.#newGoal(i));
  }

  get isCalm(): boolean {
    return this.clock.nowMs >= START_MS + CALM_AFTER_MS;
  }

  #isLost(): boolean {
    return !this.isCalm && this.#random.chance(this.#faults.lost);
  }

  #isCut(goal: Driver): boolean {
    const { nowMs } = this.clock;
    return goal === this.#goals[0] && nowMs >= this.#cutMs[0] && nowMs < this.#cutMs[1];
  }

  #newGoal(i: number): Driver {
    const tasks: TaskSpec[] = [];
    for (let n = this.#random.between(1, 12); n > 0; n--) tasks.push(this.#task(tasks));
    const d = new Driver({ id: goalIdFrom(START_MS + i, new Uint8Array(16)), tasks });
    this.tasks += tasks.length;
    return d;
  }

  #task(before: readonly TaskSpec[]): TaskSpec {
    const random = this.#random;
    const lock = (name: string, scope: "goal" | "tenant"): LockSpec => ({ name, scope, mode: random.chance(0.3) ? "shared" : "exclusive" });
    const locks = [...OWN_NAMES.map((name) => lock(name, "goal")), ...NAMES.map((name) => lock(name, "tenant"))].filter(() =>
      random.chance(0.25),
    );
    const parent = random.chance(0.25) ? before[random.between(0, before.length - 1)] : undefined;
    const over = {
      key: `k${before.length}`,
      ...(parent !== undefined && { parentTaskId: parent.key! }),
      ...(locks.length > 0 && { locks }),
      // Locks that are taken one inside another can wait for each other, and only time ends that.
      ...(locks.length > 0 && isInside(before, parent) && { ttlMs: random.between(500, 20_000) }),
    };
    return random.chance(0.25) ? group(over) : get(over);
  }

  run(): void {
    const { clock } = this;
    for (const contender of this.#contenders) contender.start();
    for (const goal of this.#goals) this.#step(goal, () => undefined);
    for (let ms = 50; ms < CALM_AFTER_MS; ms += 50) clock.after(ms, () => this.#trouble());
    clock.after(CLEAR_AFTER_MS, () => this.#goals.forEach((goal) => this.#endWithMore(goal)));
    while (clock.nowMs < START_MS + END_AFTER_MS && clock.step());
    this.#judgeEnd();
  }

  /** In calm times, with nothing left from before: more tasks, and the end. */
  #endWithMore(goal: Driver): void {
    const { clock } = this;
    const more: TaskSpec[] = [];
    for (let n = 4; n > 0; n--) more.push({ ...this.#task([]), key: `more${n}` });
    this.tasks += more.length;
    this.#step(goal, () => {
      goal.submit(more);
      goal.do({ kind: "seal" });
    });
    for (let ms = 0; ms < 20_000; ms += 100) clock.after(ms, () => this.#judgeReleases());
  }

  /** When it was first seen that a hold at the shard is for nobody. */
  readonly #idleSinceMs = new Map<number, number>();

  /** A lock whose task has ended is free as soon as messages can make it so. Nobody outside holds one by then. */
  #judgeReleases(): void {
    const { nowMs } = this.clock;
    const used = new Set(this.#goals.flatMap(({ state }) => [...state.locks.tenant.claims.values()].flat().map(({ fence }) => fence)));
    for (const [name, { holds }] of this.#shard.table.locks) {
      for (const [fence, { holder }] of holds) {
        const sinceMs = this.#idleSinceMs.get(fence) ?? nowMs;
        if (used.has(fence)) this.#idleSinceMs.delete(fence);
        else this.#idleSinceMs.set(fence, sinceMs);
        if (!used.has(fence) && nowMs > sinceMs + RELEASE_MS)
          throw new Violation(`a lock is free when nobody uses it any more: "${name}" is held for ${holder} (${fence})`);
      }
    }
  }

  /** Something happens to a goal; what it has to say goes out, and what it may run runs. */
  #step(goal: Driver, act: () => void): void {
    const { clock } = this;
    goal.nowMs = clock.nowMs;
    if (goal.state.goal!.phase !== "active" && goal.state.locks.tenant.news.size === 0) return;
    goal.do({ kind: "tick" });
    act();
    for (const { tasks } of goal.dispatch()) {
      for (const task of tasks) {
        const attempt = goal.state.tasks.attempt[task]!;
        const isSlow = !this.isCalm && this.#random.chance(this.#faults.slow);
        clock.after(this.#random.between(1, isSlow ? 30_000 : 2_000), () => this.#finish(goal, task, attempt));
      }
    }
    this.#say(
      `${clock.nowMs - START_MS} ${goal.state.goal!.id.slice(-20, -14)} ${goal
        .statuses()
        .map((status) => status[0])
        .join("")} ${JSON.stringify([...goal.state.locks.tenant.claims])}`,
    );
    for (const message of goal.lockMessages.splice(0)) this.#tell(goal, message);
    this.#judge(goal);
    this.#judgeInside(goal);
    const atMs = Math.min(tenantLocksAt(goal.state), clock.nowMs + 1_000);
    if (goal.state.goal!.phase === "active" || goal.state.locks.tenant.news.size > 0) {
      clock.at(Math.max(atMs, clock.nowMs + 1), () => (goal.nowMs < clock.nowMs ? this.#step(goal, () => undefined) : undefined));
    }
  }

  #finish(goal: Driver, task: number, attempt: number): void {
    const answer = this.#random.chance(0.15) && !this.isCalm ? { status: 500 } : this.#random.chance(0.1) ? { status: 404 } : {};
    this.#step(goal, () => void goal.settle([task], { ...answer, attempt }));
  }

  #tell(goal: Driver, message: LockMessage): void {
    const { clock } = this;
    const answer = (news: LockNews | null): void => this.#step(goal, () => void goal.do({ kind: "lock-news", message, news }));
    const life = goal.state;
    clock.after(this.#random.between(0, 50), () => {
      const isHeard = !this.#isLost() && !this.#isCut(goal);
      const reply = isHeard ? this.#shard.run({ kind: "exchange", message }) : null;
      const news = reply === null || this.#isLost() || this.#isCut(goal) ? null : (reply as { value: { news: LockNews } }).value.news;
      // Whoever asked may have died meanwhile.
      clock.after(this.#random.between(0, 50), () => (goal.state === life ? answer(news) : undefined));
    });
  }

  #trouble(): void {
    this.#shard.compare();
    const goal = this.#random.pick(this.#goals);
    if (this.#random.chance(0.05))
      this.#step(goal, () => void goal.do({ kind: "cancel-task", task: this.#random.between(0, goal.state.tasks.n - 1) }));
    if (!isDurablyEqual(goal.replica, goal.state)) {
      throw new Violation("a goal rebuilt from disk equals the one in memory: its locks, too");
    }
    if (!this.#random.chance(this.#faults.crash)) return;
    goal.state = { ...goal.replayed(), life: LIFE };
    this.#step(goal, () => void goal.do({ kind: "recover" }));
  }

  /** What runs holds what it declares, alone where it has to be. */
  #judge(goal: Driver): void {
    const { state } = goal;
    const running = new Map<string, { task: number; isShared: boolean }[]>();
    for (let task = 0; task < state.tasks.n; task++) {
      if (state.tasks.status[task] !== RUNNING) continue;
      for (const { name, mode, scope } of goal.specOf(task).locks ?? []) {
        if (scope === "goal") running.set(name, [...(running.get(name) ?? []), { task, isShared: mode === "shared" }]);
      }
    }
    const isBelow = (task: number, above: number): boolean => task === above || (task >= 0 && isBelow(state.tasks.parent[task]!, above));
    for (const [name, all] of running) {
      const [first, ...others] = all;
      for (const other of others) {
        const isInside =
          this.#sharesScope(goal, name, first!.task, other.task) || isBelow(other.task, first!.task) || isBelow(first!.task, other.task);
        if (!isInside && !(first!.isShared && other.isShared)) {
          throw new Violation(`tasks under one exclusive lock do not overlap: "${name}", ${first!.task} and ${other.task}`);
        }
      }
    }
    for (let task = 0; task < state.tasks.n; task++) {
      const isHolding = state.locks.tenant.claims.has(task);
      if (!isHolding) for (const name of NAMES) this.checker.distrust(name, `${state.goal!.id}/${task}`);
      if (isHolding && isTerminal(state.tasks.status[task]!)) throw new Violation(`an ended task holds nothing: task ${task}`);
    }
    for (const [task, holds] of state.locks.tenant.claims) {
      for (const { name, fence, untilMs } of holds) {
        const isShared = goal.specOf(task).locks!.find((lock) => lock.name === name)!.mode === "shared";
        const holder = `${state.goal!.id}/${task}`;
        if (untilMs > goal.nowMs) this.checker.trust(name, { holder, fence, isShared, untilMs }, goal.nowMs);
      }
    }
  }

  /** What runs is inside every lock that it, or somebody above it, declares; what a goal has of the tenant's it has at the shard. */
  #judgeInside(goal: Driver): void {
    const { state } = goal;
    for (let task = 0; task < state.tasks.n; task++) {
      if (state.tasks.status[task] !== RUNNING) continue;
      for (let at = task; at >= 0; at = state.tasks.parent[at]!) {
        const path = holderOf(state, at);
        for (const { name, scope = "goal" } of goal.specOf(at).locks ?? []) {
          const isIn =
            scope === "tenant"
              ? state.locks.tenant.claims.get(at)?.some((hold) => hold.name === name)
              : [...(state.locks.table.locks.get(name)?.holders.keys() ?? [])].some((holder) => `${path}/`.startsWith(`${holder}/`));
          if (isIn !== true)
            throw new Violation(`what runs is inside the locks above it: task ${task} runs without "${name}" of task ${at}`);
        }
      }
    }
    for (const [task, holds] of state.locks.tenant.claims) {
      for (const { name, fence } of holds) {
        if (this.#shard.table.locks.get(name)?.holds.has(fence) !== true)
          throw new Violation(`a goal counts on a lock no longer than its lease: task ${task} on "${name}" (${fence})`);
      }
    }
  }

  /** Whether somebody above both declares the lock: they are inside it together. */
  #sharesScope(goal: Driver, name: string, a: number, b: number): boolean {
    const above = (task: number): number[] => (task < 0 ? [] : [task, ...above(goal.state.tasks.parent[task]!)]);
    const declares = (task: number): boolean => (goal.specOf(task).locks ?? []).some((lock) => lock.name === name);
    const ofB = new Set(above(b));
    return above(a).some((task) => ofB.has(task) && declares(task));
  }

  #judgeEnd(): void {
    for (const goal of this.#goals) {
      const { state } = goal;
      if (state.goal!.phase === "active") throw new Violation(`a sealed goal comes to an end: ${goal.statuses().join(" ")}`);
      const left = state.locks.table.locks.size + state.locks.live + state.locks.tenant.claims.size;
      if (left > 0) throw new Violation(`nothing of any lock is left of an ended goal: ${[...state.locks.table.locks.keys()].join(", ")}`);
    }
    this.#shard.run(null);
    if (this.#shard.table.locks.size > 0)
      throw new Violation(`what nobody holds is free: ${[...this.#shard.table.locks.keys()].join(", ")}`);
  }
}

/** Whether the task's parent, or one above it, declares locks. */
function isInside(all: readonly TaskSpec[], parent: TaskSpec | undefined): boolean {
  if (parent === undefined) return false;
  return (
    parent.locks !== undefined ||
    isInside(
      all,
      all.find(({ key }) => key === parent.parentTaskId),
    )
  );
}

/** Runs one seed. `print` gets every line of its log. */
export function runSeed(seed: number, print: (line: string) => void = () => undefined): Outcome {
  const { world, ...outcome } = runWorld(seed, print, (say) => new World(seed, say));
  return { ...outcome, grants: world.checker.grants, tasks: world.tasks };
}
