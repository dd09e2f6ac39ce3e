/**
 * The executor where executors may have processes of their own: hands a batch
 * on to one of these, and runs it here while none is there. It outlives the
 * goal that asked, as an executor must: the batch's home is here.
 */
import { hasEnded, passOn } from "../../shared/ended.ts";
import type { FunctionVersion } from "../../shared/protocol/function.ts";
import type { Batch, BatchReply } from "../../shared/rpc-batch.ts";
import type { RunBatch } from "../../shared/rpc-functions.ts";
import type { ProcessRpc } from "../../shared/rpc-processes.ts";
import { Executor as ExecutorHere } from "../executor/entrypoint.ts";
import { goalsOf } from "../executor/lanes.ts";
import { Home } from "./home.ts";
import { processes, seatFor } from "./bound.ts";
import type { Seat } from "./processes.ts";

passOn((goalId) => processes.tellEnded(goalId));

export class Executor extends ExecutorHere {
  override async run(batch: Batch): Promise<BatchReply> {
    const startedAtMs = Date.now();
    const seat = await this.#seatFor(batch);
    // Permits are counted from when the batch left.
    const permitMs = batch.permitMs === null ? null : batch.permitMs - (Date.now() - startedAtMs);
    const punctual = { ...batch, permitMs };
    return seat === null ? super.run(punctual) : this.#through(seat, batch.goalId, (process, home) => process.run(punctual, home));
  }

  override async runFunctions(batch: RunBatch): Promise<BatchReply> {
    const seat = await this.#seatFor(batch);
    return seat === null
      ? super.runFunctions(batch)
      : this.#through(seat, batch.goalId, (process, home) => process.runFunctions(batch, home));
  }

  /** All of them get ready; one that is not there fetches what it needs with its first batch. */
  override async warm(version: FunctionVersion): Promise<void> {
    const { all } = processes;
    if (all.length === 0) return super.warm(version);
    await Promise.allSettled(all.map((process) => this.#withHome("", (home) => process.warm(version, home))));
  }

  /** Null: the batch is run here. So is one whose goal ended meanwhile, of which its process has not heard: nothing of it begins. */
  async #seatFor(batch: Batch | RunBatch): Promise<Seat | null> {
    const goalIds = goalsOf(batch);
    const seat = await seatFor(goalIds, (work) => this.ctx.waitUntil(work));
    if (seat === null || !hasEnded(goalIds)) return seat;
    seat.leave();
    return null;
  }

  async #through(seat: Seat, goalId: string, send: (process: ProcessRpc, home: Home) => Promise<BatchReply>): Promise<BatchReply> {
    try {
      return await this.#withHome(goalId, (home) => {
        void home.left.then(() => seat.leave());
        return send(seat.process, home);
      });
    } catch (error) {
      seat.lost();
      // Without the runtime's marks: the process may have made calls before it ended.
      throw new Error(`an executor's process broke off: ${String(error)}`, { cause: error });
    }
  }

  async #withHome<T>(goalId: string, send: (home: Home) => Promise<T>): Promise<T> {
    const home = new Home(this.env, goalId);
    this.ctx.waitUntil(home.left);
    try {
      return await send(home);
    } catch (error) {
      home[Symbol.dispose]();
      throw error;
    }
  }
}
