/**
 * The Worker of an executor's own process: no objects, no storage, and no way
 * to either but the home that comes with each batch.
 */
import { WorkerEntrypoint } from "cloudflare:workers";
import { noteEnded } from "../../shared/ended.ts";
import type { Batch, BatchReply } from "../../shared/rpc-batch.ts";
import type { FunctionVersion } from "../../shared/protocol/function.ts";
import type { LoneRun, RunBatch } from "../../shared/rpc-functions.ts";
import type { HomeRpc, LoneRpc, ProcessRpc } from "../../shared/rpc-processes.ts";
import { runHere, type Surroundings, warmUp } from "../executor/functions/runtime.ts";
import { tcpReach } from "../executor/reach.ts";
import { runBatch } from "../executor/run-batch.ts";
import { networkOf } from "../kit/network.ts";
import { envThrough } from "./env.ts";
import { keptOpen, Lease } from "./lease.ts";
import { Lone } from "./lone.ts";

interface ProcessEnv {
  readonly LOADER: WorkerLoader;
}

export class ExecutorProcess extends WorkerEntrypoint<ProcessEnv> implements ProcessRpc {
  /** For the watch over a process that hangs. */
  override fetch(): Response {
    return new Response("well\n");
  }

  async ready(): Promise<void> {}

  run(batch: Batch, home: HomeRpc): Promise<BatchReply> {
    return Lease.during(home, async (lease) => {
      const surroundings = this.#surroundings(lease);
      const settle = (_: string, lines: string): Promise<void> => lease.home.settle(lines);
      return keptOpen(await runBatch(batch, { settle, ...surroundings }), surroundings.waitUntil);
    });
  }

  runFunctions(batch: RunBatch, home: HomeRpc): Promise<BatchReply> {
    return Lease.during(home, async (lease) => {
      const surroundings = this.#surroundings(lease);
      const reached = envThrough(lease.home, this.env.LOADER);
      return keptOpen(await runHere(reached, batch, surroundings), surroundings.waitUntil);
    });
  }

  warm(version: FunctionVersion, home: HomeRpc): Promise<void> {
    return Lease.during(home, (lease) => warmUp(envThrough(lease.home, this.env.LOADER), "request", version));
  }

  async lone(run: LoneRun, home: HomeRpc): Promise<LoneRpc> {
    const lone = new Lone(run, home, this.env.LOADER);
    // Whoever asked may go away, and what it holds must be given back.
    this.ctx.waitUntil(lone.over);
    return lone;
  }

  async ended(goalId: string): Promise<void> {
    noteEnded(goalId);
  }

  #surroundings(lease: Lease): Surroundings {
    const waitUntil = (work: Promise<unknown>): void => {
      this.ctx.waitUntil(work);
      lease.until(work);
    };
    return { place: "request", waitUntil, reach: tcpReach, network: networkOf(this.env) };
  }
}
