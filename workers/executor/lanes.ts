/**
 * Runs the items of a batch, so many at a time. Of calls that is six at most:
 * the platform lets one invocation wait for no more answers than that, and
 * local workerd does not check. One timer watches all deadlines, and when calls
 * are due to be hedged, because a timer an item is a cost.
 */
import { assert } from "../../shared/assert.ts";
import { hasEnded } from "../../shared/ended.ts";
import { ABORT_MS, BATCH_LANES_MAX, BATCH_TASKS_MAX, EXECUTOR_FAILURES_MAX } from "../../shared/limits.ts";
import type { Verdict } from "../../shared/policy/outcome.ts";
import type { Batch, BatchItem } from "../../shared/rpc-batch.ts";
import { call, type CallContext, givenBack, LEASE_ENDED, NOT_BEGUN, TIMED_OUT, UNWANTED } from "./call.ts";
import { Cutoff } from "../kit/cutoff.ts";
import { Hedger, type HedgePlan, type Race } from "./hedger.ts";
import type { Work } from "./reply.ts";
import type { ReplyStream } from "./reply-stream.ts";
import { commonHeaders } from "./request.ts";
import { Watch } from "./watch.ts";

/** What lanes have to know of an item. */
export interface Item {
  readonly task: number;
  readonly attempt: number;
  readonly timeoutMs: number;
}

export interface Load<I extends Item> {
  readonly items: readonly I[];
  /** Nothing more is started once one of these goals has ended. */
  readonly goalIds: readonly string[];
  /** Items under way at once. */
  readonly lanes: number;
  /** As in `Batch`. */
  readonly permitMs: number | null;
  /** How long an item may wait until it says that it has begun; null where it begins at once. */
  readonly patienceMs: number | null;
  /** One try, from beginning to end, as its line; null where nobody wants to know. */
  readonly attempt: (item: I, cutoff: Cutoff, begun: () => void, isHedge: boolean) => Promise<string | null>;
  /** Left out where no item is tried a second time. */
  readonly hedge?: HedgePlan<I> | undefined;
  /** The line of an item that was not tried. */
  readonly givenBack: (item: I) => string;
}

interface Lane<I extends Item> {
  item: I | null;
  hasBegun: boolean;
  deadlineAtMs: number;
  /** Null where nothing is hedged. */
  race: Race<I> | null;
  /** When the item is due for a second try. */
  hedgeAtMs: number;
  /** It was due before, at a time when nobody could tell whether its answer was there. */
  isLateHedge: boolean;
  /** Serves one item after another until it is used to end one. */
  cutoff: Cutoff;
}

/** A timer that is so late shows that this process stood still. Answers have come meanwhile, and are read within so long. */
const STOOD_STILL_MS = 5;
const CATCH_UP_MS = 25;

const keyOf = (task: number, attempt: number): string => `${task}/${attempt}`;

export class Lanes<I extends Item> implements Work {
  readonly #load: Load<I>;
  readonly #replies: ReplyStream;
  readonly #lanes: Lane<I>[] = [];
  readonly #unwanted = new Set<string>();
  readonly #hedger: Hedger<I> | null;
  #next = 0;
  /** Calls in a row that did not get through. */
  #failures = 0;
  /** When the permits of the batch end. */
  #permitUntilMs: number;
  readonly #watch = new Watch(() => this.#expire());

  constructor(load: Load<I>, replies: ReplyStream) {
    assert(load.items.length <= BATCH_TASKS_MAX, "a batch must not be larger than its limit");
    this.#load = load;
    this.#replies = replies;
    this.#hedger = load.hedge === undefined ? null : new Hedger(load.hedge);
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
      const cutoff = new Cutoff();
      const lane: Lane<I> = {
        item: null,
        hasBegun: true,
        deadlineAtMs: Infinity,
        race: null,
        hedgeAtMs: Infinity,
        isLateHedge: false,
        cutoff,
      };
      this.#lanes.push(lane);
      running.push(this.#drive(lane));
    }
    await Promise.all(running);
    this.#watch.end();
  }

  /** Starts nothing more; what runs goes on. */
  drain(): void {
    this.#next = this.#load.items.length;
    this.#hedger?.stop();
  }

  /** Gives up everything that is left. */
  stop(): void {
    this.drain();
    this.#replies.release();
    for (const lane of this.#lanes) if (lane.item !== null) lane.cutoff.end(UNWANTED);
  }

  /** Gives up these attempts, running or not yet started. */
  abort(attempts: readonly (readonly [number, number])[]): void {
    for (const [task, attempt] of attempts) this.#unwanted.add(keyOf(task, attempt));
    for (const { item, cutoff } of this.#lanes) {
      if (item !== null && this.#unwanted.has(keyOf(item.task, item.attempt))) cutoff.end(UNWANTED);
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

  /** Starts nothing more. The goal decides what becomes of the rest. */
  #end(): void {
    this.#giveBack();
    this.#hedger?.stop();
  }

  async #drive(lane: Lane<I>): Promise<void> {
    const { items, goalIds, attempt, patienceMs } = this.#load;
    const hedger = this.#hedger;
    const begun = (): void => this.#begin(lane);
    for (;;) {
      while (this.#replies.isFull) await this.#replies.room();
      if (hasEnded(goalIds)) this.#end();
      if (hedger !== null && (await this.#hedged(lane, hedger))) continue;
      const item = items[this.#next];
      if (item === undefined && hedger?.isUseful !== true) return;
      // Near its end the batch holds fewer permits than it has lanes, and hedges may have them.
      if (item === undefined || (hedger !== null && this.#spare(hedger) <= 0)) {
        await hedger!.changed();
        continue;
      }
      this.#next++;
      if (this.#unwanted.size > 0 && this.#unwanted.has(keyOf(item.task, item.attempt))) continue;
      const nowMs = Date.now();
      const deadlineAtMs = nowMs + (patienceMs ?? item.timeoutMs);
      const race = hedger === null ? null : hedger.begin(item, nowMs, deadlineAtMs);
      this.#enter(lane, item, deadlineAtMs, race);
      if (race !== null) lane.hedgeAtMs = hedger!.dueAtMs(race);
      lane.hasBegun = patienceMs === null;
      this.#watch.by(Math.min(deadlineAtMs, this.#permitUntilMs, lane.hedgeAtMs));
      const line = await attempt(item, lane.cutoff, begun, false);
      if (race !== null) await this.#leave(lane, race, line, false);
      else if (line !== null) this.#replies.append(line);
      lane.item = null;
      hedger?.tell();
    }
  }

  #enter(lane: Lane<I>, item: I, deadlineAtMs: number, race: Race<I> | null): void {
    if (lane.cutoff.isOver) lane.cutoff = new Cutoff();
    lane.item = item;
    lane.deadlineAtMs = deadlineAtMs;
    lane.race = race;
    lane.hedgeAtMs = Infinity;
    lane.isLateHedge = false;
  }

  /** Calls that may be opened beside those that are: one more than items are left, at most. */
  #spare(hedger: Hedger<I>): number {
    const { items, lanes } = this.#load;
    const busy = this.#lanes.reduce((sum, { item }) => (item === null ? sum : sum + 1), 0);
    return Math.min(lanes, items.length - this.#next + hedger.open + 1) - busy;
  }

  /** Makes a second try of a call that is due for it. False where there is none. */
  async #hedged(lane: Lane<I>, hedger: Hedger<I>): Promise<boolean> {
    const { attempt } = this.#load;
    // Where calls fail, more of them are no help.
    if (this.#failures > 0) return false;
    const race = hedger.take(this.#spare(hedger));
    if (race === null) return false;
    const { item } = race;
    if (this.#unwanted.has(keyOf(item.task, item.attempt))) {
      hedger.ended(race, null, true);
      return true;
    }
    this.#enter(lane, item, race.deadlineAtMs, race);
    lane.hasBegun = true;
    await this.#leave(lane, race, await attempt(item, lane.cutoff, () => undefined, true), true);
    lane.item = null;
    hedger.tell();
    return true;
  }

  /** A try has ended: reports the attempt once it is decided, and cuts its other try off. */
  async #leave(lane: Lane<I>, race: Race<I>, line: string | null, isHedge: boolean): Promise<void> {
    const decided = this.#hedger!.ended(race, line, isHedge);
    if (decided !== null) {
      this.#replies.append(decided);
      for (const other of this.#lanes) {
        if (other !== lane && other.race === race && other.item !== null) other.cutoff.end(UNWANTED);
      }
    }
    lane.race = null;
    // A call that was cut off counts as open until the upstream has noticed.
    const isCutOff = race.hedgedAtMs > 0 && lane.cutoff.isOver;
    if (isCutOff && this.#load.permitMs !== null) await new Promise((resolve) => setTimeout(resolve, ABORT_MS));
  }

  /** The item's own time runs from here on. */
  #begin(lane: Lane<I>): void {
    if (lane.item === null || lane.hasBegun) return;
    lane.hasBegun = true;
    lane.deadlineAtMs = Date.now() + lane.item.timeoutMs;
    this.#watch.by(Math.min(lane.deadlineAtMs, this.#permitUntilMs));
  }

  /** The lane's call takes long, as far as one can tell. */
  #hedge(lane: Lane<I>, nowMs: number): void {
    const stoodStill = nowMs - lane.hedgeAtMs > STOOD_STILL_MS && !lane.isLateHedge;
    lane.isLateHedge = stoodStill;
    lane.hedgeAtMs = stoodStill ? nowMs + CATCH_UP_MS : Infinity;
    if (!stoodStill) this.#hedger!.isDue(lane.race!);
  }

  #expire(): void {
    const nowMs = Date.now();
    // Somebody else may have the permits by now, so nothing of this batch may stay open.
    const isOver = this.#permitUntilMs <= nowMs;
    if (isOver) this.#end();
    for (const lane of this.#lanes) {
      const { item, hasBegun, deadlineAtMs, cutoff } = lane;
      if (item === null || cutoff.isOver) continue;
      if (deadlineAtMs <= nowMs) cutoff.end(hasBegun ? TIMED_OUT : NOT_BEGUN);
      else if (isOver) cutoff.end(LEASE_ENDED);
      else {
        if (lane.hedgeAtMs <= nowMs) this.#hedge(lane, nowMs);
        this.#watch.by(Math.min(deadlineAtMs, this.#permitUntilMs, lane.hedgeAtMs));
      }
    }
  }
}

/** The goal of the batch, and those above it. */
export function goalsOf({ goalId, above = [] }: Pick<Batch, "goalId" | "above">): readonly string[] {
  return [...above, goalId];
}

/** Lanes for calls, one connection each. */
export function lanesOfCalls(batch: Batch, replies: ReplyStream, { reach, network }: Pick<CallContext, "reach" | "network">): Work {
  const context: CallContext = { batch, common: commonHeaders(batch), reach, network, note: (verdict) => lanes.note(verdict) };
  const { items, permitMs, hedge } = batch;
  const load = { goalIds: goalsOf(batch), items, lanes: Math.min(batch.lanes, BATCH_LANES_MAX), permitMs, patienceMs: null, givenBack };
  const second: CallContext = hedge === undefined ? context : { ...context, batch: { ...batch, origin: hedge.origin } };
  const plan = hedge === undefined ? undefined : { ...hedge, may: ({ isHedgeable }: BatchItem) => isHedgeable === true };
  const attempt: Load<BatchItem>["attempt"] = (item, cutoff, _begun, isHedge) => call(isHedge ? second : context, item, cutoff.signal);
  const lanes = new Lanes({ ...load, attempt, hedge: plan }, replies);
  return lanes;
}
