/**
 * `herd`: twenty goals of 5,000 tasks at once on one upstream, and 5,000
 * proxied requests at once. Nobody is turned away, and the upstream never has
 * more open than it declared.
 */
import { type Burst, burst } from "../clients.ts";
import { declare, submitGoal, untilEnded, viewGoal, viewLive } from "../goals.ts";
import { type Finding, figure } from "../report.ts";
import type { Stage } from "../stage.ts";
import { pathsOf } from "../workload.ts";
import { type Upstream, withUpstream } from "../upstreams.ts";
import { passesThrough } from "./proxy.ts";

const GOALS = 20;
const GOALS_FAST = 4;
const TASKS = 5_000;
const MAX_CONCURRENCY = 64;
const DELAY_MS = 5;

async function goalsAtOnce(stage: Stage, upstream: Upstream, count: number): Promise<Finding[]> {
  const drover = stage.drover();
  await declare(drover, "herd", { origin: upstream.origin, maxConcurrency: MAX_CONCURRENCY });
  const paths = pathsOf(TASKS, DELAY_MS);
  const startedAt = performance.now();
  const answers = await Promise.allSettled(Array.from({ length: count }, () => submitGoal(drover, "herd", paths)));
  const ackMs = performance.now() - startedAt;
  const ids = answers.flatMap((answer) => (answer.status === "fulfilled" ? [answer.value.id] : []));
  for (const answer of answers) if (answer.status === "rejected") console.log(String(answer.reason));
  await Promise.all(ids.map((id) => untilEnded(drover, id, TASKS)));
  const doneMs = performance.now() - startedAt;
  const { messages, calls } = await viewLive(drover, "herd");
  const views = await Promise.all(ids.map((id) => viewGoal(drover, id)));
  const succeeded = views.reduce((sum, { counts }) => sum + counts["succeeded"]!, 0);
  const window = await upstream.tell();
  const name = `${count} goals of ${TASKS} tasks`;
  return [
    figure("herd", `${name}: not answered 2xx`, "", [answers.length - ids.length], 0),
    figure("herd", `${name}: tasks that did not succeed`, "", [count * TASKS - succeeded], 0),
    figure("herd", `${name}: calls open, at most`, "", [window.mostOpen], MAX_CONCURRENCY),
    figure("herd", `${name}: messages of the governor a call`, "", [messages / calls], 0.25),
    figure("herd", `${name}: calls at the upstream over tasks`, "x", [window.calls / (count * TASKS)]),
    figure("herd", `${name}: the last answer`, "ms", [ackMs]),
    figure("herd", `${name}: done`, "s", [doneMs / 1_000]),
    figure("herd", `${name}: calls a second`, "/s", [(count * TASKS * 1_000) / doneMs]),
  ];
}

async function proxiedAtOnce(stage: Stage, upstream: Upstream): Promise<Finding[]> {
  const { url, token } = stage.drover();
  const name = `${TASKS} proxied GETs at once`;
  if (!(await passesThrough(stage, "herd"))) return [{ scenario: "herd", name, skipped: "there is no proxy yet" }];
  await upstream.tell();
  const paths = pathsOf(TASKS, DELAY_MS);
  const headers = { authorization: `Bearer ${token}` };
  const result: Burst = await burst(
    paths.map((path) => `${url}/v1/proxy/herd${path}`),
    headers,
  );
  const others = [...result.statuses].filter(([status]) => status !== 200);
  if (others.length > 0) console.log(`herd: answers other than 200 (status, count): ${JSON.stringify(others)}`);
  const { mostOpen } = await upstream.tell();
  const direct = await burst(
    paths.map((path) => upstream.origin + path),
    {},
  );
  const own = await burst(
    paths.map(() => `${url}/healthz`),
    {},
  );
  return [
    figure("herd", `${name}: not answered 200`, "", [TASKS - (result.statuses.get(200) ?? 0)], 0),
    figure("herd", `${name}: calls open, at most`, "", [mostOpen], MAX_CONCURRENCY),
    figure("herd", `${name}: answered after`, "ms", result.tookMs),
    figure("herd", `${name}: the last answer`, "ms", [Math.max(...result.tookMs)]),
    figure("herd", "the same, direct: the last answer", "ms", [Math.max(...direct.tookMs)]),
    figure("herd", `${TASKS} of Drover's own health page: the last answer`, "ms", [Math.max(...own.tookMs)]),
  ];
}

/** With fewer goals where there is no time. */
export function herdOf(isFast: boolean): (stage: Stage) => Promise<Finding[]> {
  return (stage) =>
    withUpstream(async (upstream) => [
      ...(await goalsAtOnce(stage, upstream, isFast ? GOALS_FAST : GOALS)),
      ...(await proxiedAtOnce(stage, upstream)),
    ]);
}
