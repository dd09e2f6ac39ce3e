/**
 * How much memory a goal's core takes, and how long it takes to load: 50,000
 * live tasks with keys. Run it as `node --expose-gc test/core/goal-memory.ts`; the
 * budget is asserted by a test. Prints one JSON line.
 */
import { apply } from "../../durable-objects/goal/core/apply.ts";
import type { Change } from "../../durable-objects/goal/core/change.ts";
import { COLUMN_NAMES } from "../../durable-objects/goal/core/columns.ts";
import { fromSnapshot, type SnapshotMeta, toSnapshot } from "../../durable-objects/goal/core/snapshot.ts";
import { type GoalState, newState } from "../../durable-objects/goal/core/state.ts";
import { step } from "../../durable-objects/goal/core/step.ts";
import { goalIdFrom } from "../../shared/ids.ts";
import type { TaskSpec } from "../../shared/protocol/task.ts";
import type { Upstream } from "../../shared/protocol/upstream.ts";

const TASKS = 50_000;
const PER_REQUEST = 5_000;
const MIB = 1024 * 1024;
const NOW_MS = 1_800_000_000_000;

const upstream: Upstream = {
  name: "api",
  origins: ["http://localhost"],
  maxConcurrency: null,
  ratePerSecond: null,
  tokensPerMinute: null,
  reserve: { tokens: 0 },
  usage: { tokens: null },
  timeoutMs: 30_000,
  idempotency: "none",
  retry: { maxAttempts: 5 },
  headers: {},
};

function collectGarbage(): void {
  if (globalThis.gc === undefined) throw new Error("run it as: node --expose-gc test/core/goal-memory.ts");
  globalThis.gc();
  globalThis.gc();
}

/** Heap and typed arrays; the columns live outside the JavaScript heap. */
function usedBytes(): number {
  collectGarbage();
  const { heapUsed, arrayBuffers } = process.memoryUsage();
  return heapUsed + arrayBuffers;
}

const median = (values: readonly number[]): number => values.toSorted((a, b) => a - b)[values.length >> 1]!;

function timeMs(run: () => unknown): number {
  const times = [0, 0, 0, 0, 0].map(() => {
    const startedMs = performance.now();
    run();
    return performance.now() - startedMs;
  });
  return Math.round(median(times) * 10) / 10;
}

/** As they come from a request: parsed from its text, and not kept. */
function specsOf(offer: number): TaskSpec[] {
  const specs = Array.from({ length: PER_REQUEST }, (_, i) => ({
    key: `page-${offer * PER_REQUEST + i}-of-the-batch`,
    call: { upstream: "api", path: `/items/${i}?q=some+words+to+look+for` },
  }));
  return JSON.parse(JSON.stringify(specs)) as TaskSpec[];
}

function filled(journal: Change[]): GoalState {
  const state = newState();
  const run = (command: Parameters<typeof step>[2]): void => {
    const out = {
      changes: [],
      sends: [],
      aborts: [],
      reports: [],
      orders: [],
      report: null,
      callOf: () => undefined,
      values: [],
      lines: [],
      lockMessages: [],
      flightMessages: [],
      warms: [],
      keep: () => ({ row: 1, index: 0 }),
      destroy: false,
    };
    const reply = step(state, NOW_MS, command, out);
    if (!reply.ok) throw new Error(reply.error.detail);
    journal.push(...(out.changes as Change[]));
  };
  run({
    kind: "create",
    id: goalIdFrom(NOW_MS, new Uint8Array(16)),
    spec: { name: "", labels: {}, deadlineMs: null, retentionMs: 1, completion: {}, sealed: false, weight: 1 },
    registry: { version: 1, upstreams: [upstream] },
    tasks: { specs: [], failures: new Map(), contentKeys: new Map() },
  });
  for (let offer = 0; offer < TASKS / PER_REQUEST; offer++) {
    run({ kind: "submit", specs: specsOf(offer), failures: new Map(), contentKeys: new Map(), atomic: false });
  }
  run({ kind: "dispatch", seed: 1 });
  return state;
}

// Once without looking, so that code and its caches are there before the measure.
filled([]);
const before = usedBytes();
const journal: Change[] = [];
const state = filled(journal);
const heapMiB = Math.round(((usedBytes() - before) / MIB) * 10) / 10;

const { meta, columns } = toSnapshot(state);
const text = JSON.stringify(meta);
const bytes = new Map(COLUMN_NAMES.map((name) => [name, columns[name].slice().buffer]));
const snapshotMiB = Math.round(((text.length + [...bytes.values()].reduce((sum, column) => sum + column.byteLength, 0)) / MIB) * 10) / 10;
const offers = Array.from({ length: TASKS / PER_REQUEST }, (_, offer) => specsOf(offer));
const first = state.tasks.offer[0]!;

const snapshotMs = timeMs(() => JSON.stringify(toSnapshot(state).meta));
const loadMs = timeMs(() => fromSnapshot(JSON.parse(text) as SnapshotMeta, (name) => bytes.get(name)!));
const replayMs = timeMs(() => {
  const replayed = newState();
  for (const change of journal) apply(replayed, change, (offer) => offers[offer - first]!);
});
console.log(JSON.stringify({ tasks: state.tasks.n, heapMiB, snapshotMiB, snapshotMs, loadMs, replayMs }));
