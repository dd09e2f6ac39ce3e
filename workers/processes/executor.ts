/**
 * The Worker of an executor's own process: no objects, no storage, and no way
 * to either but the home that comes with each batch.
 */
import { RpcTarget, WorkerEntrypoint } from "cloudflare:workers";
import { noteEnded } from "../../shared/ended.ts";
import type { Batch, BatchReply } from "../../shared/rpc-batch.ts";
import type { FunctionVersion } from "../../shared/protocol/function.ts";
import type { LoneEnd, LoneRun, RunBatch } from "../../shared/rpc-functions.ts";
import type { HomeRpc, LoneRpc, ProcessRpc } from "../../shared/rpc-processes.ts";
import { runHere, type Surroundings, warmUp } from "../executor/functions/runtime.ts";
import { tcpReach } from "../executor/reach.ts";
import { runBatch } from "../executor/run-batch.ts";
import { Cutoff } from "../kit/cutoff.ts";
import { networkOf } from "../kit/network.ts";
import { runAlone } from "../sandbox/lone.ts";
import { envThrough } from "./env.ts";
import { keptOpen, Lease } from "./lease.ts";

interface ProcessEnv {
  readonly LOADER: WorkerLoader;
}

class Lone extends RpcTarget implements LoneRpc {
  readonly #ending: Promise<LoneEnd>;
  readonly #cutoff: Cutoff;

  constructor(ending: Promise<LoneEnd>, cutoff: Cutoff) {
    super();
    this.#ending = ending;
    this.#cutoff = cutoff;
  }

  end(): Promise<LoneEnd> {
    return this.#ending;
  }

  async cut(): Promise<void> {
    this.#cutoff.end("its caller has gone");
  }

  [Symbol.dispose](): void {
    this.#cutoff.end("its caller has gone");
  }
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

  async runAlone(run: LoneRun, home: HomeRpc): Promise<LoneRpc> {
    const cutoff = new Cutoff();
    const ending = Lease.during(home, (lease) => runAlone(envThrough(lease.home, this.env.LOADER), run, cutoff));
    // Whoever asked may go away, and it is cut then; what it holds must be given back.
    this.ctx.waitUntil(ending.catch(() => undefined));
    return new Lone(ending, cutoff);
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
