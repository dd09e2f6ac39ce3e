/**
 * Runs the items of a batch, so many at a time. Of calls that is six at most:
 * the platform lets one invocation wait for no more answers than that, and
 * local workerd does not check. One timer watches all deadlines, because a
 * timer an item is a cost.
 */
import { assert } from "../../shared/assert.ts";
import { BATCH_LANES_MAX, BATCH_TASKS_MAX, EXECUTOR_FAILURES_MAX } from "../../shared/limits.ts";
import type { Verdict } from "../../shared/policy/outcome.ts";
import type { Batch, BatchItem } from "../../shared/rpc.ts";
import { call, type CallContext, givenBack, LEASE_ENDED, NOT_BEGUN, TIMED_OUT, UNWANTED } from "./call.ts";
import type { Work } from "./reply.ts";
import type { ReplyStream } from "./reply-stream.ts";
import { commonHeaders } from "./request.ts";

/** What lanes have to know of an item. */
export interface Item {
  readonly task: number;
  readonly attempt: number;
  readonly timeoutMs: number;
}

export interface Load<I extends Item> {
  readonly items: readonly I[];
  /** Items under way at once. */
  readonly lanes: number;
  /** As in `Batch`. */
  readonly permitMs: number | null;
  /** How long an item may wait until it says that it has begun; null where it begins at once. */
  readonly patienceMs: number | null;
  /** One attempt, from beginning to end, as its line; null where nobody wants to know. */
  readonly attempt: (item: I, signal: AbortSignal, begun: () => void) => Promise<string | null>;
  /** The line of an item that was not tried. */
  readonly givenBack: (item: I) => string;
}

interface Lane<I extends Item> {
  item: I | null;
  hasBegun: boolean;
  deadlineAtMs: number;
  /** Serves one item after another until it is used to abort one. */
  controller: AbortController;
}

const keyOf = (task: number, attempt: number): string => `${task}/${attempt}`;

export class Lanes<I extends Item> implements Work {
  readonly #load: Load<I>;
  readonly #replies: ReplyStream;
  readonly #lanes: Lane<I>[] = [];
  readonly #unwanted = new Set<string>();
  #next = 0;
  /** Calls in a row that did not get through. */
  #failures = 0;
  /** When the permits of the batch end. */
  #permitUntilMs: number;
  #timer: number | null = null;
  #timerAtMs = Infinity;

  constructor(load: Load<I>, replies: ReplyStream) {
    assert(load.items.length <= BATCH_TASKS_MAX, "a batch must not be larger than its limit");
    this.#load = load;
    this.#replies = replies;
    this.#permitUntilMs = load.permitMs === null ? Infinity : Date.now() + load.permitMs;
  }

  /** The permits last so much longer from now. */
  renew(permitMs: number): void {
    this.#permitUntilMs = Math.max(this.#permitUntilMs, Date.now() + permitMs);
  }

  /** Resolves when every item has ended or was given up. Never rejects but for a bug. */
  async run(): Promise<void> {
    const { lanes, items } = this.#load;
    const count = Math.max(1, Math.min(lanes, items.length));
    const running: Promise<void>[] = [];
    for (let i = 0; i < count; i++) {
      const lane: Lane<I> = { item: null, hasBegun: true, deadlineAtMs: Infinity, controller: new AbortController() };
      this.#lanes.push(lane);
      running.push(this.#drive(lane));
    }
    await Promise.all(running);
    clearTimeout(this.#timer);
  }

  /** Starts nothing more; what runs goes on. */
  drain(): void {
    this.#next = this.#load.items.length;
  }

  /** Gives up everything that is left. */
  stop(): void {
    this.drain();
    this.#replies.release();
    for (const lane of this.#lanes) if (lane.item !== null) lane.controller.abort(UNWANTED);
  }

  /** Gives up these attempts, running or not yet started. */
  abort(attempts: readonly (readonly [number, number])[]): void {
    for (const [task, attempt] of attempts) this.#unwanted.add(keyOf(task, attempt));
    for (const { item, controller } of this.#lanes) {
      if (item !== null && this.#unwanted.has(keyOf(item.task, item.attempt))) controller.abort(UNWANTED);
    }
  }

  /** Hears what the end of a call says of its upstream. */
  note(verdict: Verdict): void {
    if (verdict === "nothing") return;
    this.#failures = verdict === "answered" ? 0 : this.#failures + 1;
    if (this.#failures >= EXECUTOR_FAILURES_MAX) this.#giveBack();
  }

  /** Somebody who sees more decides when the rest is tried. */
  #giveBack(): void {
    const { items, givenBack } = this.#load;
    for (; this.#next < items.length; this.#next++) this.#replies.append(givenBack(items[this.#next]!));
  }

  async #drive(lane: Lane<I>): Promise<void> {
    const { items, attempt, patienceMs } = this.#load;
    const begun = (): void => this.#begin(lane);
    for (;;) {
      while (this.#replies.isFull) await this.#replies.room();
      const item = items[this.#next];
      if (item === undefined) return;
      this.#next++;
      if (this.#unwanted.size > 0 && this.#unwanted.has(keyOf(item.task, item.attempt))) continue;
      if (lane.controller.signal.aborted) lane.controller = new AbortController();
      lane.item = item;
      lane.hasBegun = patienceMs === null;
      lane.deadlineAtMs = Date.now() + (patienceMs ?? item.timeoutMs);
      this.#watch(Math.min(lane.deadlineAtMs, this.#permitUntilMs));
      const line = await attempt(item, lane.controller.signal, begun);
      lane.item = null;
      if (line !== null) this.#replies.append(line);
    }
  }

  /** The item's own time runs from here on. */
  #begin(lane: Lane<I>): void {
    if (lane.item === null || lane.hasBegun) return;
    lane.hasBegun = true;
    lane.deadlineAtMs = Date.now() + lane.item.timeoutMs;
    this.#watch(Math.min(lane.deadlineAtMs, this.#permitUntilMs));
  }

  /** Deadlines mostly rise, so the timer is seldom moved: it fires at the earliest and looks again. */
  #watch(deadlineAtMs: number): void {
    if (deadlineAtMs >= this.#timerAtMs) return;
    clearTimeout(this.#timer);
    this.#timerAtMs = deadlineAtMs;
    this.#timer = setTimeout(() => this.#expire(), deadlineAtMs - Date.now());
  }

  #expire(): void {
    this.#timerAtMs = Infinity;
    const nowMs = Date.now();
    // Somebody else may have the permits by now, so nothing of this batch may stay open.
    const isOver = this.#permitUntilMs <= nowMs;
    if (isOver) this.#giveBack();
    for (const { item, hasBegun, deadlineAtMs, controller } of this.#lanes) {
      if (item === null || controller.signal.aborted) continue;
      if (deadlineAtMs <= nowMs) controller.abort(hasBegun ? TIMED_OUT : NOT_BEGUN);
      else if (isOver) controller.abort(LEASE_ENDED);
      else this.#watch(Math.min(deadlineAtMs, this.#permitUntilMs));
    }
  }
}

/** Lanes for calls, one connection each. */
export function lanesOfCalls(batch: Batch, replies: ReplyStream, { reach, network }: Pick<CallContext, "reach" | "network">): Work {
  const context: CallContext = { batch, common: commonHeaders(batch), reach, network, note: (verdict) => lanes.note(verdict) };
  const { items, permitMs } = batch;
  const load = { items, lanes: Math.min(batch.lanes, BATCH_LANES_MAX), permitMs, patienceMs: null, givenBack };
  const lanes = new Lanes({ ...load, attempt: (item: BatchItem, signal) => call(context, item, signal) }, replies);
  return lanes;
}
