/** The contracts of functions: where their images live, how a goal has them run, and what a running one may ask of its goal. */
import type { Failure } from "./errors.ts";
import type { Amounts } from "./policy/account.ts";
import type { LatencyView } from "./policy/latencies.ts";
import type { CallEnd } from "./policy/outcome.ts";
import type { Policy } from "./policy/rules.ts";
import type { Ended, FunctionVersion } from "./protocol/function.ts";
import type { Reserve } from "./protocol/task.ts";
import type { BatchReply } from "./rpc-batch.ts";
import type { WholeAnswer } from "./rpc-flight.ts";
import type { Answer, KeyedCall } from "./rpc.ts";

// edge and image → tenant

export interface FunctionRegistryRpc {
  /** Makes it the newest version of its name. `created`: it was not that before; `replaced`: what was, where no name has it now. */
  putFunction(version: FunctionVersion): Promise<Answer<{ created: boolean; function: FunctionVersion; replaced: string | null }>>;
  getFunction(name: string): Promise<Answer<FunctionVersion>>;
  /** How long runs of it took of late. */
  functionLive(name: string): Promise<LatencyView>;
  listFunctions(): Promise<Answer<readonly FunctionVersion[]>>;
  /** Tasks that wait for it wait on until there is one again. Answers as `putFunction` does with what was replaced. */
  deleteFunction(name: string): Promise<Answer<{ replaced: string | null }>>;
  /** Whether any name has the version. */
  hasVersion(version: string): Promise<boolean>;
}

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

/** One object a version, by its name. It deletes itself some time after the registry has the version no more. */
export interface ImageRpc {
  putBundle(version: string, bundle: string): Promise<void>;
  bundle(): Promise<string | null>;
  /** Replaces the image of an earlier engine. Nothing happens where there is no bundle. */
  putImage(image: StoredImage): Promise<void>;
  /** Null where this engine has made none yet: it is made anew from the bundle. */
  image(engineId: string): Promise<StoredImage | null>;
  /** The registry may have the version no more: it looks now, and not some time later. */
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
  /** What its task has set aside: its calls are paid from that first. Left out where that is nothing. */
  readonly reserve?: Amounts | undefined;
  /** The fences of the locks that the task holds, as the header `Drover-Fence` has them. */
  readonly fence?: string | undefined;
  /** What the token that brought the task was restricted to: its function's calls are held to it. */
  readonly policies?: readonly Policy[] | undefined;
}

/** Tasks of one version of one function. */
export interface RunBatch {
  readonly goalId: string;
  /** As in `Batch`. */
  readonly above?: readonly string[] | undefined;
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

// edge → executor

/** One run outside any goal. */
export interface LoneRun {
  readonly function: FunctionVersion;
  /** JSON text. */
  readonly input: string;
  readonly timeoutMs: number;
}

export interface RunLog {
  readonly level: unknown;
  readonly text: string;
}

export interface LoneEnd {
  readonly ended: Ended;
  /** It did not end within its time. */
  readonly isLate: boolean;
  readonly logs: readonly RunLog[];
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

// executor → gate

/** The end of one call that was made with what a hand holds. */
export interface HandEnd {
  readonly permit: number;
  /** What it was paid from: the draw with this number, 0 where the run's task had set all of it aside; null for one of the calls that are paid for. */
  readonly draw: number | null;
  readonly end: CallEnd;
}

export interface Draw {
  readonly id: number;
  readonly reserve: Reserve;
  /** Dimensions that are paid already, whatever the call uses. */
  readonly covered?: readonly boolean[] | undefined;
}

/** A second try of a call that is late: a permit that nobody else wants, and what it costs where the goal has plenty. */
export interface SecondAsked {
  /** As a draw's, of the same numbers. */
  readonly id: number;
  /** Of the origin that has the first try: another one is better. */
  readonly place: number;
  readonly reserve: Reserve | undefined;
}

/** What the functions of a batch want at one upstream, and what has become of what they had. */
export interface HandAsk {
  readonly upstream: string;
  /** Permits more than were asked for before. */
  readonly permits: number;
  /** Calls to be paid for, each as its upstream says: so many that wait, and so many more where there is plenty. */
  readonly calls: number;
  readonly spare: number;
  /** Calls that set aside something of their own. The numbers are the asker's. */
  readonly draws: readonly Draw[];
  /** Left out where there are none. */
  readonly seconds?: readonly SecondAsked[];
  /** Calls that must not be made twice, before they are. */
  readonly keys: readonly { readonly id: number; readonly keyed: KeyedCall }[];
  readonly ends: readonly HandEnd[];
  /** Permits that are given back. */
  readonly back: readonly number[];
  /** Calls that were paid for and are not made. */
  readonly unused: number;
  readonly undrawn: readonly number[];
  /** How the calls with a key have ended. `answer`: what the key is answered from now on; null where it is too large to keep. */
  readonly closed: readonly { readonly id: number; readonly end: CallEnd; readonly answer?: WholeAnswer | null }[];
}

/** What is known of an upstream by whoever calls it. */
export interface HandTerms {
  readonly origins: readonly string[];
  readonly headers: Readonly<Record<string, string>>;
  readonly timeoutMs: number;
  readonly maxAttempts: number;
  /** The upstream honours `Idempotency-Key`. */
  readonly isKeyed: boolean;
  /** What a call sets aside besides itself. */
  readonly reserve: { readonly tokens: number; readonly costMicros?: number };
  readonly tokensPointer: string | null;
  readonly costPointer: string | null;
  readonly tenantPolicy: Policy | null;
  readonly goalPolicies: readonly Policy[];
}

/** What a gate has for a hand at one upstream. */
export interface HandNews {
  readonly upstream: string;
  /** Nothing is to be had here: whatever waits fails. */
  readonly fault?: Failure;
  /** Left out where they are as they were. */
  readonly terms?: HandTerms;
  /** The number of each, and the place of its origin. */
  readonly permits: readonly (readonly [id: number, place: number])[];
  /** So many permits are not to be had after all. */
  readonly without?: { readonly count: number; readonly fault: Failure };
  /** Calls that are paid for. */
  readonly calls: number;
  /** So many calls cannot be paid for. */
  readonly unpaid?: { readonly count: number; readonly fault: Failure };
  /** There is little left: nobody should keep what he does not use. */
  readonly isTight: boolean;
  readonly draws: readonly { readonly id: number; readonly fault: Failure | null }[];
  /** One for each that was asked for; no permit: it is not to be made. */
  readonly seconds?: readonly { readonly id: number; readonly permit?: readonly [id: number, place: number] }[];
  readonly keys: readonly { readonly id: number; readonly fault?: Failure; readonly replay?: WholeAnswer }[];
  /** How much longer its permits last; null where the upstream sets no hard bound. */
  readonly permitMs: number | null;
  /** A permit may be used again by the next call. */
  readonly isReusable: boolean;
  /** After how long a call may be made a second time; null where none may. Left out where no permit is held. */
  readonly hedgeAfterMs?: number | null;
}

export interface HandRequest {
  /** The gate's own name, which it gives to governors. */
  readonly gate: string;
  readonly goalId: string;
  /** How long its calls wait for permits. */
  readonly waitMs: number;
}

/**
 * What a gate lends to the functions of one batch: permits, calls that are paid
 * for, and keys. Dropping it gives permits back; where it was not closed, calls
 * that it had paid for are charged, because nobody says whether they were made.
 */
export interface HandRpc {
  /**
   * Tells, and hears what there is. Where something that was asked for is not
   * there yet, the answer waits for it, or for the next exchange.
   */
  exchange(asks: readonly HandAsk[]): Promise<readonly HandNews[]>;
  /** The last word. What was lent and is not spoken of was not used, on whatever way it is. */
  close(asks: readonly HandAsk[]): Promise<void>;
  /** The upstream that has this origin; null for none. */
  find(origin: string): Promise<string | null>;
}

export interface HandsRpc {
  /** Answers at once, so that no caller can go away unnoticed. */
  hand(request: HandRequest): Promise<HandRpc>;
}

// gate → goal

/**
 * What one life of a gate holds of the goal's budget. All of it is said each
 * time, so a message that is lost or repeated does no harm.
 */
export interface TabRequest {
  /** Names the tab. */
  readonly life: string;
  readonly isNew: boolean;
  /** Spent so far in all. */
  readonly used: Amounts;
  /** Held now. */
  readonly left: Amounts;
  /** What is wanted besides, in order: `need` times these amounts, or as often as there is enough; and `spare` times more where there is plenty. */
  readonly wants: readonly { readonly amounts: Amounts; readonly need: number; readonly spare: number }[];
}

export interface TabReply {
  /** How often of each. Null: the goal knows of no such tab; what it held was charged. */
  readonly granted: readonly number[] | null;
  readonly isTight: boolean;
}

export interface TabRpc {
  tab(request: TabRequest): Promise<Answer<TabReply>>;
}
