/**
 * From the work of a batch to its reply. Work that ends within
 * EXECUTOR_PATIENCE_MS answers with a string; longer work answers with the
 * lines so far, a stream of the rest and a control. Either way no message is
 * larger than three times EXECUTOR_BUFFER_BYTES_MAX, far below what RPC takes.
 */
import { EXECUTOR_PATIENCE_MS } from "../../shared/limits.ts";
import type { BatchControl, BatchReply } from "../../shared/rpc-batch.ts";
import { Control } from "./control.ts";
import type { ReplyStream } from "./reply-stream.ts";

export interface ReplyHost {
  /** Hands lines to the goal whose stream broke. Repeats are harmless there: an attempt settles once. */
  settle(goalId: string, lines: string): Promise<void>;
  /** Keeps the invocation alive until the promise settles. */
  waitUntil(work: Promise<unknown>): void;
}

/** The items of a batch, under way. */
export interface Work extends BatchControl {
  /** Resolves when every item has ended or was given up. */
  run(): Promise<void>;
  /** Starts nothing more; what runs goes on. */
  drain(): void;
}

/** The goal has gone: start nothing, let what runs end, and bring it to the goal's next life. */
async function bringHome(goalId: string, host: ReplyHost, replies: ReplyStream, finished: Promise<void>): Promise<void> {
  await finished;
  const lines = replies.takeUnconfirmed();
  if (lines === "") return;
  try {
    await host.settle(goalId, lines);
  } catch (error) {
    // The attempts' leases will end, and the goal will judge them then.
    console.warn(JSON.stringify({ event: "executor.settle_failed", goalId, error: String(error) }));
  }
}

/** Runs the work, whose lines go to `replies`. */
export async function replyOf(goalId: string, work: Work, replies: ReplyStream, host: ReplyHost): Promise<BatchReply> {
  let hasFinished = false;
  const finished = work.run().then(() => {
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
    work.drain();
    if (isWanted) host.waitUntil(bringHome(goalId, host, replies, finished));
  });
  const control = new Control({
    abort: (attempts) => work.abort(attempts),
    renew: (permitMs) => work.renew(permitMs),
    stop: () => {
      isWanted = false;
      work.stop();
    },
  });
  return { first, rest, control };
}
