/**
 * The executor where executors may have processes of their own: hands a batch
 * on to one of these, and runs it here while none answers. It outlives the
 * goal that asked, as an executor must: the batch's home is here.
 */
import type { FunctionVersion } from "../../shared/protocol/function.ts";
import type { Batch, BatchReply } from "../../shared/rpc-batch.ts";
import type { RunBatch } from "../../shared/rpc-functions.ts";
import type { ProcessRpc } from "../../shared/rpc-processes.ts";
import { Executor as ExecutorHere } from "../executor/entrypoint.ts";
import { Home } from "./home.ts";
import { Processes, type Seat } from "./processes.ts";

let known: Processes | undefined;

export class Executor extends ExecutorHere {
  override async run(batch: Batch): Promise<BatchReply> {
    const seat = await this.#processes.take(this.#bindings);
    return seat === null ? super.run(batch) : this.#through(seat, (process, home) => process.run(batch, home));
  }

  override async runFunctions(batch: RunBatch): Promise<BatchReply> {
    const seat = await this.#processes.take(this.#bindings);
    return seat === null ? super.runFunctions(batch) : this.#through(seat, (process, home) => process.runFunctions(batch, home));
  }

  /** All of them get ready; one that is not there fetches what it needs with its first batch. */
  override async warm(version: FunctionVersion): Promise<void> {
    const processes = this.#processes.all(this.#bindings);
    if (processes.length === 0) return super.warm(version);
    await Promise.allSettled(processes.map((process) => process.warm(version, this.#home())));
  }

  get #bindings(): Readonly<Record<string, unknown>> {
    return this.env as unknown as Readonly<Record<string, unknown>>;
  }

  get #processes(): Processes {
    return (known ??= new Processes(this.#bindings));
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
      const reply = await send(seat.process, home);
      seat.saw();
      return reply;
    } catch (error) {
      seat.lost();
      home[Symbol.dispose]();
      // Without the runtime's marks: the process may have made calls before it ended.
      throw new Error(`an executor's process broke off: ${String(error)}`, { cause: error });
    }
  }
}
