/** What a world of goals inside goals is like: its tree, its faults, and what callers ask, all from the seed. */
import type { GoalSpec } from "../../../shared/protocol/goal.ts";
import type { TaskSpec } from "../../../shared/protocol/task.ts";
import type { Upstream } from "../../../shared/protocol/upstream.ts";
import type { Random } from "../random.ts";

const UPSTREAM: Upstream = {
  name: "api",
  origins: ["http://localhost:1"],
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
export const REGISTRY = { version: 1, upstreams: [UPSTREAM] };

export interface Plan {
  readonly root: { readonly spec: GoalSpec; readonly tasks: TaskSpec[] };
  readonly calmAfterMs: number;
  readonly snapshotRows: number;
  /** How often memory is compared with disk after a turn. */
  readonly compare: number;
  readonly controls: readonly { readonly atMs: number; readonly verb: "cancel" | "pause" | "resume"; readonly level: number }[];
  readonly faults: {
    readonly crash: number;
    readonly crashAfterCommit: number;
    readonly commitFails: number;
    readonly lost: number;
    readonly late: number;
    readonly twice: number;
    readonly callFails: number;
  };
}

const call = (): TaskSpec => ({ call: { upstream: "api", method: "GET", path: "/" } });

function tasksOf(random: Random, level: number, levels: number, isPoor: boolean): TaskSpec[] {
  const tasks: TaskSpec[] = Array.from({ length: random.between(0, 3) }, call);
  const goals = level === 0 ? random.between(1, 4) : level < levels && random.chance(0.5) ? random.between(1, 2) : 0;
  for (let i = 0; i < goals; i++) {
    const sealed = random.chance(0.7);
    const budget = isPoor && random.chance(0.5) ? { budget: { calls: random.between(0, 5) } } : {};
    tasks.push({ goal: { sealed, ...budget, tasks: tasksOf(random, level + 1, levels, isPoor) } });
  }
  return tasks;
}

export function planOf(random: Random): Plan {
  const calmAfterMs = random.between(1_000, 6_000);
  const often = (most: number): number => (random.chance(0.5) ? 0 : random.next() * most);
  const isPoor = random.chance(0.3);
  const spec: GoalSpec = {
    ...(isPoor && { budget: { calls: random.between(0, 10) } }),
    name: "",
    labels: {},
    deadlineMs: random.chance(0.1) ? random.between(500, 8_000) : null,
    retentionMs: 3_600_000,
    completion: random.chance(0.2) ? { toleratedFailureCount: 1 } : {},
    sealed: random.chance(0.7),
    weight: 1,
  };
  const controls = Array.from({ length: random.between(0, 4) }, () => ({
    atMs: random.between(10, calmAfterMs),
    verb: random.pick(["cancel", "pause", "resume", "pause", "resume"] as const),
    level: random.between(0, 3),
  }));
  return {
    root: { spec, tasks: tasksOf(random, 0, isPoor ? 2 : 3, isPoor) },
    calmAfterMs,
    snapshotRows: random.between(3, 40),
    compare: 0.1,
    controls,
    faults: {
      crash: often(0.1),
      crashAfterCommit: often(0.1),
      commitFails: often(0.05),
      lost: often(0.4),
      late: often(0.3),
      twice: often(0.3),
      callFails: often(0.1),
    },
  };
}
