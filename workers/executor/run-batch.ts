/** A batch of calls, from request to reply. */
import type { GoalRpc } from "../../shared/rpc.ts";
import type { Batch, BatchReply } from "../../shared/rpc-batch.ts";
import { lanesOfCalls } from "./lanes.ts";
import { type Network, PLAIN_NETWORK } from "../kit/network.ts";
import type { Reach } from "./reach.ts";
import { type ReplyHost, replyOf } from "./reply.ts";
import { ReplyStream } from "./reply-stream.ts";

export interface BatchHost extends ReplyHost {
  /** Null where nothing can be said before a call. */
  readonly reach: Reach | null;
  /** Left out: `fetch`. */
  readonly network?: Network | undefined;
}

/** `ReplyHost.settle` through the objects of a namespace. */
export function settlerOf(goals: DurableObjectNamespace): ReplyHost["settle"] {
  return (goalId, lines) => (goals.get(goals.idFromName(goalId)) as unknown as Pick<GoalRpc, "settle">).settle(lines);
}

/** Runs every item once. Answers early when it takes long; see `BatchReply`. */
export async function runBatch(batch: Batch, host: BatchHost): Promise<BatchReply> {
  const replies = new ReplyStream();
  const lanes = lanesOfCalls(batch, replies, { reach: host.reach, network: host.network ?? PLAIN_NETWORK });
  return replyOf(batch.goalId, lanes, replies, host);
}
