/**
 * `capacity`: an upstream of 64, then 16, then 64 servers with a queue before
 * them, and a limit that nobody declared. Beside it a client that knows the
 * number of servers, and one that knows no limit.
 */
import type { Drover } from "../../client/cli/server/child.ts";
import { startClient } from "../clients.ts";
import { api, bodyOf, declare, newGoal, viewGoal, viewLive } from "../goals.ts";
import { type Figure, figure } from "../report.ts";
import type { Stage } from "../stage.ts";
import { pause } from "../stats.ts";
import { type Upstream, type Window, withUpstream } from "../upstreams.ts";

const SERVERS = [64, 16, 64];
const SEED = 5;
const UNLIMITED = 512;
const TASKS_A_REQUEST = 5_000;
const PATHS = Array.from({ length: TASKS_A_REQUEST }, (_, n) => `/limited/q?x=${n}`);

/** The phases of one client, each as the upstream saw it. */
async function phases(upstream: Upstream, phaseMs: number, begin: (servers: number) => void, end?: () => Promise<void>): Promise<Window[]> {
  const windows: Window[] = [];
  for (const servers of SERVERS) {
    await upstream.tell({ servers });
    begin(servers);
    await pause(phaseMs);
    windows.push(await upstream.tell());
    await end?.();
  }
  return windows;
}

const clientPhases = (phaseMs: number, lanesFor: (servers: number) => number): Promise<Window[]> =>
  withUpstream(async (upstream) => {
    await upstream.tell({ seed: SEED });
    const client = startClient(`${upstream.origin}/limited/q`, 1);
    try {
      return await phases(upstream, phaseMs, (servers) => client.setLanes(lanesFor(servers)));
    } finally {
      await client.stop();
    }
  });

/** Keeps the goal backlogged until it is told to stop. */
function feed(drover: Drover, id: string, upstream: string): () => Promise<void> {
  const over = new AbortController();
  const submit = (round: number) => api(drover, "POST", `/v1/goals/${id}/tasks`, bodyOf(PATHS, `feed-${round}`, upstream));
  const feeding = (async () => {
    for (let round = 0; !over.signal.aborted;) {
      const { counts } = await viewGoal(drover, id);
      if (counts["queued"]! < TASKS_A_REQUEST) await submit(round++);
      await pause(500);
    }
  })();
  return async () => {
    over.abort();
    await feeding;
  };
}

async function droverPhases(stage: Stage, phaseMs: number, limits: (number | null)[]): Promise<Window[]> {
  const drover = stage.drover();
  return withUpstream(async (upstream) => {
    await upstream.tell({ seed: SEED });
    await declare(drover, "limited", { origin: upstream.origin });
    const { id } = await newGoal(drover);
    const stop = feed(drover, id, "limited");
    while ((await upstream.tell()).calls === 0) await pause(1);
    const windows = await phases(
      upstream,
      phaseMs,
      () => undefined,
      async () => {
        limits.push((await viewLive(drover, "limited")).limit);
      },
    );
    await stop();
    await api(drover, "POST", `/v1/goals/${id}/cancel`);
    return windows;
  });
}

const perSecond = ({ answered, ms }: Window): number => (answered * 1_000) / ms;
const shareRefused = (windows: readonly Window[]): number =>
  (100 * windows.reduce((sum, { refused }) => sum + refused, 0)) / windows.reduce((sum, { calls }) => sum + calls, 0);

/** 16 s a phase; half of it where there is no time. */
export function capacityOf(phaseMs: number): (stage: Stage) => Promise<Figure[]> {
  return async (stage) => {
    const oracle = await clientPhases(phaseMs, (servers) => servers);
    const limits: (number | null)[] = [];
    const drover = await droverPhases(stage, phaseMs, limits);
    const unlimited = await clientPhases(phaseMs, () => UNLIMITED);
    const figures: Figure[] = [];
    const add = (name: string, unit: string, value: number, target: Parameters<typeof figure>[4] = null): void => {
      figures.push(figure("capacity", name, unit, [value], target));
    };
    SERVERS.forEach((servers, phase) => {
      const name = `phase ${phase + 1}, ${servers} servers`;
      add(`${name}: answered, of the oracle's`, "x", perSecond(drover[phase]!) / perSecond(oracle[phase]!), { least: 0.85 });
      add(`${name}: the oracle's`, "/s", perSecond(oracle[phase]!));
      add(`${name}: unlimited, of the oracle's`, "x", perSecond(unlimited[phase]!) / perSecond(oracle[phase]!));
      add(`${name}: limit at its end`, "", limits[phase] ?? 0);
      add(`${name}: p50 at the upstream`, "ms", drover[phase]!.p50Ms);
      add(`${name}: the oracle's p50`, "ms", oracle[phase]!.p50Ms);
      add(`${name}: p50 without a limit`, "ms", unlimited[phase]!.p50Ms);
    });
    add("calls refused", "%", shareRefused(drover), 0.5);
    add("calls refused without a limit", "%", shareRefused(unlimited));
    return figures;
  };
}
