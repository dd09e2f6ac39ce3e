/** A function: user code that tasks of kind `run` call, and what one invocation of it may use. */
import type { ErrorCode } from "../errors.ts";

/** As an upstream's. */
export const FUNCTION_NAME = /^[a-z0-9][a-z0-9_.-]{0,62}$/;

export const ENGINES = ["snapshot", "isolate"] as const;
/** `snapshot`: a memory snapshot, restored for every invocation. `isolate`: a dynamic Worker of its own, for heavy or hostile code. */
export type EngineName = (typeof ENGINES)[number];

/** Bounds of one invocation. */
export interface FunctionLimits {
  /** Time on the processor. Metered in fuel, so it is about this long on a machine like ours. */
  readonly cpuMs: number;
  /** What it may allocate beyond its image. */
  readonly memoryBytes: number;
}

/** A version of a function, as the tenant's registry has it. */
export interface FunctionVersion {
  readonly name: string;
  /** SHA-256, in hex, of the bundle, the engine's name and the limits. */
  readonly version: string;
  readonly engine: EngineName;
  readonly limits: FunctionLimits;
  readonly bundleBytes: number;
  /** The image in memory, without what is zero; 0 where the engine has none. */
  readonly snapshotBytes: number;
  /** How long its initialisation took; not repeated for any task. */
  readonly initMs: number;
  readonly createdAtMs: number;
}

/** How long runs of a function took: pairs of a bucket of `shared/policy/histogram.ts` and its count. */
export interface RunTimes {
  readonly function: string;
  readonly latencies: readonly number[];
}

/** How an invocation ended. An aborted one ends as a `failed` one with code `function_limit` or `canceled`; its executor knows better why. */
export type Ended = (
  | { readonly outcome: "returned"; readonly output: string }
  | {
      readonly outcome: "failed";
      readonly code: "function_error" | "function_limit" | ErrorCode;
      readonly detail: string;
      /** Whether another attempt may fare better, where the error that was thrown says so itself: its own `retryable`. */
      readonly retryable?: boolean | undefined;
      /** Of the handler's own source, where its bundle has a source map. */
      readonly stack?: string | undefined;
    }
) & {
  readonly cpuMs: number;
  /** It used up its time on the processor. */
  readonly isOverrun?: boolean | undefined;
};
