/**
 * A batch from request to reply. One that ends within EXECUTOR_PATIENCE_MS
 * answers with a string; a longer one answers with the lines so far, a stream
 * of the rest and a control. Either way no message is larger than three times
 * EXECUTOR_BUFFER_BYTES_MAX, far below what RPC takes.
 */
import { EXECUTOR_PATIENCE_MS } from "../../shared/limits.ts";
import type { Batch, BatchReply, GoalRpc } from "../../shared/rpc.ts";
import { Control } from "./control.ts";
import { Lanes } from "./lanes.ts";
import { type Network, PLAIN_NETWORK } from "../kit/network.ts";
import type { Reach } from "./reach.ts";
import { ReplyStream } from "./reply-stream.ts";

export interface BatchHost {
  /** Hands lines to the goal whose stream broke. Repeats are harmless there: an attempt settles once. */
  settle(goalId: string, lines: string): Promise<void>;
  /** Keeps the invocation alive until the promise settles. */
  waitUntil(work: Promise<unknown>): void;
  /** Null where nothing can be said before a call. */
  readonly reach: Reach | null;
  /** Left out: `fetch`. */
  readonly network?: Network | undefined;
}

/** `BatchHost.settle` through the objects of a namespace. */
export function settlerOf(goals: DurableObjectNamespace): BatchHost["settle"] {
  return (goalId, lines) => (goals.get(goals.idFromName(goalId)) as unknown as Pick<GoalRpc, "settle">).settle(lines);
}

/** The goal has gone: start nothing, let what runs end, and bring it to the goal's next life. */
async function bringHome(batch: Batch, host: BatchHost, replies: ReplyStream, finished: Promise<void>): Promise<void> {
  await finished;
  const lines = replies.takeUnconfirmed();
  if (lines === "") return;
  try {
    await host.settle(batch.goalId, lines);
  } catch (error) {
    // The attempts' leases will end, and the goal will judge them then.
    console.warn(JSON.stringify({ event: "executor.settle_failed", goalId: batch.goalId, error: String(error) }));
  }
}

/** Runs every item once. Answers early when it takes long; see `BatchReply`. */
export async function runBatch(batch: Batch, host: BatchHost): Promise<BatchReply> {
  const replies = new ReplyStream();
  const lanes = new Lanes(batch, replies, { reach: host.reach, network: host.network ?? PLAIN_NETWORK });
  let hasFinished = false;
  const finished = lanes.run().then(() => {
    hasFinished = true;
    replies.end();
  });
  let patience: number | null = null;
  const impatient = new Promise<void>((resolve) => {
    patience = setTimeout(resolve, EXECUTOR_PATIENCE_MS);
  });
  await Promise.race([finished, impatient, replies.whenFull]);
  clearTimeout(patience);
  if (hasFinished && !replies.isFull) return replies.take();

  let isWanted = true;
  host.waitUntil(finished);
  const first = replies.isFull ? "" : replies.take();
  const rest = replies.stream(first === "" ? 0 : Date.now(), () => {
    lanes.drain();
    if (isWanted) host.waitUntil(bringHome(batch, host, replies, finished));
  });
  const control = new Control({
    abort: (attempts) => lanes.abort(attempts),
    renew: (permitMs) => lanes.renew(permitMs),
    stop: () => {
      isWanted = false;
      lanes.stop();
    },
  });
  return { first, rest, control };
}
