/** What answers the calls that functions of a batch make to the world. */
import type { Amounts } from "../../../shared/policy/account.ts";
import type { RunItem } from "../../../shared/rpc-functions.ts";
import type { Cutoff } from "../../kit/cutoff.ts";
import type { HostCalls } from "../../sandbox/types.ts";

/** What the calls of one run used. */
export interface HostUsage {
  readonly calls: number;
  readonly tokens: number;
  readonly costMicros: number;
  /** What they used of what the task has set aside, beside that; left out where that is nothing. */
  readonly drawn?: Amounts;
}

/** One for each batch. */
export interface FunctionHost {
  callsOf(item: RunItem, cutoff: Cutoff): HostCalls;
  /** Asked for once, at the run's end: what it calls afterwards is the goal's to pay. */
  usageOf(item: RunItem): HostUsage;
  /** Gives back what was borrowed for the batch. Never rejects. */
  end(): Promise<void>;
}
