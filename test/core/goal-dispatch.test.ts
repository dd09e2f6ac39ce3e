/** What is sent when, where permits are no question: window, lanes, priorities, batches; and when the goal must wake. */
import { expect, test } from "vitest";
import { isBusy, wakeAt } from "../../durable-objects/goal/core/wake.ts";
import { BATCH_LANES_MAX, BATCH_TASKS_MAX, LANES_DEFAULT } from "../../shared/limits.ts";
import type { TaskSpec } from "../../shared/protocol/task.ts";
import { Driver, get, group, post, START_MS, upstream } from "./goal-harness.ts";

const many = (count: number, spec: () => TaskSpec = get): TaskSpec[] => Array.from({ length: count }, spec);
const sizes = (d: Driver): number[] => d.dispatch().map(({ tasks }) => tasks.length);
const sum = (numbers: readonly number[]): number => numbers.reduce((a, b) => a + b, 0);

/** Small integers that look like chance and are the same in every run. */
function numbers(seed: number): () => number {
  let state = seed;
  return () => (state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0) >>> 16;
}

test.for([1, 2, 5, 6, 7, 13, 100])("with maxConcurrency %s, what runs never exceeds it, and it is used in full", (maxConcurrency) => {
  const d = new Driver({ tasks: many(300), upstreams: [upstream({ maxConcurrency })] });
  const next = numbers(maxConcurrency);
  const open: number[] = [];
  for (let turn = 0; turn < 2_000 && (d.state.counts[0]! > 0 || open.length > 0); turn++) {
    for (const { tasks, lanes } of d.dispatch()) {
      expect(lanes).toBeLessThanOrEqual(BATCH_LANES_MAX);
      open.push(...tasks);
    }
    expect(open.length).toBeLessThanOrEqual(maxConcurrency);
    expect(open.length).toBe(Math.min(maxConcurrency, open.length + d.state.counts[0]!));
    d.nowMs++;
    const [task] = open.splice(next() % open.length, 1);
    d.settle([task!]);
  }
  expect(d.state.counts[3]).toBe(300);
  expect(d.state.upstreams[0]).toMatchObject({ running: 0, lanes: 0, queued: 0 });
});

test("without maxConcurrency the lanes are Drover's own, and a batch has at most six", () => {
  const d = new Driver({ tasks: many(5_000) });
  const sends = d.dispatch();
  expect(sum(sends.map(({ lanes }) => lanes))).toBe(LANES_DEFAULT);
  expect(Math.max(...sends.map(({ lanes }) => lanes))).toBe(BATCH_LANES_MAX);
});

test("batches grow with a fast upstream up to their bound, and stay small with a slow one", () => {
  const grown = (ms: number): number => {
    const d = new Driver({ tasks: many(5_000) });
    for (let turn = 0; turn < 3; turn++) {
      for (const { tasks } of d.dispatch()) {
        d.nowMs += 1;
        d.settle(tasks, { ms });
      }
    }
    return Math.max(...sizes(d));
  };
  expect(grown(0)).toBe(BATCH_TASKS_MAX);
  expect(grown(1_000)).toBe(BATCH_LANES_MAX);
});

test("a straggler holds its lane, not its batch's six", () => {
  const d = new Driver({ tasks: many(20), upstreams: [upstream({ maxConcurrency: 6 })] });
  const [send] = d.dispatch();
  d.settle(send!.tasks.slice(1));
  expect(sizes(d)).toEqual([5]);
});

test("interactive goes before normal, normal before background, each in its own order", () => {
  const d = new Driver({
    tasks: [
      get({ priority: "background" }),
      get(),
      get({ priority: "interactive" }),
      get({ priority: "background" }),
      get({ priority: "interactive" }),
    ],
    upstreams: [upstream({ maxConcurrency: 1 })],
  });
  const order: number[] = [];
  for (let sends = d.dispatch(); sends.length > 0; sends = d.dispatch()) {
    order.push(...sends[0]!.tasks);
    d.settle(sends[0]!.tasks);
  }
  expect(order).toEqual([2, 4, 1, 0, 3]);
});

test("what must not be repeated is only sent in batches no larger than their lanes", () => {
  const next = numbers(5);
  const tasks = many(2_000, () => (next() % 50 === 0 ? post() : get()));
  const d = new Driver({ tasks });
  let mixed = 0;
  for (let sends = d.dispatch(); sends.length > 0; sends = d.dispatch()) {
    for (const { tasks: batch, lanes } of sends) {
      if (batch.some((task) => tasks[task]!.call!.method === "POST")) {
        expect(batch.length).toBeLessThanOrEqual(lanes);
        mixed++;
      }
      d.settle(batch, { ms: 0 });
    }
  }
  expect(mixed).toBeGreaterThan(10);
  expect(d.state.counts[3]).toBe(2_000);
});

test("upstreams have windows of their own", () => {
  const other: TaskSpec = { call: { upstream: "other", path: "/" } };
  const upstreams = [upstream({ maxConcurrency: 2 }), upstream({ name: "other", maxConcurrency: 3 })];
  const d = new Driver({ tasks: [...many(9), ...many(9, () => other)], upstreams });
  expect(d.dispatch().map(({ upstream, tasks }) => [upstream, tasks.length])).toEqual([
    [0, 2],
    [1, 3],
  ]);
});

test("a registry that is newer changes the window, an older one nothing, and a deleted upstream's tasks wait until it is back", () => {
  const d = new Driver({ tasks: many(9), upstreams: [upstream({ maxConcurrency: 1 })] });
  d.do({ kind: "upstreams", version: 5, upstreams: [upstream({ maxConcurrency: 2 })] });
  expect(sizes(d)).toEqual([2]);
  d.do({ kind: "upstreams", version: 4, upstreams: [upstream({ maxConcurrency: 9 })] });
  expect(sizes(d)).toEqual([]);
  d.do({ kind: "upstreams", version: 6, upstreams: [] });
  d.settle([0, 1]);
  expect(sizes(d)).toEqual([]);
  expect(isBusy(d.state)).toBe(false);
  d.do({ kind: "upstreams", version: 7, upstreams: [upstream()] });
  expect(sum(sizes(d))).toBe(7);
});

// Waking.

test("a goal that was never created does not wake", () => {
  const d = new Driver({ tasks: [{ call: { upstream: "nope", path: "/" } }] });
  expect(d.state.goal).toBeNull();
  expect(wakeAt(d.state)).toBeNull();
  expect(isBusy(d.state)).toBe(false);
});

test("work that lacks only room does not wake the goal, though its gate or its governor's opened long ago", () => {
  const gated = new Driver({ tasks: many(3), upstreams: [upstream({ maxConcurrency: 1 })] });
  gated.dispatch();
  gated.settle([0], { status: 429, retryAfterMs: 10 });
  gated.passMs(10_000);
  gated.dispatch();
  expect(wakeAt(gated.state)).toBeGreaterThan(gated.nowMs);
  expect(isBusy(gated.state)).toBe(true);
  const held = new Driver({ tasks: many(3), governor: "by hand" });
  held.grant({ calls: 1, gateMs: 100 });
  held.passMs(100);
  held.dispatch();
  held.grant({ calls: 1, gateMs: 100 });
  held.passMs(5_000);
  held.dispatch();
  expect(held.state.counts).toMatchObject({ 0: 2, 2: 1 });
  expect(wakeAt(held.state)).toBeGreaterThan(held.nowMs);
});

test("a gated upstream wakes the goal when its gate opens, but not while the goal is paused", () => {
  const d = new Driver({ tasks: many(2), upstreams: [upstream({ maxConcurrency: 1 })] });
  d.dispatch();
  d.settle([0], { status: 429, retryAfterMs: 3_000 });
  expect(wakeAt(d.state)).toBe(START_MS + 3_000);
  d.do({ kind: "pause" });
  expect(wakeAt(d.state)).toBeGreaterThanOrEqual(START_MS + 3_000);
});

test("a goal is busy while a call is out or could go out, and not otherwise", () => {
  const d = new Driver({ tasks: [group({ key: "g" })] });
  expect(isBusy(d.state)).toBe(false);
  d.submit([get({ parentTaskId: "g" })]);
  expect(isBusy(d.state)).toBe(true);
  d.dispatch();
  expect(isBusy(d.state)).toBe(true);
  d.settle([1]);
  expect(isBusy(d.state)).toBe(false);
});
