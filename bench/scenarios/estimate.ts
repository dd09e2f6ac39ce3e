/** `estimate`: what a receipt says of a task's start, beside when it started. */
import type { Drover } from "../../client/cli/server/child.ts";
import { api, bodyOf, declare, newGoal, submitGoal, untilEnded, viewTasks } from "../goals.ts";
import { type Finding, figure } from "../report.ts";
import type { Stage } from "../stage.ts";
import { pause } from "../stats.ts";
import { withUpstream } from "../upstreams.ts";
import { pathsOf } from "../workload.ts";

const TASKS = 5_000;
const HISTORY = 300;
const DELAY_MS = 100;
const MAX_CONCURRENCY = 64;
/** Off by less than this is right. */
const SLACK_MS = 100;
const LEAST_RIGHT_PERCENT = 90;
const OTHER_HEAD_START_MS = 1_000;

interface Receipt {
  readonly estimatedStartMs?: number | null;
}

const isRight = (estimatedMs: number, actualMs: number): boolean =>
  Math.abs(estimatedMs - actualMs) < SLACK_MS || (estimatedMs <= 2 * actualMs && actualMs <= 2 * estimatedMs);

/** The share of estimates that are right, in percent; null where receipts have none. */
async function shareRight(drover: Drover, withOther: boolean): Promise<{ rightPercent: number; ratios: number[] } | null> {
  const other = withOther ? await submitGoal(drover, "estimated", pathsOf(TASKS, DELAY_MS)) : null;
  if (other !== null) await pause(OTHER_HEAD_START_MS);
  const { id } = await newGoal(drover);
  const submittedAtMs = Date.now();
  const body = bodyOf(pathsOf(TASKS, DELAY_MS), "estimate", "estimated");
  const { receipts } = await api<{ receipts: Receipt[] }>(drover, "POST", `/v1/goals/${id}/tasks?receipts=all`, body);
  const estimates = receipts.map(({ estimatedStartMs }) => estimatedStartMs ?? null);
  if (estimates.includes(null)) {
    for (const goal of [id, other?.id]) if (goal !== undefined) await api(drover, "POST", `/v1/goals/${goal}/cancel`);
    return null;
  }
  await api(drover, "POST", `/v1/goals/${id}/seal`);
  await untilEnded(drover, id, TASKS);
  if (other !== null) await untilEnded(drover, other.id, TASKS);
  const starts = (await viewTasks(drover, id)).map(({ startedAt }) => Date.parse(startedAt!) - submittedAtMs);
  const right = starts.filter((startMs, i) => isRight(estimates[i]!, startMs)).length;
  return { rightPercent: (100 * right) / TASKS, ratios: starts.map((startMs, i) => estimates[i]! / Math.max(1, startMs)) };
}

export async function estimate(stage: Stage): Promise<Finding[]> {
  const drover = stage.drover();
  const scenario = "estimate";
  return withUpstream(async (upstream) => {
    await declare(drover, "estimated", { origin: upstream.origin, maxConcurrency: MAX_CONCURRENCY });
    const { id } = await submitGoal(drover, "estimated", pathsOf(HISTORY, DELAY_MS));
    await untilEnded(drover, id, HISTORY);
    const findings: Finding[] = [];
    for (const [name, withOther] of [
      ["alone", false],
      ["beside a goal of the same size", true],
    ] as const) {
      const found = await shareRight(drover, withOther);
      if (found === null) findings.push({ scenario, name, skipped: "receipts say no estimatedStartMs yet" });
      else {
        findings.push(figure(scenario, `${name}: right within a factor of two`, "%", [found.rightPercent], { least: LEAST_RIGHT_PERCENT }));
        findings.push(figure(scenario, `${name}: estimated / actual start`, "x", found.ratios));
      }
    }
    return findings;
  });
}
