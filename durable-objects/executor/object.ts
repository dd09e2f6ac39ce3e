/**
 * The executor as a pool of objects: each has six connections of its own, so
 * a goal spreads its calls by spreading its batches over numbered objects.
 * Keeps nothing, in memory or on disk.
 */
import { DurableObject } from "cloudflare:workers";
import type { Batch, BatchReply, ExecutorRpc } from "../../shared/rpc.ts";
import { runBatch, settlerOf } from "../../workers/executor/run-batch.ts";

export class ExecutorPool extends DurableObject<Env> implements ExecutorRpc {
  run(batch: Batch): Promise<BatchReply> {
    return runBatch(batch, {
      settle: settlerOf(this.env.GOAL),
      waitUntil: (work) => this.ctx.waitUntil(work),
      // Deployed, a failed connection is an answer (521 to 526, 530), not a fault.
      reach: null,
    });
  }
}
