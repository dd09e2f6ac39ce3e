/** The typed contract between a goal and the executors of its calls. It is a part of `rpc.ts`. */
export interface BatchItem {
  readonly task: number;
  readonly taskId: string;
  readonly attempt: number;
  readonly method: string;
  readonly path: string;
  readonly timeoutMs: number;
  readonly headers?: Readonly<Record<string, string>> | undefined;
  readonly body?: unknown;
  readonly bodyBase64?: string | undefined;
  /** The fences of the locks that the task holds, as the header `Drover-Fence` has them. */
  readonly fence?: string | undefined;
  /** It may be sent a second time while it is open. */
  readonly isHedgeable?: boolean;
  /** When a first try of the attempt began, of which this is the second: its line says so. Left out for a first try. */
  readonly firstAtMs?: number;
}

export interface Batch {
  readonly goalId: string;
  /** The goals that it is a part of, root first; left out, none. */
  readonly above?: readonly string[] | undefined;
  /** Hex, 32 digits: the trace that the goal's calls belong to. */
  readonly traceId: string;
  readonly origin: string;
  /** Sent with every call of the batch. */
  readonly headers: Readonly<Record<string, string>>;
  /** Calls open at once, at most six. */
  readonly lanes: number;
  /** The batch must not be open for longer than this unless it is renewed; null where the upstream sets no hard bound. */
  readonly permitMs: number | null;
  /** Where an answer says how many tokens it used, as a JSON pointer; null where none is asked for. */
  readonly tokensPointer: string | null;
  /** As `tokensPointer`, of what the call cost in millionths of a US dollar. */
  readonly costPointer?: string | null;
  /** Left out where no call of the batch may be sent a second time. */
  readonly hedge?: BatchHedge | undefined;
  readonly items: readonly BatchItem[];
}

/** Second tries, in lanes of the batch that have nothing else to do or come free; one lane more than items are left, at most. */
export interface BatchHedge {
  /** A call that takes longer may be tried a second time. */
  readonly afterMs: number;
  /** How many may be. */
  readonly most: number;
  /** Where the second tries go. */
  readonly origin: string;
}

/** Reaches into a batch that is still running. */
export interface BatchControl {
  /** Aborts these attempts: pairs of task and attempt. They are not reported. */
  abort(attempts: readonly (readonly [number, number])[]): void;
  /** The permits last so much longer from now. */
  renew(permitMs: number): void;
  /** Aborts everything that is left. */
  stop(): void;
}

/**
 * A batch that ends within the executor's patience answers with all its
 * result lines as one string. A longer one answers with the lines so far and
 * a byte stream of the rest, with at most one chunk every 50 ms.
 */
export type BatchReply = string | { readonly first: string; readonly rest: ReadableStream<Uint8Array>; readonly control: BatchControl };

export interface ExecutorRpc {
  run(batch: Batch): Promise<BatchReply>;
}
