/**
 * The executor as a pool of objects: each has six connections of its own, so
 * a goal spreads its calls by spreading its batches over numbered objects.
 * Keeps nothing, in memory or on disk.
 */
import { DurableObject } from "cloudflare:workers";
import type { FunctionVersion } from "../../shared/protocol/function.ts";
import type { Batch, BatchReply, ExecutorRpc } from "../../shared/rpc-batch.ts";
import type { FunctionExecutorRpc, RunBatch } from "../../shared/rpc-functions.ts";
import { runHere, warmUp } from "../../workers/executor/functions/runtime.ts";
import { runBatch, settlerOf } from "../../workers/executor/run-batch.ts";

export class ExecutorPool extends DurableObject<Env> implements ExecutorRpc, FunctionExecutorRpc {
  run(batch: Batch): Promise<BatchReply> {
    return runBatch(batch, {
      settle: settlerOf(this.env.GOAL),
      waitUntil: (work) => this.ctx.waitUntil(work),
      // Deployed, a failed connection is an answer (521 to 526, 530), not a fault.
      reach: null,
    });
  }

  runFunctions(batch: RunBatch): Promise<BatchReply> {
    return runHere(this.env, batch, { place: "object", waitUntil: (work) => this.ctx.waitUntil(work), reach: null });
  }

  async warm(version: FunctionVersion): Promise<void> {
    await warmUp(this.env, "object", version);
  }
}
