/** Tasks that coalesce: who makes the call, who gets its result, and what becomes of the others when there is none. */
import { expect, test } from "vitest";
import { wakeAt } from "../../durable-objects/goal/core/wake.ts";
import { flightsAtMs } from "../../durable-objects/goal/core/flight-turn.ts";
import { GoalFlights } from "../../durable-objects/flight/goals.ts";
import { goalIdFrom } from "../../shared/ids.ts";
import { FLIGHT_GOAL_LEASE_MS } from "../../shared/limits-flight.ts";
import type { GoalFlightNews } from "../../shared/protocol/flight.ts";
import type { TaskSpec } from "../../shared/protocol/task.ts";
import { Driver, durable, get, post, START_MS, upstream } from "./goal-harness.ts";

const same = (path: string, over: Partial<TaskSpec> = {}): TaskSpec => ({ ...get(over), call: { upstream: "api", path }, coalesce: true });
const many = (count: number, path = "/a"): TaskSpec[] => Array.from({ length: count }, () => same(path));

/** Goals, and one shard that serves all keys. */
class World {
  readonly shard = new GoalFlights((goalId, news) => this.#pushed.push([goalId, news]));
  readonly #pushed: [string, GoalFlightNews][] = [];
  readonly goals = new Map<string, Driver>();

  goal(tasks: readonly TaskSpec[], options: ConstructorParameters<typeof Driver>[0] = {}): Driver {
    const id = goalIdFrom(START_MS, new Uint8Array(16).fill(this.goals.size + 1));
    const driver = new Driver({ tasks, id, ...options });
    this.goals.set(id, driver);
    return driver;
  }

  /** Until nobody has anything to say. Answers with the tasks that were sent, by goal. */
  run(): number[][] {
    const sent = [...this.goals.values()].map((): number[] => []);
    for (let isBusy = true; isBusy;) {
      isBusy = false;
      [...this.goals.values()].forEach((driver, i) => {
        const tasks = driver.dispatch().flatMap((send) => send.tasks);
        sent[i]!.push(...tasks);
        for (const message of driver.flightMessages.splice(0)) {
          isBusy = true;
          driver.do({ kind: "flight-news", message, news: this.shard.exchange(message, driver.nowMs) });
        }
      });
      for (const [goalId, news] of this.#pushed.splice(0)) {
        isBusy = true;
        this.goals.get(goalId)?.do({ kind: "flight-news", message: null, news });
      }
    }
    return sent;
  }

  wait(ms: number): void {
    for (const driver of this.goals.values()) {
      driver.nowMs += ms;
      driver.do({ kind: "tick" });
    }
    this.shard.tick(Math.max(...[...this.goals.values()].map(({ nowMs }) => nowMs)));
  }
}

const all = (d: Driver, status: string): void => expect(new Set(d.statuses())).toEqual(new Set([status]));

test("equal tasks of a goal are one call, and all have its result; the others were no attempts", () => {
  const world = new World();
  const d = world.goal([...many(100), ...many(100, "/b"), get()]);
  expect(world.run()).toEqual([[200, 0, 100]]);
  expect(d.state.tasks.reason[1]).toBe(7);
  d.settle([0]);
  d.settle([100]);
  d.settle([200]);
  all(d, "succeeded");
  const { resultRow, resultIndex, attempt, usedCalls } = d.state.tasks;
  expect([resultRow[99], resultIndex[99]]).toEqual([resultRow[0], resultIndex[0]]);
  expect([attempt[0], attempt[99], usedCalls[0], usedCalls[99], d.state.calls]).toEqual([1, 0, 1, 0, 3]);
  expect(d.state.flights.groups.size + d.state.flights.of.size).toBe(0);
  expect(durable(d.replayed())).toEqual(durable(d.state));
});

test("equal tasks of two goals are one call, and no goal that waits holds a permit or a reservation", () => {
  const world = new World();
  const one = world.goal(many(10));
  const two = world.goal(many(10), { spec: { budget: { calls: 5 } } });
  expect(world.run()).toEqual([[0], []]);
  expect(two.state.budget.account.reserved).toEqual([0, 0, 0, 0]);
  one.settle([0]);
  world.run();
  all(one, "succeeded");
  all(two, "succeeded");
  expect([one.state.calls, two.state.calls, two.state.budget.account.spent[1]]).toEqual([1, 0, 0]);
  expect(durable(two.replayed())).toEqual(durable(two.state));
});

test("what is not equal is not merged: another method, body, header, or function", () => {
  const world = new World();
  const call = { upstream: "api", path: "/a" };
  const d = world.goal([
    same("/a"),
    same("/a?x"),
    { call: { ...call, headers: { "X-Api-Key": "1" } }, coalesce: true },
    { call: { ...call, headers: { "x-api-key": "2" } }, coalesce: true },
    { call: { ...call, headers: { "x-api-key": "2" } }, coalesce: true },
    { call: { ...call, method: "POST", body: { a: 1, b: 2 } }, coalesce: true },
    { call: { ...call, method: "POST", body: { b: 2, a: 1 } }, coalesce: true },
    { call: { ...call, method: "PUT", body: { a: 1, b: 2 } }, coalesce: true },
    get({ call }),
  ]);
  expect(world.run()[0]!.toSorted((a, b) => a - b)).toEqual([0, 1, 2, 3, 5, 7, 8]);
  expect(d.status(4)).toBe("waiting");
});

test("a captain that fails is followed by the next; after three in a row everybody tries by itself", () => {
  const world = new World();
  const d = world.goal(many(6));
  for (const captain of [0, 1, 2]) {
    expect(world.run()).toEqual([[captain]]);
    d.settle([captain], { status: 404 });
    expect(d.status(captain)).toBe("failed");
  }
  expect(world.run()).toEqual([[3, 4, 5]]);
  d.settle([3]);
  expect([d.status(3), d.status(4)]).toEqual(["succeeded", "running"]);
  expect(durable(d.replayed())).toEqual(durable(d.state));
});

test("a captain that is tried again stays captain, and one that is canceled is followed by the next", () => {
  const world = new World();
  const d = world.goal(many(3));
  world.run();
  d.settle([0], { status: 503 });
  expect([d.status(0), d.status(1)]).toEqual(["waiting", "waiting"]);
  world.wait(60_000);
  expect(world.run()).toEqual([[0]]);
  d.do({ kind: "cancel-task", task: 0 });
  expect(world.run()).toEqual([[1]]);
  d.settle([1]);
  expect(d.statuses()).toEqual(["canceled", "succeeded", "succeeded"]);
  expect(durable(d.replayed())).toEqual(durable(d.state));
});

test("a failure is not told to other goals: the next goal makes the call", () => {
  const world = new World();
  const one = world.goal(many(1));
  const two = world.goal(many(2));
  world.run();
  one.settle([0], { status: 404 });
  expect(world.run()).toEqual([[], [0]]);
  two.settle([0]);
  all(two, "succeeded");
});

test("where nobody knows what became of a captain's call, the others do not wait for the verdict", () => {
  const world = new World();
  const spec: TaskSpec = { ...post(), coalesce: true };
  const d = world.goal([spec, spec]);
  world.run();
  d.settle([0], { outcome: "broken", status: 0 });
  expect(d.status(0)).toBe("waiting");
  expect(world.run()).toEqual([[1]]);
});

test("a goal that leads and is heard of no more is followed by another: one call more, and no task fails", () => {
  const world = new World();
  const one = world.goal(many(2));
  const two = world.goal(many(2));
  expect(world.run()).toEqual([[0], []]);
  world.goals.delete(one.state.goal!.id);
  for (let ms = 0; ms < FLIGHT_GOAL_LEASE_MS; ms += 1_000) {
    expect(world.run()).toEqual([[]]);
    world.wait(1_000);
  }
  expect(world.run()).toEqual([[0]]);
  two.settle([0]);
  all(two, "succeeded");
});

test("a goal that begins anew asks again before it calls, and makes no call that another goal makes by then", () => {
  const world = new World();
  const one = world.goal([...many(2), ...many(2, "/b"), ...many(1, "/c")], { upstreams: [upstream({ maxConcurrency: 1 })] });
  const two = world.goal(many(2));
  expect(world.run()).toEqual([[0], []]);
  // Whoever forgets what was asked asks first.
  world.shard.exchange(
    { goalId: one.state.goal!.id, shard: 0, renews: [], asks: [], ends: [{ key: one.state.flights.keys[0]!, how: "left" }] },
    one.nowMs,
  );
  expect(one.statuses()).toEqual(["running", "waiting", "queued", "waiting", "queued"]);
  one.do({ kind: "recover" });
  expect(one.statuses()).toEqual(one.statuses().map(() => "waiting"));
  expect(durable(one.replayed())).toEqual(durable(one.state));
  expect(world.run()).toEqual([[2], [0]]);
  two.settle([0]);
  world.run();
  expect(one.statuses().slice(0, 2)).toEqual(["succeeded", "succeeded"]);
});

test("a goal that never heard that it leads does not hold up the others by what else it leads", () => {
  const world = new World();
  const one = world.goal([...many(1), ...many(1, "/b")]);
  // Its answer gets lost, and then nobody here wants it any more.
  one.dispatch();
  for (const message of one.flightMessages.splice(0)) {
    const news = world.shard.exchange(message, one.nowMs);
    const isLost = message.asks.includes(one.state.flights.keys[0]!);
    one.do({ kind: "flight-news", message, news: isLost ? null : news });
  }
  one.state.flights.soft.told.clear();
  one.do({ kind: "cancel-task", task: 0 });
  const two = world.goal(many(1));
  two.nowMs = one.nowMs;
  const sent: number[] = [];
  for (let ms = 0; ms <= FLIGHT_GOAL_LEASE_MS + 1_000; ms += 1_000) {
    sent.push(...world.run()[1]!);
    world.wait(1_000);
  }
  expect(sent).toEqual([0]);
});

test("a goal that leads on is not taken to be gone, and one that is paused is", () => {
  const world = new World();
  const one = world.goal(many(2));
  world.goal(many(2));
  world.run();
  for (let ms = 0; ms <= 2 * FLIGHT_GOAL_LEASE_MS; ms += 1_000) {
    world.wait(1_000);
    expect(world.run()).toEqual([[], []]);
  }
  one.do({ kind: "pause" });
  const sent: number[] = [];
  for (let ms = 0; ms <= 2 * FLIGHT_GOAL_LEASE_MS; ms += 1_000) {
    world.wait(1_000);
    sent.push(...world.run()[1]!);
  }
  expect(sent).toEqual([0]);
});

test("a goal that ends lets the others go on at once", () => {
  const world = new World();
  const one = world.goal(many(2));
  world.goal(many(2));
  world.run();
  one.do({ kind: "cancel" });
  expect(world.run()).toEqual([[], [0]]);
  expect(flightsAtMs(one.state)).toBe(Number.MAX_SAFE_INTEGER);
});

test("a shard that does not answer is asked again, and its goal wakes for that", () => {
  const d = new Driver({ tasks: many(2) });
  d.dispatch();
  const message = d.flightMessages.splice(0)[0]!;
  expect(message.asks).toHaveLength(1);
  d.do({ kind: "flight-news", message, news: null });
  const atMs = flightsAtMs(d.state);
  expect(atMs).toBeGreaterThan(d.nowMs);
  expect(wakeAt(d.state)).toBeLessThanOrEqual(atMs);
  d.nowMs = atMs;
  d.dispatch();
  expect(d.flightMessages.splice(0)[0]!.asks).toEqual(message.asks);
});

test("a result that is too long for others is shared in its goal, and other goals make their own calls", () => {
  const world = new World();
  const one = world.goal(many(2));
  const two = world.goal(many(2));
  world.run();
  const line = one.line(0).replace('"body":null', `"body":"${"x".repeat(70_000)}"`);
  one.do({ kind: "settle", lines: [line], seed: 7 });
  all(one, "succeeded");
  expect(world.run()).toEqual([[], [0, 1]]);
  expect(two.status(0)).toBe("running");
});

test("an upstream that says so shares nothing", () => {
  const world = new World();
  world.goal(many(3), { upstreams: [upstream({ coalesce: "off" })] });
  expect(world.run()).toEqual([[0, 1, 2]]);
});
