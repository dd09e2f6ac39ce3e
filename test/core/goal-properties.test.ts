/**
 * Whatever is asked in whatever order: what disk would give back is what memory
 * holds, a snapshot loses nothing, and every counter is what a recount finds.
 */
import fc from "fast-check";
import { expect, test } from "vitest";
import { QUEUED, RUNNING, isTerminal } from "../../durable-objects/goal/core/codes.ts";
import { COLUMN_NAMES } from "../../durable-objects/goal/core/columns.ts";
import { fromSnapshot, type SnapshotMeta, toSnapshot } from "../../durable-objects/goal/core/snapshot.ts";
import type { GoalState } from "../../durable-objects/goal/core/state.ts";
import { wakeAt } from "../../durable-objects/goal/core/wake.ts";
import type { LockSpec, TaskSpec } from "../../shared/protocol/task.ts";
import { OUTCOMES } from "../../shared/protocol/line.ts";
import { Driver, durable, get, group, post, upstream } from "./goal-harness.ts";

const KEYS = ["a", "b", "c", "d"];
const key = fc.constantFrom(...KEYS);
const maybe = <T>(arb: fc.Arbitrary<T>): fc.Arbitrary<T | undefined> => fc.option(arb, { nil: undefined, freq: 2 });

const rule = fc.record({ failFast: fc.boolean(), minSuccessful: fc.integer({ min: 1, max: 4 }) }, { requiredKeys: [] });

const lock = fc.record(
  { name: fc.constantFrom("l1", "l2"), mode: fc.constantFrom("exclusive", "shared"), scope: fc.constantFrom("goal", "tenant") },
  { requiredKeys: ["name"] },
) as fc.Arbitrary<LockSpec>;

const spec: fc.Arbitrary<TaskSpec> = fc
  .record({
    make: fc.constantFrom(get, get, post, group),
    key: maybe(key),
    parentTaskId: maybe(key),
    after: maybe(fc.array(key, { maxLength: 2 })),
    afterEnd: maybe(fc.array(key, { maxLength: 2 })),
    priority: maybe(fc.constantFrom("interactive", "background")),
    ttlMs: maybe(fc.integer({ min: 1, max: 2_000 })),
    completion: maybe(rule),
    locks: maybe(fc.uniqueArray(lock, { minLength: 1, maxLength: 2, selector: ({ name }) => name })),
    retry: maybe(fc.record({ maxAttempts: fc.integer({ min: 1, max: 3 }) })),
  })
  .map(({ make, ...rest }) => make(JSON.parse(JSON.stringify(rest)) as Partial<TaskSpec>));

type Act = (d: Driver) => void;
const taskOf = (d: Driver, n: number): number => (d.state.tasks.n === 0 ? 0 : n % d.state.tasks.n);

const act: fc.Arbitrary<Act> = fc.oneof(
  fc.tuple(fc.array(spec, { maxLength: 6 }), fc.boolean()).map(
    ([specs, atomic]): Act =>
      (d) =>
        void d.submit(specs, atomic),
  ),
  fc.constant<Act>((d) => void d.dispatch()),
  fc.constant<Act>((d) => void d.dispatch()),
  fc
    .record({
      n: fc.nat(50),
      outcome: fc.constantFrom(...OUTCOMES),
      status: fc.constantFrom(200, 200, 404, 429, 500),
      retryAfterMs: fc.constantFrom(0, 0, 300),
      ms: fc.nat(500),
      stale: fc.boolean(),
    })
    .map(({ n, stale, ...answer }): Act => (d) => {
      const running = Array.from({ length: d.state.tasks.n }, (_, task) => task).filter((task) => d.state.tasks.status[task] === RUNNING);
      const task = running.length > 0 ? running[n % running.length]! : taskOf(d, n);
      if (task < d.state.tasks.n) d.settle([task], stale && n % 7 === 0 ? { ...answer, attempt: 0 } : answer);
    }),
  fc.constantFrom(1, 50, 1_000, 30_000, 45_000).map(
    (ms): Act =>
      (d) =>
        d.passMs(ms),
  ),
  fc.constantFrom("pause", "resume", "recover").map(
    (kind): Act =>
      (d) =>
        void d.do({ kind }),
  ),
  fc.nat(50).map(
    (n): Act =>
      (d) =>
        void d.do({ kind: "cancel-task", task: taskOf(d, n) }),
  ),
  fc.nat(50).map(
    (n): Act =>
      (d) =>
        void d.do({ kind: "retry-task", task: taskOf(d, n) }),
  ),
  fc.nat(50).map(
    (n): Act =>
      (d) =>
        void d.do({ kind: "batch-lost", batch: 1 + (n % 9) }),
  ),
  fc.tuple(fc.nat(50), fc.constantFrom("succeeded", "failed", "retry")).map(
    ([n, as]): Act =>
      (d) =>
        void d.do({ kind: "resolve", task: taskOf(d, n), as, line: null }),
  ),
  fc.constantFrom<Act>(
    (d) => void d.do({ kind: "upstreams", version: d.state.registryVersion + 1, upstreams: [] }),
    (d) => void d.do({ kind: "upstreams", version: d.state.registryVersion + 1, upstreams: [upstream({ maxConcurrency: 2 })] }),
  ),
);

const last = fc.constantFrom("seal", "cancel", "tick");

function run(acts: readonly Act[], end: "seal" | "cancel" | "tick", maxConcurrency: number | null): Driver {
  const d = new Driver({ upstreams: [upstream({ maxConcurrency })], spec: { deadlineMs: 200_000 } });
  for (const each of acts) each(d);
  d.do({ kind: end });
  return d;
}

/** Through bytes and text, as a store keeps it. */
function reloaded(state: GoalState): GoalState {
  const { meta, columns } = toSnapshot(state);
  const bytes = new Map(COLUMN_NAMES.map((name) => [name, new Uint8Array(columns[name].slice().buffer)]));
  return fromSnapshot(JSON.parse(JSON.stringify(meta)) as SnapshotMeta, (name) => bytes.get(name)!.slice().buffer);
}

/** Everything that is counted along the way, counted afresh. */
function recount(state: GoalState): unknown {
  const { tasks, upstreams } = state;
  const counts = Array.from({ length: 7 }, () => 0);
  const families = new Map<number, number[]>();
  const unmet = Array.from({ length: tasks.n }, () => 0);
  const load = upstreams.map(() => ({ queued: 0, running: 0 }));
  const left = new Map<number, number>();
  for (let task = 0; task < tasks.n; task++) {
    const status = tasks.status[task]!;
    counts[status]!++;
    const parent = tasks.parent[task]!;
    const family = families.get(parent) ?? Array.from({ length: 7 }, () => 0);
    family[status]!++;
    families.set(parent, family);
    if (status === QUEUED) load[tasks.upstream[task]!]!.queued++;
    if (status === RUNNING) {
      load[tasks.upstream[task]!]!.running++;
      left.set(tasks.batch[task]!, (left.get(tasks.batch[task]!) ?? 0) + 1);
    }
  }
  for (const [other, entries] of state.dependents) {
    if (!isTerminal(tasks.status[other]!)) for (const entry of entries) unmet[entry >> 1]!++;
  }
  return {
    counts,
    families: [...families].filter(([, all]) => all.some((n) => n > 0)),
    unmet,
    load,
    left: [...left].toSorted(([a], [b]) => a - b),
  };
}

function counted(state: GoalState): unknown {
  const { tasks } = state;
  return {
    counts: state.counts,
    families: [...state.families].map(([parent, { counts }]) => [parent, counts] as const).filter(([, all]) => all.some((n) => n > 0)),
    unmet: [...tasks.unmet.subarray(0, tasks.n)],
    load: state.upstreams.map(({ queued, running }) => ({ queued, running })),
    left: [...state.batches].map(([batch, { left }]) => [batch, left] as const).toSorted(([a], [b]) => a - b),
  };
}

const byParent = (value: unknown): unknown => {
  const { families, ...rest } = value as { families: (readonly [number, number[]])[] };
  return { ...rest, families: families.toSorted(([a], [b]) => a - b) };
};

const history = [fc.array(act, { maxLength: 40 }), last, fc.constantFrom(null, 1, 3, 8)] as const;

test("what the journal replays to is what memory holds, field for field", () => {
  fc.assert(
    fc.property(...history, (acts, end, maxConcurrency) => {
      const d = run(acts, end, maxConcurrency);
      expect(durable(d.replayed())).toEqual(durable(d.state));
    }),
    { numRuns: 400 },
  );
});

test("a snapshot loads to what it was taken of, and goes on alike", () => {
  fc.assert(
    fc.property(...history, fc.array(act, { maxLength: 10 }), (acts, end, maxConcurrency, more) => {
      const d = run(acts, end, maxConcurrency);
      const twin = run(acts, end, maxConcurrency);
      // Permits and the retry budget go with the incarnation: the twin is given the same ones.
      twin.state = { ...reloaded(twin.state), life: d.state.life, admissions: twin.state.admissions };
      expect(durable(twin.state)).toEqual(durable(d.state));
      for (const each of more) {
        each(d);
        each(twin);
      }
      expect(durable(twin.state)).toEqual(durable(d.state));
    }),
    { numRuns: 300 },
  );
});

test("counters, families, unmet dependencies, windows and batches are what a recount finds", () => {
  fc.assert(
    fc.property(...history, (acts, end, maxConcurrency) => {
      const { state } = run(acts, end, maxConcurrency);
      expect(byParent(counted(state))).toEqual(byParent(recount(state)));
      state.upstreams.forEach(({ lanes }, number) => {
        const own = [...state.batches.values()].filter(({ upstream }) => upstream === number);
        expect(lanes).toBe(own.reduce((sum, batch) => sum + Math.min(batch.lanes, batch.left), 0));
      });
    }),
    { numRuns: 400 },
  );
});

test("terminal states absorb: no command moves a task that has ended", () => {
  fc.assert(
    fc.property(...history, (acts, end, maxConcurrency) => {
      const d = new Driver({ upstreams: [upstream({ maxConcurrency })] });
      const ended = new Map<number, string>();
      for (const each of [...acts, (it: Driver) => void it.do({ kind: end })]) {
        each(d);
        for (const [task, status] of ended) expect(d.status(task)).toBe(status);
        d.state.ended.forEach((task) => ended.set(task, d.status(task)));
      }
      expect(new Set(d.state.ended).size).toBe(d.state.ended.length);
    }),
    { numRuns: 200 },
  );
});

test("a goal that is sealed and whose calls are all answered comes to an end", () => {
  fc.assert(
    fc.property(...history, (acts, end, maxConcurrency) => {
      const d = run(acts, end === "tick" ? "seal" : end, maxConcurrency);
      d.do({ kind: "resume" });
      d.do({ kind: "upstreams", version: 99, upstreams: [upstream()] });
      for (let round = 0; round < 200 && d.state.goal!.phase === "active"; round++) {
        d.runAll();
        d.passMs(5_000);
        for (let task = 0; task < d.state.tasks.n; task++) d.do({ kind: "resolve", task, as: "failed", line: null });
      }
      expect(d.state.goal!.phase).not.toBe("active");
    }),
    { numRuns: 200 },
  );
});

test("what waited for a time still does after a snapshot is loaded", () => {
  const d = new Driver({ tasks: [get(), get({ after: ["k"], ttlMs: 70_000 }), post({ key: "k" })] });
  d.dispatch();
  d.settle([0], { status: 503 });
  const wakeMs = wakeAt(d.state);
  d.state = reloaded(d.state);
  expect(wakeAt(d.state)).toBe(wakeMs);
  d.passMs(20_000);
  expect(d.status(0)).toBe("queued");
  d.passMs(50_000);
  expect(d.status(1)).toBe("expired");
});
