/**
 * `outage`: an upstream is gone for 10 s under 5,000 tasks, killed or answering
 * 503. How often was it called meanwhile, and was everything done soon after?
 */
import { declare, submitGoal, untilEnded, viewLive, viewTasks } from "../goals.ts";
import { type Figure, figure } from "../report.ts";
import type { Stage } from "../stage.ts";
import { pause } from "../stats.ts";
import { type Upstream, withUpstream } from "../upstreams.ts";
import { pathsOf } from "../workload.ts";

const TASKS = 5_000;
const DELAY_MS = 20;
const MAX_CONCURRENCY = 64;
const BEFORE_MS = 700;
const PROBES_PER_SECOND = 10;

const NO_CALL: ReadonlySet<string> = new Set(["lost", "running"]);

interface Variant {
  readonly name: string;
  /** Ends the upstream; gives the calls that were open. */
  fail(upstream: Upstream): Promise<number>;
  /** Brings it back; gives the calls that it refused, where it can know. */
  restore(upstream: Upstream): Promise<number | null>;
}

const KILLED: Variant = {
  name: "killed",
  fail: async (upstream) => (await upstream.kill()).open,
  restore: async (upstream) => {
    await upstream.revive();
    return null;
  },
};

const REFUSING: Variant = {
  name: "503",
  fail: async (upstream) => (await upstream.tell({ isDown: true })).open,
  restore: async (upstream) => (await upstream.tell({ isDown: false })).refused,
};

async function survive(stage: Stage, outageMs: number, variant: Variant): Promise<Figure[]> {
  const drover = stage.drover();
  const { name } = variant;
  return withUpstream(async (upstream) => {
    await declare(drover, `outage-${name}`, { origin: upstream.origin, maxConcurrency: MAX_CONCURRENCY });
    const { id } = await submitGoal(drover, `outage-${name}`, pathsOf(TASKS, DELAY_MS));
    const ended = untilEnded(drover, id, TASKS);
    await pause(BEFORE_MS);
    const { limit } = await viewLive(drover, `outage-${name}`);
    const openThen = await variant.fail(upstream);
    await pause(outageMs);
    const refused = await variant.restore(upstream);
    const backAt = performance.now();
    await ended;
    const afterMs = performance.now() - backAt;
    const tasks = await viewTasks(drover, id);
    // What was given back without a try was no call.
    const failedAttempts = tasks.flatMap(({ attempts }) => attempts).filter(({ outcome }) => !NO_CALL.has(outcome)).length - tasks.length;
    const allowed = (limit ?? MAX_CONCURRENCY) + (PROBES_PER_SECOND * outageMs) / 1_000;
    const scenario = "outage";
    return [
      figure(scenario, `${name} for ${outageMs / 1_000} s: calls made meanwhile`, "", [refused ?? failedAttempts - openThen], allowed),
      figure(scenario, `${name}: attempts that failed, those open then included`, "", [failedAttempts]),
      figure(scenario, `${name}: tasks that failed`, "", [tasks.filter(({ status }) => status !== "succeeded").length], 0),
      figure(scenario, `${name}: all done after it is back`, "ms", [afterMs], 5_000),
    ];
  });
}

/** 10 s each; half of it where there is no time. */
export function outageOf(outageMs: number): (stage: Stage) => Promise<Figure[]> {
  return async (stage) => [...(await survive(stage, outageMs, KILLED)), ...(await survive(stage, outageMs, REFUSING))];
}
