/**
 * What a caller can follow: results as NDJSON, progress as server-sent events.
 * A stream makes its next piece from the state when its reader asks for one,
 * and keeps only a cursor. A slow reader gets fewer, larger pieces, and costs
 * the goal nothing.
 */
import { STREAMS_PER_GOAL_MAX } from "../../shared/limits.ts";
import { type Failure, failure } from "../../shared/errors.ts";
import { CALLS, spentInAll } from "../../shared/policy/account.ts";
import type { GoalView } from "../../shared/protocol/goal.ts";
import { err, ok, type Result } from "../../shared/result.ts";
import type { EventsQuery, ResultsQuery } from "../../shared/rpc.ts";
import { countsInAll, statusOf } from "./core/kin.ts";
import type { GoalState } from "./core/state.ts";
import { badCursor, parseCursor, type TaskReader } from "./reader.ts";
import { type Signal, within } from "./signal.ts";
import { budgetView, countsOf } from "./views.ts";

const RESULTS_PER_PIECE = 256;
/** Each reader that stalls holds a piece; many of them must fit the object's memory. */
const PIECE_CHARS_MAX = 128_000;
const PROGRESS_MS = 100;
const HEARTBEAT_MS = 10_000;

type Pull = () => Promise<string | null>;

export interface Followed {
  readonly state: () => GoalState;
  readonly view: () => GoalView;
  readonly reader: TaskReader;
  readonly signal: Signal;
}

export class Streams {
  readonly #goal: Followed;
  #open = 0;

  constructor(goal: Followed) {
    this.#goal = goal;
  }

  results({ cursor, limit, follow }: ResultsQuery): Result<ReadableStream<Uint8Array>, Failure> {
    const start = cursor === undefined ? 0 : parseCursor(cursor);
    if (start === null) return err(badCursor());
    const { state, reader, signal } = this.#goal;
    let at = start;
    let left = follow ? Number.MAX_SAFE_INTEGER : limit;
    const pull: Pull = async () => {
      for (;;) {
        const piece = reader.ended(state(), at, Math.min(left, RESULTS_PER_PIECE), PIECE_CHARS_MAX);
        left -= piece.next - at;
        at = piece.next;
        if (piece.text !== "") return piece.text;
        if (!follow || state().goal!.phase !== "active") return null;
        // A blank line, which NDJSON readers skip: only a write tells the runtime that a reader has gone.
        if (!(await within(signal.changed(), HEARTBEAT_MS))) return "\n";
      }
    };
    const close = (): string => {
      const now = state();
      const nextCursor = at < now.ended.length || now.goal!.phase === "active" ? String(at) : null;
      return `${JSON.stringify({ end: { status: statusOf(now), counts: countsOf(countsInAll(now)), nextCursor } })}\n`;
    };
    return this.#stream(pull, close);
  }

  events({ lastEventId, tasks }: EventsQuery): Result<ReadableStream<Uint8Array>, Failure> {
    const resumed = lastEventId === undefined ? null : parseCursor(lastEventId);
    const feed = new EventFeed(this.#goal, tasks, resumed);
    return this.#stream(
      () => feed.next(),
      () => feed.end(),
    );
  }

  #stream(pull: Pull, close: () => string): Result<ReadableStream<Uint8Array>, Failure> {
    if (this.#open >= STREAMS_PER_GOAL_MAX) {
      const detail = `${STREAMS_PER_GOAL_MAX} streams of this goal are open already`;
      return err(failure("temporary_reduced_capacity", detail, { retryAfterMs: 1_000 }));
    }
    this.#open++;
    let isOpen = true;
    const leave = (): void => {
      if (isOpen) this.#open--;
      isOpen = false;
    };
    const encoder = new TextEncoder();
    const source: UnderlyingByteSource = {
      type: "bytes",
      pull: async (controller) => {
        const piece = await pull();
        controller.enqueue(encoder.encode(piece ?? close()));
        if (piece !== null) return;
        leave();
        controller.close();
      },
      cancel: leave,
    };
    return ok(new ReadableStream(source, { highWaterMark: 0 }));
  }
}

/** The events of one subscriber. Its `id` is the number of tasks that had ended. */
class EventFeed {
  readonly #goal: Followed;
  readonly #withTasks: boolean;
  #ended: number;
  #last = "";
  #lastBudget = "";
  #lastAtMs = 0;
  #status = "";
  #isFirst = true;
  /** Tasks that have ended are waiting to be told: what is owed is not slowed. */
  #isBehind = false;

  constructor(goal: Followed, withTasks: boolean, resumedAt: number | null) {
    this.#goal = goal;
    this.#withTasks = withTasks;
    this.#ended = Math.min(resumedAt ?? goal.state().ended.length, goal.state().ended.length);
  }

  async next(): Promise<string | null> {
    if (this.#isFirst) {
      this.#isFirst = false;
      this.#status = this.#goal.view().status;
      this.#last = this.#progress();
      this.#lastBudget = this.#budget();
      return `retry: 1000\n${this.#event("snapshot", JSON.stringify(this.#goal.view()))}`;
    }
    for (;;) {
      const waitMs = this.#lastAtMs + PROGRESS_MS - Date.now();
      if (waitMs > 0 && !this.#isBehind) await new Promise((resolve) => setTimeout(resolve, waitMs));
      const piece = this.#piece();
      if (piece !== "") return piece;
      if (this.#isOver()) return null;
      if (!(await within(this.#goal.signal.changed(), HEARTBEAT_MS))) return ": still here\n\n";
    }
  }

  end(): string {
    return this.#event("end", JSON.stringify(this.#goal.view()));
  }

  #isOver(): boolean {
    return this.#goal.state().goal!.phase !== "active" && (!this.#withTasks || this.#ended === this.#goal.state().ended.length);
  }

  /** Everything that is new since the last piece, as one; empty where nothing is. */
  #piece(): string {
    const { state, reader } = this.#goal;
    let piece = "";
    if (this.#withTasks) {
      const { text, next } = reader.ended(state(), this.#ended, RESULTS_PER_PIECE, PIECE_CHARS_MAX);
      for (const json of text.split("\n")) if (json !== "") piece += `id: ${++this.#ended}\nevent: task\ndata: ${json}\n\n`;
      this.#isBehind = next < state().ended.length;
    } else {
      this.#ended = state().ended.length;
    }
    if (Date.now() < this.#lastAtMs + PROGRESS_MS) return piece;
    const progress = this.#progress();
    if (progress !== this.#last) piece += this.#event("progress", progress);
    this.#last = progress;
    const { status } = this.#goal.view();
    if (status !== this.#status) piece += this.#event("goal", JSON.stringify(this.#goal.view()));
    this.#status = status;
    const budget = this.#budget();
    if (budget !== this.#lastBudget) piece += this.#event("budget", JSON.stringify(budgetView(this.#goal.state())));
    this.#lastBudget = budget;
    if (piece !== "") this.#lastAtMs = Date.now();
    return piece;
  }

  /** What of the budget is news: spending shows in what becomes of tasks. */
  #budget(): string {
    const { account, isExhausted } = this.#goal.state().budget;
    return JSON.stringify([account.limit, isExhausted]);
  }

  #progress(): string {
    const state = this.#goal.state();
    return JSON.stringify({ counts: countsOf(countsInAll(state)), joined: state.joined, calls: spentInAll(state.budget.account)[CALLS] });
  }

  #event(name: string, data: string): string {
    return `id: ${this.#ended}\nevent: ${name}\ndata: ${data}\n\n`;
  }
}
