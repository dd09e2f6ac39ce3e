/** The contract between the local server's own process and the processes that its executors may have. It is a part of `rpc.ts`. */
import type { Answer } from "./rpc.ts";
import type { Batch, BatchReply } from "./rpc-batch.ts";
import type { FunctionVersion } from "./protocol/function.ts";
import type { GoalAsk, HandRpc, LoneEnd, LoneRun, RunBatch, StoredImage } from "./rpc-functions.ts";

// executor → server

/** All that an executor in a process of its own can reach, for one batch: it has no storage, and user code runs there. */
export interface HomeRpc {
  /** As `GoalRpc.settle`, of the batch's goal. */
  settle(lines: string): Promise<void>;
  /** As `GoalAskRpc.ask`, of the batch's goal. */
  ask(asks: readonly GoalAsk[]): Promise<readonly Answer<string>[]>;
  /** As `HandsRpc.hand`, of the gate of that goal. */
  hand(waitMs: number): Promise<HandRpc>;
  /** As `ImageRpc.bundle`. */
  bundle(version: string): Promise<string | null>;
  /** As `ImageRpc.image`. */
  image(version: string, engineId: string): Promise<StoredImage | null>;
  /** As `ImageRpc.putImage`. */
  putImage(version: string, image: StoredImage): Promise<void>;
}

// server → executor

/** A run outside any goal. It is cut where nobody holds this any more. */
export interface LoneRpc {
  /** Loads its version. Why that cannot be had, or null. */
  ready(): Promise<string | null>;
  /** Runs it, once. */
  run(): Promise<LoneEnd>;
  cut(): Promise<void>;
}

export interface ProcessRpc {
  /** Answers where the process runs at all. */
  ready(): Promise<void>;
  /** As `ExecutorRpc.run`. */
  run(batch: Batch, home: HomeRpc): Promise<BatchReply>;
  /** As `FunctionExecutorRpc.runFunctions`. */
  runFunctions(batch: RunBatch, home: HomeRpc): Promise<BatchReply>;
  /** As `FunctionExecutorRpc.warm`. */
  warm(version: FunctionVersion, home: HomeRpc): Promise<void>;
  lone(run: LoneRun, home: HomeRpc): Promise<LoneRpc>;
  /** The goal has ended, durably: nothing more is begun for it, or for one below it. */
  ended(goalId: string): Promise<void>;
}
