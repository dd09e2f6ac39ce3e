/** A batch of functions' tasks, from request to reply. */
import { RUN_BATCH_TASKS_MAX, RUN_PATIENCE_MS } from "../../../shared/limits.ts";
import type { FunctionVersion } from "../../../shared/protocol/function.ts";
import type { BatchReply } from "../../../shared/rpc-batch.ts";
import type { RunBatch, RunItem } from "../../../shared/rpc-functions.ts";
import type { FunctionHost } from "../host/types.ts";
import type { Program } from "../../sandbox/programs.ts";
import { goalsOf, Lanes } from "../lanes.ts";
import { type ReplyHost, replyOf, type Work } from "../reply.ts";
import { ReplyStream } from "../reply-stream.ts";
import { attempt, notBegun } from "./attempt.ts";

export interface FunctionsHost extends ReplyHost {
  /** The version, ready to be invoked. */
  readonly programOf: (version: FunctionVersion) => Promise<Program>;
  readonly hostOf: (batch: RunBatch) => FunctionHost;
}

/** Runs every item once, all at a time as far as there are instances. Answers early when it takes long; see `BatchReply`. */
export async function runFunctions(batch: RunBatch, host: FunctionsHost): Promise<BatchReply> {
  const replies = new ReplyStream();
  const program = host.programOf(batch.function);
  // Each item says so by itself.
  program.catch(() => undefined);
  const context = { batch, program, host: host.hostOf(batch) };
  const goalIds = goalsOf(batch);
  const load = {
    goalIds,
    items: batch.items,
    lanes: RUN_BATCH_TASKS_MAX,
    permitMs: null,
    patienceMs: RUN_PATIENCE_MS,
    givenBack: notBegun,
  };
  const lanes = new Lanes({ ...load, attempt: (item: RunItem, cutoff, begun) => attempt(context, item, cutoff, begun) }, replies);
  const work: Work = {
    run: async () => {
      await lanes.run();
      // Nobody waits for what is given back.
      host.waitUntil(context.host.end());
    },
    drain: () => lanes.drain(),
    stop: () => lanes.stop(),
    abort: (attempts) => lanes.abort(attempts),
    renew: () => undefined,
  };
  return replyOf(batch.goalId, work, replies, host);
}
