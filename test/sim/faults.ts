/**
 * What goes wrong in a world, and how big it is: everything is resolved from
 * the seed before anything runs, and printed first. Each fault is absent from
 * many worlds, so that one does not hide another (swarm testing, Groce 2012).
 */
import type { CompletionRule } from "../../shared/protocol/task.ts";
import type { Upstream } from "../../shared/protocol/upstream.ts";
import type { Random } from "./random.ts";

/** Probabilities, each for one occasion. */
export interface Faults {
  /** The coordinator dies between turns, for each 100 ms. */
  crash: number;
  /** It dies right after a commit, before anything is sent or answered. */
  crashAfterCommit: number;
  /** A commit fails: nothing of it is kept, and the object reloads. */
  commitFails: number;
  requestLost: number;
  replyLost: number;
  requestTwice: number;
  /** A batch never reaches an executor. */
  sendLost: number;
  /** An executor is overloaded and refuses the batch. */
  overloaded: number;
  /** The connection is lost on the way back: the batch runs, and the coordinator thinks that it may not. */
  unreachable: number;
  /** An executor dies while it runs a batch. */
  executorDies: number;
  /** Nobody tells the coordinator of a lost executor. */
  silent: number;
  /** The stream of a batch breaks, and the executor reports through `settle`. */
  streamBreaks: number;
  /** A report through `settle` comes twice. */
  reportTwice: number;
  /** Executors outlive a coordinator that died, and report to the next one. */
  outlives: number;
  timeout: number;
  broken: number;
  notSent: number;
  tooLarge: number;
  refused: number;
  serverError: number;
  clientError: number;
  slow: number;
  /** An executor gives the rest of a batch back after one failure. */
  givesBack: number;
  /** A report never reaches its governor. */
  reportLost: number;
  /** A governor's answer gets lost; it may come much later. */
  grantLost: number;
  grantLate: number;
  grantTwice: number;
  /** A governor tells of something else, unasked. */
  pushed: number;
  /** It grants fewer calls than there are. */
  stingy: number;
  shortLease: number;
  gated: number;
  /** It takes the upstream for dead. */
  opens: number;
  /** It loses its memory. */
  governorForgets: number;
  originsRest: number;
}

const CEILINGS: Readonly<Record<keyof Faults, number>> = {
  crash: 0.1,
  crashAfterCommit: 0.05,
  commitFails: 0.05,
  requestLost: 0.2,
  replyLost: 0.2,
  requestTwice: 0.3,
  sendLost: 0.1,
  overloaded: 0.2,
  unreachable: 0.1,
  executorDies: 0.4,
  silent: 0.7,
  streamBreaks: 0.3,
  reportTwice: 0.5,
  outlives: 1,
  timeout: 0.1,
  broken: 0.1,
  notSent: 0.1,
  tooLarge: 0.05,
  refused: 0.15,
  serverError: 0.15,
  clientError: 0.1,
  slow: 0.1,
  givesBack: 0.5,
  reportLost: 0.2,
  grantLost: 0.2,
  grantLate: 0.2,
  grantTwice: 0.3,
  pushed: 0.3,
  stingy: 0.7,
  shortLease: 0.5,
  gated: 0.1,
  opens: 0.2,
  governorForgets: 0.1,
  originsRest: 0.3,
};

export interface Plan {
  readonly faults: Faults;
  readonly upstreams: Upstream[];
  readonly rule: CompletionRule;
  readonly deadlineMs: number | null;
  /** Requests with tasks, and the most tasks in one. */
  readonly requests: number;
  readonly tasksMax: number;
  /** Distinct keys that callers use: fewer make more joins and more links. */
  readonly keys: number;
  /** How often an upstream changes or goes, before all are as they were. */
  readonly registries: number;
  /** Requests that ask for something else, for each one with tasks. */
  readonly controls: number;
  /** From then on nothing goes wrong, and the goal is driven to its end. */
  readonly calmAfterMs: number;
  /** A snapshot is written once the journal has this many rows. */
  readonly snapshotRows: number;
  /** How often the state is rebuilt from disk and compared, for each turn. */
  readonly compare: number;
  /** What the goal's budget allows, until the calm; null for no bound. */
  readonly calls: number | null;
}

export const NO_FAULTS: Faults = Object.fromEntries(Object.keys(CEILINGS).map((name) => [name, 0])) as unknown as Faults;

export function planOf(random: Random): Plan {
  const faults = { ...NO_FAULTS };
  for (const name of Object.keys(CEILINGS) as (keyof Faults)[]) {
    if (random.chance(0.5)) faults[name] = round(random.next() * CEILINGS[name]);
  }
  // An upstream in trouble: retries go beyond their budget, and batches are given back.
  const isStormy = random.chance(0.1);
  if (isStormy) Object.assign(faults, { serverError: 0.6, givesBack: 0.5, stingy: 0.7 });
  const isBig = random.chance(0.02);
  return {
    faults,
    upstreams: Array.from({ length: random.between(1, 3) }, (_, i) => ({
      ...upstreamOf(random, i, isBig),
      // Only there are batches longer than their lanes.
      ...(isStormy && { maxConcurrency: null, idempotency: "key" }),
    })),
    rule: ruleOf(random),
    deadlineMs: random.chance(0.1) ? random.between(500, 20_000) : null,
    requests: isBig ? 4 : random.between(1, 10),
    tasksMax: isBig ? 500 : random.between(3, 20),
    keys: isBig ? 1_000 : random.between(4, 100),
    registries: random.chance(0.7) ? 0 : random.between(1, 5),
    controls: random.chance(0.3) ? 0 : random.next() * 2,
    calmAfterMs: random.between(300, 8_000),
    snapshotRows: random.between(1, 40),
    compare: 0.05,
    calls: random.chance(0.25) ? random.between(1, 40) : null,
  };
}

/** The registry after somebody has changed it. */
export function changed(random: Random, upstreams: readonly Upstream[]): Upstream[] {
  return upstreams.flatMap((upstream, i) => {
    if (random.chance(0.2)) return [];
    return [random.chance(0.5) ? upstream : upstreamOf(random, i, false)];
  });
}

function upstreamOf(random: Random, i: number, isBig: boolean): Upstream {
  return {
    name: `u${i}`,
    origins: Array.from({ length: random.chance(0.7) ? 1 : random.between(2, 3) }, (_, at) => `http://localhost:${at + 1}`),
    maxConcurrency: random.chance(0.3) ? null : random.between(isBig ? 10 : 1, 12),
    ratePerSecond: random.chance(0.75) ? null : isBig ? random.between(200, 300) : random.between(4, 60),
    tokensPerMinute: null,
    reserve: { tokens: 0 },
    usage: { tokens: null },
    timeoutMs: random.between(200, 3_000),
    idempotency: random.chance(0.2) ? "key" : "none",
    retry: { maxAttempts: random.between(1, 6) },
    headers: {},
  };
}

export function ruleOf(random: Random): CompletionRule {
  if (random.chance(0.5)) return {};
  return {
    ...(random.chance(0.2) && { failFast: true }),
    ...(random.chance(0.3) && { minSuccessful: random.between(1, 6) }),
    ...(random.chance(0.3) && { toleratedFailureCount: random.between(0, 4) }),
    ...(random.chance(0.3) && { toleratedFailurePercentage: random.between(0, 100) }),
  };
}

const round = (value: number): number => Math.round(value * 1_000) / 1_000;
