/**
 * The second part of `locks`: tasks that declare one lock of their goal, which
 * run one after another. Beside it the same tasks as a chain by `after`, whose
 * commits come at their usual pace; and what a task that waits for a lock costs
 * the others of its goal, for whom nothing is handed over.
 */
import { api, declare, newGoal, untilEnded, viewGoal } from "../goals.ts";
import { type Finding, figure } from "../report.ts";
import type { Stage } from "../stage.ts";
import { pause, timedMs } from "../stats.ts";
import { withUpstream } from "../upstreams.ts";

const TASKS = 200;
const CROWD = 5_000;
const CROWD_FAST = 1_000;
const LIMIT = 64;

interface Run {
  readonly perSecond: number;
  readonly rows: number;
}

type Extra = (n: number) => object;
const oneLock: Extra = () => ({ locks: [{ name: "one" }] });
const chained: Extra = (n) => (n > 0 ? { after: [`k${n - 1}`] } : {});
const free: Extra = () => ({});

const tasksWith = (count: number, upstream: string, extra: Extra): string =>
  JSON.stringify({ tasks: Array.from({ length: count }, (_, n) => ({ key: `k${n}`, call: { upstream, path: `/d0/${n}` }, ...extra(n) })) });

/** `isWatched`: another task waits for a lock that somebody outside holds all the while. */
async function run(stage: Stage, upstream: string, count: number, extra: Extra, isWatched = false): Promise<Run> {
  const drover = stage.drover();
  const { id } = await newGoal(drover);
  const tasks = `/v1/goals/${id}/tasks`;
  const hold = { holder: "somebody", ttlMs: 600_000 };
  if (isWatched) {
    await api(drover, "PUT", `/v1/goals/${id}/locks/watched`, JSON.stringify(hold));
    await api(drover, "POST", tasks, JSON.stringify({ tasks: [{ call: { upstream, path: "/d0/w" }, locks: [{ name: "watched" }] }] }));
  }
  const ms = await timedMs(async () => {
    await api(drover, "POST", tasks, tasksWith(count, upstream, extra));
    if (!isWatched) await api(drover, "POST", `/v1/goals/${id}/seal`);
    if (!isWatched) await untilEnded(drover, id, count);
    while ((await viewGoal(drover, id)).counts["succeeded"]! < count) await pause(20);
  });
  const { storage } = await viewGoal(drover, id);
  if (isWatched) await api(drover, "POST", `/v1/goals/${id}/cancel`);
  return { perSecond: (count * 1_000) / ms, rows: storage.rowsWritten };
}

/** With fewer tasks in the largest goal where there is no time. */
export async function lockTasks(stage: Stage, rounds: number, isFast: boolean): Promise<Finding[]> {
  const crowd = isFast ? CROWD_FAST : CROWD;
  return withUpstream(async ({ origin, tell }) => {
    await declare(stage.drover(), "adaptive", { origin });
    await declare(stage.drover(), "limited", { origin, maxConcurrency: LIMIT });
    await run(stage, "adaptive", crowd, free);
    const all: Record<"chain" | "own" | "limited" | "plain" | "watched", Run[]> = {
      chain: [],
      own: [],
      limited: [],
      plain: [],
      watched: [],
    };
    const mostOpen: number[] = [];
    for (let round = 0; round < rounds; round++) {
      all.chain.push(await run(stage, "adaptive", TASKS, chained));
      await tell();
      all.own.push(await run(stage, "adaptive", TASKS, oneLock));
      all.limited.push(await run(stage, "limited", TASKS, oneLock));
      mostOpen.push((await tell()).mostOpen);
      all.plain.push(await run(stage, "adaptive", crowd, free));
      all.watched.push(await run(stage, "adaptive", crowd, free, true));
    }
    await tell();
    const large = await run(stage, "limited", crowd, oneLock);
    mostOpen.push((await tell()).mostOpen);
    const rates = (runs: readonly Run[]): number[] => runs.map(({ perSecond }) => perSecond);
    const over = (a: readonly Run[], b: readonly Run[], of: (run: Run) => number): number[] => a.map((one, i) => of(one) / of(b[i]!));
    const name = `${TASKS} tasks with one lock of their goal`;
    return [
      figure("locks", "tasks with one lock: most calls open at once", "", mostOpen, 1),
      figure("locks", `${name}: hand-overs`, "/s", rates(all.own)),
      figure("locks", `the same, maxConcurrency ${LIMIT}`, "/s", rates(all.limited)),
      figure("locks", `${crowd} tasks with one lock of their goal`, "/s", [large.perSecond]),
      figure("locks", `${TASKS} tasks chained by after`, "/s", rates(all.chain)),
      figure(
        "locks",
        "one lock over the chain of the same round",
        "x",
        over(all.own, all.chain, ({ perSecond }) => perSecond),
        { least: 1 },
      ),
      figure(
        "locks",
        `rows of ${crowd} tasks beside one that waits for a lock / alone`,
        "x",
        over(all.watched, all.plain, ({ rows }) => rows),
        1.2,
      ),
    ];
  });
}
