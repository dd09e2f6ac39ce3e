/**
 * Runs the items of a batch, at most six at a time: the platform lets one
 * invocation wait for no more answers than that, and local workerd does not
 * check. One timer watches all deadlines, because a timer a call is a cost.
 */
import { assert } from "../../shared/assert.ts";
import { BATCH_LANES_MAX, BATCH_TASKS_MAX, EXECUTOR_FAILURES_MAX } from "../../shared/limits.ts";
import type { Verdict } from "../../shared/policy/outcome.ts";
import type { Batch, BatchItem } from "../../shared/rpc.ts";
import { call, type CallContext, givenBack, LEASE_ENDED, TIMED_OUT, UNWANTED } from "./call.ts";
import type { ReplyStream } from "./reply-stream.ts";
import { commonHeaders } from "./request.ts";

interface Lane {
  item: BatchItem | null;
  deadlineAtMs: number;
  /** Serves one call after another until it is used to abort one. */
  controller: AbortController;
}

const keyOf = (task: number, attempt: number): string => `${task}/${attempt}`;

export class Lanes {
  readonly #context: CallContext;
  readonly #replies: ReplyStream;
  readonly #lanes: Lane[] = [];
  readonly #unwanted = new Set<string>();
  #next = 0;
  /** Calls in a row that did not get through. */
  #failures = 0;
  /** When the permits of the batch end. */
  #permitUntilMs: number;
  #timer: number | null = null;
  #timerAtMs = Infinity;

  constructor(batch: Batch, replies: ReplyStream, { reach, network }: Pick<CallContext, "reach" | "network">) {
    assert(batch.items.length <= BATCH_TASKS_MAX, "a batch must not be larger than its limit");
    this.#context = { batch, common: commonHeaders(batch), reach, network, note: (verdict) => this.#note(verdict) };
    this.#replies = replies;
    this.#permitUntilMs = batch.permitMs === null ? Infinity : Date.now() + batch.permitMs;
  }

  /** The permits last so much longer from now. */
  renew(permitMs: number): void {
    this.#permitUntilMs = Math.max(this.#permitUntilMs, Date.now() + permitMs);
  }

  /** Resolves when every item has ended or was given up. Never rejects but for a bug. */
  async run(): Promise<void> {
    const { lanes, items } = this.#context.batch;
    const count = Math.max(1, Math.min(lanes, BATCH_LANES_MAX, items.length));
    const running: Promise<void>[] = [];
    for (let i = 0; i < count; i++) {
      const lane: Lane = { item: null, deadlineAtMs: Infinity, controller: new AbortController() };
      this.#lanes.push(lane);
      running.push(this.#drive(lane));
    }
    await Promise.all(running);
    clearTimeout(this.#timer);
  }

  /** Starts nothing more; what runs goes on. */
  drain(): void {
    this.#next = this.#context.batch.items.length;
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

  #note(verdict: Verdict): void {
    if (verdict === "nothing") return;
    this.#failures = verdict === "answered" ? 0 : this.#failures + 1;
    if (this.#failures >= EXECUTOR_FAILURES_MAX) this.#giveBack();
  }

  /** Somebody who sees more decides when the rest is tried. */
  #giveBack(): void {
    const { items } = this.#context.batch;
    for (; this.#next < items.length; this.#next++) this.#replies.append(givenBack(items[this.#next]!));
  }

  async #drive(lane: Lane): Promise<void> {
    for (;;) {
      while (this.#replies.isFull) await this.#replies.room();
      const item = this.#context.batch.items[this.#next];
      if (item === undefined) return;
      this.#next++;
      if (this.#unwanted.size > 0 && this.#unwanted.has(keyOf(item.task, item.attempt))) continue;
      if (lane.controller.signal.aborted) lane.controller = new AbortController();
      lane.item = item;
      lane.deadlineAtMs = Date.now() + item.timeoutMs;
      this.#watch(Math.min(lane.deadlineAtMs, this.#permitUntilMs));
      const line = await call(this.#context, item, lane.controller.signal);
      lane.item = null;
      if (line !== null) this.#replies.append(line);
    }
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
    for (const { item, deadlineAtMs, controller } of this.#lanes) {
      if (item === null || controller.signal.aborted) continue;
      if (deadlineAtMs <= nowMs) controller.abort(TIMED_OUT);
      else if (isOver) controller.abort(LEASE_ENDED);
      else this.#watch(Math.min(deadlineAtMs, this.#permitUntilMs));
    }
  }
}
