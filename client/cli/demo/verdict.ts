/** Checks the demo's counts: what Drover says against what the upstream saw. */
import type { Counts } from "../../../shared/protocol/goal.ts";
import type { UpstreamStats } from "../sample-upstream.ts";
import { DISTINCT, REPEATED } from "./workload.ts";

export interface Receipt {
  readonly accepted: number;
  readonly joined: number;
  readonly rejected: number;
}

/** What the demo reads of a goal. */
export interface GoalSummary {
  readonly status: string;
  readonly counts: Counts;
  readonly joined: number;
  readonly budget: { readonly spent: { readonly calls: number } };
  readonly latency: { readonly p50Ms: number | null; readonly p99Ms: number | null };
  readonly storage: { readonly rowsWritten: number };
}

/** Names every count that is not what it must be; empty where all agree. */
export function wrongCounts(receipt: Receipt, goal: GoalSummary, upstream: UpstreamStats): string[] {
  const expected: [string, number | string, number | string][] = [
    ["tasks accepted", receipt.accepted, DISTINCT],
    ["tasks joined, by the receipt", receipt.joined, REPEATED],
    ["tasks rejected", receipt.rejected, 0],
    ["status of the goal", goal.status, "succeeded"],
    ["tasks of the goal", goal.counts.total, DISTINCT],
    ["tasks succeeded", goal.counts.succeeded, DISTINCT],
    ["tasks joined, by the goal", goal.joined, REPEATED],
    ["different tasks at the upstream", upstream.paths, DISTINCT],
    ["different keys at the upstream", upstream.keys, DISTINCT],
    ["calls at the upstream, against those Drover counted", upstream.calls, goal.budget.spent.calls],
  ];
  return expected.filter(([, is, should]) => is !== should).map(([what, is, should]) => `${what}: ${is}, not ${should}`);
}
