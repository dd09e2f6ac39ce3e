/**
 * The executor where executors may have processes of their own: hands a batch
 * on to one of these, and runs it here while none answers. It outlives the
 * goal that asked, as an executor must: the batch's home is here.
 */
import { env } from "cloudflare:workers";
import { passOn } from "../../shared/ended.ts";
import type { FunctionVersion } from "../../shared/protocol/function.ts";
import type { Batch, BatchReply } from "../../shared/rpc-batch.ts";
import type { RunBatch } from "../../shared/rpc-functions.ts";
import type { ProcessRpc } from "../../shared/rpc-processes.ts";
import { Executor as ExecutorHere } from "../executor/entrypoint.ts";
import { goalsOf } from "../executor/lanes.ts";
import { Home } from "./home.ts";
import { Processes, type Seat } from "./processes.ts";

const bound = Object.entries(env).filter(([name]) => name.startsWith("EXECUTOR_PROCESS_"));
const processes = new Processes(bound.map(([, binding]) => binding as unknown as ProcessRpc));
passOn((goalId) => processes.tellEnded(goalId));

export class Executor extends ExecutorHere {
  override async run(batch: Batch): Promise<BatchReply> {
    const seat = await processes.take(goalsOf(batch));
    return seat === null ? super.run(batch) : this.#through(seat, (process, home) => process.run(batch, home));
  }

  override async runFunctions(batch: RunBatch): Promise<BatchReply> {
    const seat = await processes.take(goalsOf(batch));
    return seat === null ? super.runFunctions(batch) : this.#through(seat, (process, home) => process.runFunctions(batch, home));
  }

  /** All of them get ready; one that is not there fetches what it needs with its first batch. */
  override async warm(version: FunctionVersion): Promise<void> {
    const { all } = processes;
    if (all.length === 0) return super.warm(version);
    await Promise.allSettled(all.map((process) => process.warm(version, this.#home())));
  }

  #home(): Home {
    const home = new Home(this.env);
    this.ctx.waitUntil(home.left);
    return home;
  }

  async #through(seat: Seat, send: (process: ProcessRpc, home: Home) => Promise<BatchReply>): Promise<BatchReply> {
    const home = this.#home();
    void home.left.then(() => seat.leave());
    try {
      return await send(seat.process, home);
    } catch (error) {
      seat.lost();
      home[Symbol.dispose]();
      // Without the runtime's marks: the process may have made calls before it ended.
      throw new Error(`an executor's process broke off: ${String(error)}`, { cause: error });
    }
  }
}
