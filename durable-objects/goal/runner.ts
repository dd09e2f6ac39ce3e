/**
 * Sends batches to executors and hears from them. It knows nothing of tasks'
 * fates: lines go into the inbox as they come, and the goal takes them in its
 * next turn.
 */
import { assert } from "../../shared/assert.ts";
import { taskIdOf } from "../../shared/ids.ts";
import { ABORT_MS, RUN_BATCH_TASKS_MAX, RUN_WINDOW_TASKS } from "../../shared/limits.ts";
import { isNothing, NOTHING } from "../../shared/policy/account.ts";
import type { FunctionVersion } from "../../shared/protocol/function.ts";
import type { Batch, BatchControl, BatchHedge, BatchItem, BatchReply, ExecutorRpc } from "../../shared/rpc-batch.ts";
import type { FunctionExecutorRpc, RunBatch, RunItem } from "../../shared/rpc-functions.ts";
import { isHedgeable } from "./core/hedges.ts";
import { ancestorsOf } from "./core/kin.ts";
import { fencesOf } from "./core/locks.ts";
import type { Send } from "./core/recorder.ts";
import { reserveOf } from "./core/reserve.ts";
import { policiesBehind } from "./core/rights.ts";
import type { Refusal } from "./core/settle.ts";
import { versionOf } from "./core/run-state.ts";
import type { GoalState } from "./core/state.ts";
import type { CallCache } from "./offers.ts";

/** Versions of functions that are remembered to have been announced. */
const WARMED_MAX = 1_000;

/** Chooses the executor for a batch, by a number that is not in use. */
export type Transport = (slot: number) => ExecutorRpc & FunctionExecutorRpc;

export interface Inbox {
  /** Whole result lines, each with its newline. */
  lines(text: string): void;
  /** Nothing more will come of this batch. `refusal` where no executor took it, as far as one knows. */
  closed(batch: number, refusal: Refusal | undefined): void;
  /** So many attempts that were to be aborted are. */
  aborted(upstream: number, count: number): void;
}

interface Open {
  readonly slot: number;
  readonly upstream: number;
  readonly isBounded: boolean;
  control: BatchControl | null;
  /** Attempts to abort that came before there was a control. */
  aborts: (readonly [number, number])[];
}

export class Runner {
  readonly #transport: Transport;
  readonly #inbox: Inbox;
  readonly #permitMs: (upstream: number) => number;
  readonly #open = new Map<number, Open>();
  readonly #slots = new Set<number>();
  /** Executors, counted from the first, that were told of a version. */
  readonly #warmed = new Map<string, number>();

  /** `permitMs` says how long the permits at an upstream last from now. */
  constructor(transport: Transport, inbox: Inbox, permitMs: (upstream: number) => number) {
    this.#transport = transport;
    this.#inbox = inbox;
    this.#permitMs = permitMs;
  }

  async send(send: Send, batch: Batch | RunBatch): Promise<void> {
    const slot = this.#takeSlot();
    const isBounded = "origin" in batch && batch.permitMs !== null;
    const open: Open = { slot, upstream: send.upstream, isBounded, control: null, aborts: [] };
    this.#open.set(send.batch, open);
    let isTaken = false;
    let refusal: Refusal | undefined;
    try {
      const executor = this.#transport(slot);
      const reply = await ("origin" in batch ? executor.run(batch) : executor.runFunctions(batch));
      isTaken = true;
      await this.#hear(open, reply);
    } catch (error) {
      if (!isTaken) refusal = refusalIn(error as RuntimeMarks);
      // The batch counts as lost below; what speaks for a fault in Drover is worth a line in the log.
      console.warn(`batch ${send.batch} of ${batch.goalId} broke off: ${String(error)}`);
    }
    this.#open.delete(send.batch);
    this.#slots.delete(slot);
    if (open.control === null && open.aborts.length > 0) this.#inbox.aborted(open.upstream, open.aborts.length);
    this.#inbox.closed(send.batch, refusal);
  }

  /** So many tasks of the function are on their way: the executors that they will go to may get ready. Each is told once of a version. */
  async warm(version: FunctionVersion, tasks: number): Promise<void> {
    const executors = Math.ceil(Math.min(tasks, RUN_WINDOW_TASKS) / RUN_BATCH_TASKS_MAX);
    const known = this.#warmed.get(version.version) ?? 0;
    if (known >= executors) return;
    if (this.#warmed.size >= WARMED_MAX) this.#warmed.clear();
    this.#warmed.set(version.version, executors);
    const slots = Array.from({ length: executors - known }, (_, i) => known + i);
    await Promise.all(slots.map((slot) => this.#transport(slot).warm(version))).catch((error: unknown) => {
      // The first batch fetches what it needs.
      console.warn(`an executor did not get ready for ${version.name}: ${String(error)}`);
    });
  }

  async #hear(open: Open, reply: BatchReply): Promise<void> {
    if (typeof reply === "string") return this.#inbox.lines(reply);
    try {
      if (reply.first !== "") this.#inbox.lines(reply.first);
      open.control = reply.control;
      if (open.aborts.length > 0) this.#abort(open, open.aborts);
      // A renewal may have come before there was anybody to tell.
      if (open.isBounded) this.#renew(open);
      await this.#read(reply.rest.getReader());
    } finally {
      // The runtime keeps a stub's other end alive until it is given back.
      (reply as Partial<Disposable>)[Symbol.dispose]?.();
    }
  }

  async #read(reader: ReadableStreamDefaultReader<Uint8Array>): Promise<void> {
    const decoder = new TextDecoder();
    // A large line comes in thousands of chunks; each is looked at once.
    let tail: string[] = [];
    for (;;) {
      const { value, done } = await reader.read();
      if (done) break;
      const text = decoder.decode(value, { stream: true });
      const end = text.lastIndexOf("\n") + 1;
      if (end > 0) {
        this.#inbox.lines(tail.join("") + text.slice(0, end));
        tail = [];
      }
      if (end < text.length) tail.push(text.slice(end));
    }
    assert(tail.length === 0, "an executor ends its report with a whole line");
  }

  /** Aborts attempts: batch, task, attempt. Ones that ended meanwhile do no harm. `upstreamOf` tells a task's upstream. */
  abort(attempts: readonly (readonly [number, number, number])[], upstreamOf: (task: number) => number): void {
    const byBatch = Map.groupBy(attempts, ([batch]) => batch);
    for (const [batch, list] of byBatch) {
      const open = this.#open.get(batch);
      if (open === undefined) {
        // Another life's batch, or one that has just ended, perhaps by aborting a call of its own.
        const upstream = upstreamOf(list[0]![1]);
        setTimeout(() => this.#inbox.aborted(upstream, list.length), ABORT_MS);
        continue;
      }
      const pairs = list.map(([, task, attempt]) => [task, attempt] as const);
      if (open.control === null) open.aborts.push(...pairs);
      else this.#abort(open, pairs);
    }
  }

  /** The permits at an upstream were renewed: batches that need them may stay open. */
  renew(upstream: number): void {
    for (const open of this.#open.values()) if (open.upstream === upstream && open.isBounded && open.control !== null) this.#renew(open);
  }

  #renew(open: Open): void {
    void Promise.resolve(open.control!.renew(this.#permitMs(open.upstream))).catch(() => undefined);
  }

  #abort(open: Open, pairs: readonly (readonly [number, number])[]): void {
    // A batch that has just ended takes no more calls, and needs none.
    void Promise.resolve(open.control!.abort(pairs))
      .catch(() => undefined)
      .then(() => setTimeout(() => this.#inbox.aborted(open.upstream, pairs.length), ABORT_MS));
  }

  #takeSlot(): number {
    let slot = 0;
    while (this.#slots.has(slot)) slot++;
    this.#slots.add(slot);
    return slot;
  }
}

/** Properties that the runtime puts on errors of calls to other objects. */
interface RuntimeMarks {
  readonly overloaded?: unknown;
  readonly retryable?: unknown;
  readonly durableObjectReset?: unknown;
}

/** An executor that was reset had the batch, and one that a task filled up is called overloaded too. */
function refusalIn({ overloaded, retryable, durableObjectReset }: RuntimeMarks): Refusal | undefined {
  if (durableObjectReset === true) return undefined;
  if (overloaded === true) return "overloaded";
  return retryable === true ? "unreachable" : undefined;
}

/** The batch as an executor takes it: the inputs come from the offers, and leave memory with it. */
export function batchOf(state: GoalState, send: Send, calls: CallCache, nowMs: number): Batch | RunBatch {
  const version = versionOf(state, state.upstreams[send.upstream]!);
  return version === undefined ? callBatchOf(state, send, calls, nowMs) : runBatchOf(state, send, calls, version);
}

function runBatchOf(state: GoalState, send: Send, calls: CallCache, version: FunctionVersion): RunBatch {
  const goalId = state.goal!.id;
  const { offer, position, attempt, timeoutMs } = state.tasks;
  const items = send.tasks.map((task): RunItem => {
    const run = calls.run(offer[task]!, position[task]!);
    assert(run !== undefined, "only runs are sent to functions");
    const fence = fencesOf(state, task);
    const key = state.names[task];
    const policies = policiesBehind(state, task);
    const reserve = reserveOf(state, task, NOTHING);
    return {
      task,
      taskId: taskIdOf(goalId, task),
      ...(key === undefined ? {} : { key }),
      ...(isNothing(reserve) ? {} : { reserve }),
      attempt: attempt[task]!,
      timeoutMs: timeoutMs[task]!,
      input: JSON.stringify(run.input ?? null),
      ...(fence === undefined ? {} : { fence }),
      ...(policies.length === 0 ? {} : { policies }),
    };
  });
  return { goalId, above: ancestorsOf(state), traceId: traceIdOf(goalId), function: version, items };
}

function callBatchOf(state: GoalState, send: Send, calls: CallCache, nowMs: number): Batch {
  const goalId = state.goal!.id;
  const config = state.upstreams[send.upstream]!.config;
  assert(config !== null, "only an upstream with a configuration is sent to");
  const items = send.tasks.map((task): BatchItem => {
    const call = calls.get(state.tasks.offer[task]!, state.tasks.position[task]!);
    assert(call !== undefined, "only calls are sent");
    const { method = "GET", path, headers, body, bodyBase64 } = call;
    const { attempt, timeoutMs } = state.tasks;
    const fence = fencesOf(state, task);
    const firstAtMs = send.isBackup === true ? state.backups.get(task)!.firstAtMs : undefined;
    return {
      task,
      taskId: taskIdOf(goalId, task),
      attempt: attempt[task]!,
      // A deadline is the attempt's.
      timeoutMs: firstAtMs === undefined ? timeoutMs[task]! : Math.max(1, firstAtMs + timeoutMs[task]! - nowMs),
      method,
      path,
      headers,
      body,
      bodyBase64,
      ...(send.hedges !== undefined && isHedgeable(state, task) && { isHedgeable: true }),
      ...(firstAtMs !== undefined && { firstAtMs }),
      ...(fence === undefined ? {} : { fence }),
    };
  });
  const origin = config.origins[send.origin]!;
  const permitMs = config.maxConcurrency === null ? null : permitMsOf(state, send.upstream, nowMs);
  return {
    goalId,
    above: ancestorsOf(state),
    traceId: traceIdOf(goalId),
    origin,
    headers: config.headers,
    lanes: send.lanes,
    permitMs,
    tokensPointer: config.usage.tokens,
    costPointer: config.usage.costMicros ?? null,
    hedge: hedgeOf(state, send),
    items,
  };
}

/** A lease that has been replaced by one without hedging meanwhile leaves the batch without it, too. */
function hedgeOf(state: GoalState, { upstream, hedges }: Send): BatchHedge | undefined {
  const afterMs = state.admissions[upstream]?.lease.hedgeAfterMs ?? null;
  if (hedges === undefined || afterMs === null) return undefined;
  return { afterMs, most: hedges.left, origin: state.upstreams[upstream]!.config!.origins[hedges.origin]! };
}

/** How long the goal's permits at an upstream last from now. */
export function permitMsOf(state: GoalState, upstream: number, nowMs: number): number {
  return Math.max(0, (state.admissions[upstream]?.lease.untilMs ?? 0) - nowMs);
}

/** One trace a goal: 32 hex digits (W3C Trace Context) from the goal's own chance. */
function traceIdOf(goalId: string): string {
  let hex = "";
  for (let i = goalId.length - 16; i < goalId.length; i++) hex += (goalId.charCodeAt(i) & 0xff).toString(16).padStart(2, "0");
  return hex;
}
