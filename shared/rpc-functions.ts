/** The contracts of functions: where their images live, how a goal has them run, and what a running one may ask of its goal. */
import type { FunctionVersion } from "./protocol/function.ts";
import type { Answer, BatchReply } from "./rpc.ts";

// edge and executor → image

/** A snapshot as it is stored; only the engine that made it can restore it. */
export interface StoredImage {
  /** Names the engine, its prelude and the format. */
  readonly engineId: string;
  /** What is needed beside the bytes to restore them, as JSON. */
  readonly manifest: string;
  /** Compressed. */
  readonly bytes: Uint8Array;
}

/** One object a version. */
export interface ImageRpc {
  putBundle(bundle: string): Promise<void>;
  bundle(): Promise<string | null>;
  /** Replaces the image of an earlier engine. */
  putImage(image: StoredImage): Promise<void>;
  /** Null where this engine has made none yet: it is made anew from the bundle. */
  image(engineId: string): Promise<StoredImage | null>;
  remove(): Promise<void>;
}

// goal → executor

export interface RunItem {
  readonly task: number;
  readonly taskId: string;
  readonly key?: string | undefined;
  readonly attempt: number;
  readonly timeoutMs: number;
  /** JSON text. */
  readonly input: string;
  /** The fences of the locks that the task holds, as the header `Drover-Fence` has them. */
  readonly fence?: string | undefined;
}

/** Tasks of one version of one function. */
export interface RunBatch {
  readonly goalId: string;
  /** Hex, 32 digits: the trace that the goal's calls belong to. */
  readonly traceId: string;
  readonly function: FunctionVersion;
  readonly items: readonly RunItem[];
}

export interface FunctionExecutorRpc {
  /** Answers as `ExecutorRpc.run` does. */
  runFunctions(batch: RunBatch): Promise<BatchReply>;
  /** Tasks of the function are on their way: fetch its image and fill the pool. */
  warm(version: FunctionVersion): Promise<void>;
}

// executor → goal

/** What a handler asks of its goal. `args` is JSON text. An attempt that is no longer the current one is refused as `stale_attempt`. */
export interface GoalAsk {
  readonly task: number;
  readonly attempt: number;
  readonly op: "spawn" | "results" | "lock" | "unlock";
  /** Counts what the handler has asked: a repeat of the attempt asks the same under the same number. */
  readonly seq: number;
  readonly args: string;
}

export interface GoalAskRpc {
  /** One answer each, as JSON text, in their order; those of a turn come in one message. */
  ask(asks: readonly GoalAsk[]): Promise<readonly Answer<string>[]>;
}
