/**
 * Goals with equal tasks, and the shard that they ask for the lead. Messages
 * get lost both ways, goals and the shard crash, tasks are canceled, fail, and
 * run out of time.
 */
import { FOR_FLIGHT, isTerminal, RUNNING, SUCCEEDED, WAITING } from "../../../durable-objects/goal/core/codes.ts";
import { flightsAtMs } from "../../../durable-objects/goal/core/flight-turn.ts";
import { GoalFlights } from "../../../durable-objects/flight/goals.ts";
import { goalIdFrom } from "../../../shared/ids.ts";
import { FLIGHT_GOAL_LEASE_MS } from "../../../shared/limits-flight.ts";
import type { FlightMessage, GoalFlightNews } from "../../../shared/protocol/flight.ts";
import type { TaskSpec } from "../../../shared/protocol/task.ts";
import { Driver, LIFE } from "../../core/goal-harness.ts";
import type { Clock } from "../clock.ts";
import { isDurablyEqual } from "../durable.ts";
import type { Random } from "../random.ts";
import { must } from "../violation.ts";

const PATHS = ["/a", "/b", "/c"];
const CALM_AFTER_MS = 20_000;

export class Goals {
  tasks = 0;
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #say: (text: string) => void;
  readonly #startMs: number;
  readonly #faults: {
    readonly lost: number;
    readonly crash: number;
    readonly shardCrash: number;
    readonly fails: number;
    readonly cancels: number;
  };
  readonly #goals: Driver[];
  #shard = this.#newShard();
  /** Calls under way, by path. */
  readonly #open = new Map<string, Set<string>>();
  /** Paths whose equal tasks each make a call of their own by now. */
  readonly #parted = new Set<string>();

  constructor(clock: Clock, random: Random, say: (text: string) => void) {
    this.#clock = clock;
    this.#random = random;
    this.#say = say;
    this.#startMs = clock.nowMs;
    this.#faults = random.chance(0.3)
      ? { lost: 0, crash: 0, shardCrash: 0, fails: random.some(0.5), cancels: random.some(0.1) }
      : {
          lost: random.some(0.3),
          crash: random.some(0.1),
          shardCrash: random.some(0.05),
          fails: random.some(0.5),
          cancels: random.some(0.1),
        };
    say(JSON.stringify(this.#faults));
    this.#goals = Array.from({ length: random.between(1, 3) }, (_, i) => this.#newGoal(i));
  }

  /** Nothing gets lost and nobody crashes. */
  get #isSafe(): boolean {
    return this.#faults.lost + this.#faults.crash + this.#faults.shardCrash === 0;
  }

  get #isCalm(): boolean {
    return this.#clock.nowMs >= this.#startMs + CALM_AFTER_MS;
  }

  #isLost(): boolean {
    return !this.#isCalm && this.#random.chance(this.#faults.lost);
  }

  #newShard(): GoalFlights {
    return new GoalFlights((goalId, news) => {
      const goal = this.#goals.find(({ state }) => state.goal!.id === goalId)!;
      if (!this.#isLost()) this.#clock.after(this.#random.between(0, 50), () => this.#hear(goal, null, news));
    });
  }

  #newGoal(i: number): Driver {
    const tasks = Array.from({ length: this.#random.between(1, 15) }, (): TaskSpec => {
      const path = this.#random.pick(PATHS);
      return {
        call: { upstream: "api", path },
        coalesce: true,
        retry: { maxAttempts: 2 },
        ...(this.#random.chance(0.1) && { ttlMs: this.#random.between(100, 5_000) }),
      };
    });
    this.tasks += tasks.length;
    return new Driver({ tasks, id: goalIdFrom(this.#startMs + i, new Uint8Array(16)), spec: { sealed: true, budget: { calls: 1_000 } } });
  }

  start(): void {
    for (const goal of this.#goals) this.#step(goal, () => undefined);
    for (let ms = 100; ms < CALM_AFTER_MS; ms += 100) this.#clock.after(ms, () => this.#trouble());
    for (let ms = 1_000; ms < 6 * CALM_AFTER_MS; ms += 1_000) this.#clock.after(ms, () => this.#shard.tick(this.#clock.nowMs));
  }

  #trouble(): void {
    const goal = this.#random.pick(this.#goals);
    if (this.#random.chance(this.#faults.cancels)) {
      this.#step(goal, () => void goal.do({ kind: "cancel-task", task: this.#random.between(0, goal.state.tasks.n - 1) }));
    }
    if (this.#random.chance(this.#faults.shardCrash)) {
      this.#say("the shard is lost");
      this.#shard = this.#newShard();
    }
    must(isDurablyEqual(goal.replica, goal.state), "a goal rebuilt from disk equals the one in memory", () => "its flights, too");
    if (!this.#random.chance(this.#faults.crash)) return;
    this.#say(`${goal.state.goal!.id} begins anew`);
    for (const open of this.#open.values()) for (const one of open) if (one.startsWith(goal.state.goal!.id)) open.delete(one);
    goal.state = { ...goal.replayed(), life: LIFE };
    this.#step(goal, () => void goal.do({ kind: "recover" }));
  }

  #pathOf(goal: Driver, task: number): string {
    return goal.specOf(task).call!.path;
  }

  #step(goal: Driver, act: () => void): void {
    const clock = this.#clock;
    goal.nowMs = clock.nowMs;
    if (goal.state.goal!.phase !== "active" && goal.state.flights.soft.fresh.size === 0) return;
    goal.do({ kind: "tick" });
    act();
    const sends = goal.dispatch();
    for (const [, task] of goal.aborts.splice(0)) this.#open.get(this.#pathOf(goal, task))?.delete(`${goal.state.goal!.id}/${task}`);
    for (const { tasks } of sends) for (const task of tasks) this.#call(goal, task);
    this.#judge(goal);
    for (const message of goal.flightMessages.splice(0)) this.#tell(goal, message);
    const atMs = Math.min(flightsAtMs(goal.state), clock.nowMs + 1_000);
    clock.at(Math.max(atMs, clock.nowMs + 1), () => (goal.nowMs < clock.nowMs ? this.#step(goal, () => undefined) : undefined));
  }

  #call(goal: Driver, task: number): void {
    const path = this.#pathOf(goal, task);
    const attempt = goal.state.tasks.attempt[task]!;
    const id = `${goal.state.goal!.id}/${task}`;
    const open = this.#open.get(path) ?? new Set<string>();
    this.#open.set(path, open);
    this.#say(`${this.#clock.nowMs - this.#startMs} call ${id} ${path}`);
    if (!goal.state.flights.of.has(task)) this.#parted.add(path);
    if (this.#isSafe && !this.#parted.has(path))
      must(open.size === 0, "equal tasks are one call at a time", () => `${id} beside ${[...open].join(", ")}`);
    open.add(id);
    this.#clock.after(this.#random.between(1, 3_000), () => {
      open.delete(id);
      const answer = this.#isCalm || !this.#random.chance(this.#faults.fails) ? {} : { status: this.#random.chance(0.5) ? 404 : 500 };
      this.#step(goal, () => {
        const { status, attempt: current } = goal.state.tasks;
        const isCurrent = status[task] === RUNNING && current[task] === attempt;
        const isShared = goal.state.flights.of.has(task) && answer.status === undefined && isCurrent;
        const waiting = this.#waitingLike(goal, path);
        goal.do({ kind: "settle", lines: [goal.line(task, { ...answer, attempt }).replace('"body":null', `"body":"${path}"`)], seed: 7 });
        if (!isShared) return;
        for (const other of waiting) {
          must(goal.state.tasks.status[other] === SUCCEEDED, "a result is that of all who wait for it", () => `${other} has none of ${id}`);
        }
      });
    });
  }

  #waitingLike(goal: Driver, path: string): number[] {
    const { status, reason, n } = goal.state.tasks;
    const all = Array.from({ length: n }, (_, task) => task);
    return all.filter((task) => status[task] === WAITING && reason[task] === FOR_FLIGHT && this.#pathOf(goal, task) === path);
  }

  #tell(goal: Driver, message: FlightMessage): void {
    for (const end of message.ends) {
      if ("payload" in end) this.#checkPayload(goal, end.key, end.payload);
      if ("how" in end && end.how === "failed") this.#say(`${end.key.slice(0, 4)} failed`);
    }
    const life = goal.state;
    this.#clock.after(this.#random.between(0, 50), () => {
      const news = this.#isLost() ? null : this.#shard.exchange(message, this.#clock.nowMs);
      const heard = this.#isLost() ? null : news;
      this.#clock.after(this.#random.between(0, 50), () => (goal.state === life ? this.#hear(goal, message, heard) : undefined));
    });
  }

  #checkPayload(goal: Driver, key: string, payload: string): void {
    const task = [...goal.state.flights.numbers].find(([text]) => text === key)?.[1];
    const path = (JSON.parse(payload) as { body: string }).body;
    const like = Array.from({ length: goal.state.tasks.n }, (_, at) => at).find((at) => this.#pathOf(goal, at) === path);
    must(task !== undefined && like !== undefined, "an answer is that of an equal call", () => `${key} was answered by ${path}`);
  }

  #hear(goal: Driver, message: FlightMessage | null, news: GoalFlightNews | null): void {
    for (const { key, payload } of news?.answers ?? []) this.#checkPayload(goal, key, payload);
    this.#step(goal, () => void goal.do({ kind: "flight-news", message, news }));
  }

  #judge(goal: Driver): void {
    const { tasks, flights, budget } = goal.state;
    let running = 0;
    const byKey = new Map<number, number>();
    for (let task = 0; task < tasks.n; task++) {
      const key = flights.of.get(task);
      if (tasks.status[task] === RUNNING) running++;
      if (key !== undefined && tasks.status[task] === RUNNING) byKey.set(key, (byKey.get(key) ?? 0) + 1);
      must(key === undefined || !isTerminal(tasks.status[task]!), "an ended task flies with nobody", () => `task ${task}`);
      if (tasks.status[task] === WAITING && tasks.reason[task] === FOR_FLIGHT)
        must(key !== undefined && tasks.batch[task] === 0, "who waits for an equal task holds no permit", () => `task ${task}`);
    }
    for (const [key, count] of byKey) must(count === 1, "of equal tasks of a goal one calls", () => `${count} of key ${key}`);
    must(budget.account.reserved[1] === running, "only what runs has calls reserved", () => `${budget.account.reserved[1]} for ${running}`);
  }

  judgeEnd(): void {
    for (const goal of this.#goals) {
      must(goal.state.goal!.phase !== "active", "a sealed goal comes to an end", () => goal.statuses().join(" "));
      const { groups, of } = goal.state.flights;
      must(groups.size + of.size === 0, "nothing of any flight is left of an ended goal", () => [...groups.keys()].join(", "));
    }
    this.#shard.tick(this.#clock.nowMs + FLIGHT_GOAL_LEASE_MS);
    this.#shard.tick(this.#clock.nowMs + 20 * FLIGHT_GOAL_LEASE_MS);
    must(this.#shard.isIdle, "nothing is left of flights that are over", () => "in the shard");
  }
}
