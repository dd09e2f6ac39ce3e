/** How much work for outside a world has, and what its workers do wrong. From a chance of its own, so that other worlds stay as they are. */
import type { TaskSpec } from "../../../shared/protocol/task.ts";
import type { Random } from "../random.ts";

/** Probabilities, each for one claim. */
export interface WorkerFaults {
  /** The worker dies with what it has claimed. */
  dies: number;
  /** It takes longer than its lease, and does not say so. */
  late: number;
  /** It takes longer, and extends its lease. */
  extends: number;
  /** It settles the same attempt a second time, and may say something else. */
  twice: number;
  retryable: number;
  final: number;
  spawns: number;
  /** One of the children cannot be taken. */
  badSpawn: number;
}

const CEILINGS: Readonly<WorkerFaults> = {
  dies: 0.5,
  late: 0.4,
  extends: 0.5,
  twice: 0.4,
  retryable: 0.4,
  final: 0.2,
  spawns: 0.9,
  badSpawn: 0.5,
};

export interface WorkPlan {
  /** None where the world has no work for outside. */
  readonly queues: readonly string[];
  readonly workers: number;
  /** The most claims in one request. */
  readonly max: number;
  readonly leaseMs: number;
  /** Children that all workers may bring. */
  readonly children: number;
  readonly faults: WorkerFaults;
}

export const NO_FAULTS = Object.fromEntries(Object.keys(CEILINGS).map((name) => [name, 0])) as unknown as WorkerFaults;

export function workPlanOf(random: Random): WorkPlan {
  const faults = { ...NO_FAULTS };
  for (const name of Object.keys(CEILINGS) as (keyof WorkerFaults)[]) {
    if (random.chance(0.5)) faults[name] = Math.round(random.next() * CEILINGS[name] * 1_000) / 1_000;
  }
  return {
    queues: random.chance(0.6) ? [] : Array.from({ length: random.between(1, 2) }, (_, i) => `q${i}`),
    workers: random.between(1, 3),
    max: random.between(1, 6),
    leaseMs: random.between(100, 3_000),
    children: random.between(0, 40),
    faults,
  };
}

/** A task's work, now and then, for somebody outside. */
export function workOf(random: Random, { queues }: WorkPlan): Pick<TaskSpec, "work"> | null {
  if (queues.length === 0 || !random.chance(0.3)) return null;
  return { work: { queue: random.pick(queues), input: random.between(0, 9) } };
}
