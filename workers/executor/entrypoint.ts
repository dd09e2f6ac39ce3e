/**
 * The executor as an entrypoint of this Worker, reached over `ctx.exports`.
 * Suits one machine: deployed, calls from here would share the six
 * connections of the request that they serve.
 */
import { WorkerEntrypoint } from "cloudflare:workers";
import type { FunctionVersion } from "../../shared/protocol/function.ts";
import type { Batch, BatchReply, ExecutorRpc } from "../../shared/rpc-batch.ts";
import type { FunctionExecutorRpc, RunBatch } from "../../shared/rpc-functions.ts";
import { networkOf } from "../kit/network.ts";
import { tcpReach } from "./reach.ts";
import { runHere, warmUp } from "./functions/runtime.ts";
import { runBatch, settlerOf } from "./run-batch.ts";

export class Executor extends WorkerEntrypoint<Env> implements ExecutorRpc, FunctionExecutorRpc {
  run(batch: Batch): Promise<BatchReply> {
    return runBatch(batch, {
      settle: settlerOf(this.env.GOAL),
      waitUntil: (work) => this.ctx.waitUntil(work),
      reach: tcpReach,
      network: networkOf(this.env),
    });
  }

  runFunctions(batch: RunBatch): Promise<BatchReply> {
    const waitUntil = (work: Promise<unknown>): void => this.ctx.waitUntil(work);
    return runHere(this.env, batch, { place: "request", waitUntil, reach: tcpReach, network: networkOf(this.env) });
  }

  async warm(version: FunctionVersion): Promise<void> {
    await warmUp(this.env, "request", version);
  }
}
