/**
 * What goes wrong in a governor's world, and how big it is: everything comes
 * from the seed before anything runs, and is printed first. Each fault is
 * absent from many worlds, so that one does not hide another.
 */
import type { Demand } from "../../../shared/protocol/admission.ts";
import type { Random } from "../random.ts";

/** Probabilities, each for one occasion. */
export interface Faults {
  /** A message never arrives: reports, answers and pushes each have their own. */
  reportLost: number;
  answerLost: number;
  pushLost: number;
  /** A message arrives twice. */
  twice: number;
  /** A message takes up to `slowMs`, so that others overtake it. */
  slow: number;
  /** A permit's renewal does not reach the executor. */
  renewLost: number;
  /** For each 100 ms: one client and the governor do not hear of each other for a while. */
  cutOff: number;
  /** The governor dies before what it has written is durable. */
  commitFails: number;
  /** For each 100 ms: the governor dies. */
  governorDies: number;
  /** For each 100 ms: everything of one process dies, the governor, its clients and their calls. */
  processDies: number;
  /** For each 100 ms: one client dies, and comes back as a new life. */
  clientDies: number;
  /** For each 100 ms: all origins go away for a while, or one does. */
  outage: number;
  originDies: number;
  /** For each 100 ms: the upstream slows down for a while. */
  slowdown: number;
  /** For each 100 ms: the upstream refuses everything with a Retry-After for a while. */
  gate: number;
  /** For each 100 ms: maxConcurrency changes. */
  config: number;
  /** A call takes seconds. */
  hangs: number;
  /** A call breaks off. */
  broken: number;
}

const CEILINGS: Readonly<Record<keyof Faults, number>> = {
  reportLost: 0.2,
  answerLost: 0.2,
  pushLost: 0.5,
  twice: 0.3,
  slow: 0.3,
  renewLost: 0.3,
  cutOff: 0.06,
  commitFails: 0.2,
  governorDies: 0.06,
  processDies: 0.02,
  clientDies: 0.1,
  outage: 0.03,
  originDies: 0.05,
  slowdown: 0.05,
  gate: 0.04,
  config: 0.05,
  hangs: 0.1,
  broken: 0.03,
};

export interface ClientPlan {
  readonly weight: number;
  /** Jobs that come, and their number at a time. */
  readonly bursts: number;
  readonly jobs: Demand;
}

export interface Plan {
  readonly faults: Faults;
  /** The longest that a slow message takes. */
  readonly slowMs: number;
  readonly clients: readonly ClientPlan[];
  readonly origins: number;
  /** Calls that the upstream works on at once, and that it lets wait. */
  readonly capacity: number;
  readonly queueMax: number;
  readonly serviceMs: number;
  /** What the upstream needs for all jobs. */
  readonly leastMs: number;
  readonly maxConcurrency: number | null;
  readonly ratePerSecond: number | null;
  /** The process has a name, so that a governor knows whether it is the same one. */
  readonly isNamed: boolean;
  /** From then on nothing goes wrong. */
  readonly calmAfterMs: number;
  /** Then every client has endless work for so long, in one band or in two, and what each gets is measured. 0: never. */
  readonly measureMs: number;
  readonly bands: 1 | 2;
}

export const NO_FAULTS: Faults = Object.fromEntries(Object.keys(CEILINGS).map((name) => [name, 0])) as unknown as Faults;

const round = (value: number): number => Math.round(value * 1_000) / 1_000;

const TOGETHER = ["slow", "twice", "cutOff", "hangs", "renewLost"] as const;

/** Jobs of all clients together: what the upstream can do while things go wrong, and a little more. */
const JOBS_MAX = 500;

export function planOf(random: Random): Plan {
  const faults = { ...NO_FAULTS };
  for (const name of Object.keys(CEILINGS) as (keyof Faults)[]) {
    if (random.chance(0.4)) faults[name] = round(random.next() * CEILINGS[name]);
  }
  // What breaks leases goes together now and then: a client that is cut off, with calls that take long.
  if (random.chance(0.2)) for (const name of TOGETHER) faults[name] = round(CEILINGS[name] * (0.5 + random.next() / 2));
  const isMeasured = random.chance(0.08);
  // Long calls, few permits, and more work than they can do: whoever loses a permit has another at once behind it.
  const isTight = !isMeasured && random.chance(0.3);
  const capacity = random.between(2, 32);
  const count = random.chance(0.1) ? random.between(10, 40) : random.between(3, 8);
  const serviceMs = isMeasured ? random.between(60, 200) : random.between(5, random.chance(isTight ? 0.6 : 0.1) ? 1_500 : 250);
  const most = isTight ? Math.min(6, capacity) : Math.ceil(capacity * 1.3);
  const maxConcurrency = !isTight && random.chance(0.35) ? null : random.between(1, most);
  const ratePerSecond = isMeasured || random.chance(isTight ? 0.9 : 0.65) ? null : random.between(2, 120);
  const calmAfterMs = random.between(1_000, 8_000);
  const perSecond = Math.min(
    (Math.min(capacity, maxConcurrency ?? capacity) * 1_000) / serviceMs,
    ratePerSecond ?? Number.POSITIVE_INFINITY,
  );
  const jobs = Math.min(JOBS_MAX, ((isTight ? 1.5 : 1) * perSecond * calmAfterMs) / 1_000) / count;
  const clients = Array.from({ length: count }, () => clientOf(random, Math.max(1, Math.ceil(jobs))));
  const all = clients.reduce((sum, client) => sum + client.bursts * (client.jobs[0] + client.jobs[1] + client.jobs[2]), 0);
  return {
    faults,
    slowMs: random.between(20, 300),
    clients,
    origins: random.chance(0.6) ? 1 : random.between(2, 4),
    capacity,
    queueMax: random.between(0, 2 * capacity),
    serviceMs,
    leastMs: Math.ceil((all * 1_000) / perSecond),
    maxConcurrency,
    ratePerSecond,
    isNamed: random.chance(0.5),
    calmAfterMs,
    measureMs: isMeasured ? 9_000 : 0,
    bands: random.chance(0.6) ? 1 : 2,
  };
}

function clientOf(random: Random, jobs: number): ClientPlan {
  const bursts = random.between(1, 3);
  const most = Math.max(1, Math.ceil(jobs / bursts));
  const band = (probability: number): number => (random.chance(probability) ? random.between(1, most) : 0);
  return { weight: random.chance(0.6) ? 1 : random.between(1, 10), bursts, jobs: [band(0.3), random.between(1, most), band(0.3)] };
}
