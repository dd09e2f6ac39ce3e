/**
 * Simulated executors and the upstreams behind them. A batch runs its calls in
 * lanes; each call is written into a ledger that only the checkers read: what
 * reached the upstream, and what came of it. An executor may die, or lose its
 * stream and report by `settle`; it never runs an attempt twice by itself.
 * Where permits end, so do the calls, unless they were renewed; where calls do
 * not get through, the rest is given back. A call that is due and may be hedged
 * is made a second time by a lane that is free, and the better of its answers
 * counts.
 */
import { EXECUTOR_FAILURES_MAX } from "../../shared/limits.ts";
import { GIVEN_BACK_STATUS, LEASE_ENDED_STATUS } from "../../shared/policy/outcome.ts";
import { afterFirst, type Beaten, formatLine, type Outcome } from "../../shared/protocol/line.ts";
import type { Clock } from "./clock.ts";
import type { Faults } from "./faults.ts";
import type { Random } from "./random.ts";

/** One call as the upstream saw it. */
export interface Call {
  readonly task: number;
  readonly attempt: number;
  readonly startedAtMs: number;
  /** What the upstream did; the executor may never learn of it. */
  readonly effect: "surely none" | "refused" | "maybe";
}

export interface Item {
  readonly task: number;
  readonly attempt: number;
  readonly timeoutMs: number;
  readonly isHedgeable?: boolean;
  /** Calls that the task of a run has set aside. */
  readonly own?: number;
}

export interface Job {
  readonly batch: number;
  readonly upstream: number;
  /** How long the permits last; null where they have no end. */
  readonly permitMs: number | null;
  readonly lanes: number;
  readonly items: readonly Item[];
  readonly hedge?: { readonly afterMs: number; readonly most: number } | undefined;
  /** When the attempt of its one item began elsewhere; left out for a first try. */
  readonly firstAtMs?: number | undefined;
}

/** An attempt that is under way. */
interface Race {
  readonly item: Item;
  readonly startedAtMs: number;
  hedgedAtMs: number;
  tries: number;
  failedStatus: number;
}

/** Where a run's reports go, and what it may know. */
export interface Link {
  readonly lines: (lines: readonly string[]) => void;
  readonly closed: () => void;
}

interface Answer {
  readonly outcome: Outcome;
  readonly status: number;
  readonly retryAfterMs: number;
  readonly ms: number;
}

const FLUSH_MS_MAX = 50;
const GIVEN_BACK = { outcome: "not_sent", status: GIVEN_BACK_STATUS, retryAfterMs: 0 } as const;
const CUT_OFF = { outcome: "broken", status: LEASE_ENDED_STATUS, retryAfterMs: 0 } as const;

/** What an upstream does to one call. */
export function answerOf(random: Random, faults: Faults, timeoutMs: number): Answer {
  const ms = random.chance(faults.slow) ? random.between(100, timeoutMs) : random.between(0, 30);
  const answered = (status: number, retryAfterMs = 0): Answer => ({ outcome: "answered", status, retryAfterMs, ms });
  const roll = (probability: number): boolean => random.chance(probability);
  if (roll(faults.timeout)) return { outcome: "timeout", status: 0, retryAfterMs: 0, ms: timeoutMs };
  if (roll(faults.broken)) return { outcome: "broken", status: 0, retryAfterMs: 0, ms };
  if (roll(faults.notSent)) return { outcome: "not_sent", status: 0, retryAfterMs: 0, ms };
  if (roll(faults.tooLarge)) return { outcome: "too_large", status: 200, retryAfterMs: 0, ms };
  if (roll(faults.refused)) return answered(random.pick([408, 425, 429]), roll(0.5) ? random.between(1, 2_000) : 0);
  if (roll(faults.serverError)) return answered(random.pick([500, 502, 503]), roll(0.2) ? random.between(1, 1_000) : 0);
  if (roll(faults.clientError)) return answered(random.pick([400, 404, 409]));
  return answered(random.pick([200, 201, 204, 304]));
}

function effectOf({ outcome, status }: Answer): Call["effect"] {
  if (outcome === "not_sent") return "surely none";
  return outcome === "answered" && [408, 425, 429].includes(status) ? "refused" : "maybe";
}

/** Whether the answer of another try would be better. */
function isTransient({ outcome, status }: Answer): boolean {
  if (outcome === "answered") return status >= 500 || [408, 425, 429].includes(status);
  return outcome !== "too_large";
}

/** What is said of the try that does not count. */
function beatenIn({ startedAtMs, hedgedAtMs, failedStatus }: Race, isHedge: boolean): Beaten | undefined {
  if (hedgedAtMs === 0) return undefined;
  return { isFirst: isHedge, startedAtMs: isHedge ? startedAtMs : hedgedAtMs, status: failedStatus };
}

export class Run {
  readonly job: Job;
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #faults: () => Faults;
  readonly #ledger: (call: Call) => void;
  readonly #link: Link;
  readonly #aborted = new Set<number>();
  readonly #races = new Set<Race>();
  readonly #due: Race[] = [];
  /** Lanes that have nothing to do. */
  #idle = 0;
  #hedges: number;
  /** Calls in a row that did not get through. */
  #failures = 0;
  #permitUntilMs = Number.POSITIVE_INFINITY;
  #next = 0;
  #lines: string[] = [];
  #isFlushing = false;
  #isDead = false;
  #isClosed = false;

  constructor(job: Job, around: { clock: Clock; random: Random; faults: () => Faults; ledger: (call: Call) => void; link: Link }) {
    this.job = job;
    this.#hedges = job.hedge?.most ?? 0;
    this.#clock = around.clock;
    this.#random = around.random;
    this.#faults = around.faults;
    this.#ledger = around.ledger;
    this.#link = around.link;
  }

  start(): void {
    const { permitMs } = this.job;
    if (permitMs !== null) {
      this.#permitUntilMs = this.#clock.nowMs + permitMs;
      this.#watch();
    }
    for (let lane = 0; lane < this.job.lanes; lane++) this.#call();
  }

  /** Calls that are open end without a report; whether they had an effect nobody knows. */
  die(): void {
    this.#isDead = true;
  }

  abort(task: number): void {
    this.#aborted.add(task);
  }

  renew(permitMs: number): void {
    this.#permitUntilMs = Math.max(this.#permitUntilMs, this.#clock.nowMs + permitMs);
  }

  /** Ends what is open when the permits do; what has not started never does. */
  #watch(): void {
    this.#clock.at(this.#permitUntilMs, () => {
      if (this.#isDead) return;
      if (this.#clock.nowMs < this.#permitUntilMs) return this.#watch();
      this.#next = this.job.items.length;
      for (const race of this.#races)
        if (!this.#aborted.has(race.item.task)) this.#report(race.item, CUT_OFF, race.startedAtMs, beatenIn(race, false));
      this.#races.clear();
      this.#finish();
    });
  }

  #call(): void {
    while (this.#next < this.job.items.length && this.#aborted.has(this.job.items[this.#next]!.task)) this.#next++;
    const due = this.#takeDue();
    if (due !== null) return this.#try(due);
    const item = this.job.items[this.#next];
    if (item === undefined || this.#isFull) {
      this.#idle++;
      return this.#finish();
    }
    this.#next++;
    const race = { item, startedAtMs: this.#clock.nowMs, hedgedAtMs: 0, tries: 0, failedStatus: 0 };
    this.#races.add(race);
    this.#try(race);
    const { hedge } = this.job;
    if (hedge === undefined || item.isHedgeable !== true) return;
    this.#clock.after(hedge.afterMs, () => {
      this.#due.push(race);
      if (this.#idle === 0 || this.#isDead) return;
      this.#idle--;
      this.#call();
    });
  }

  /** Calls that are open and wanted. */
  get open(): number {
    let tries = 0;
    for (const race of this.#races) if (!this.#aborted.has(race.item.task)) tries += race.tries;
    return this.#isDead ? 0 : tries;
  }

  /** Whether as many tries are open as may be: one more than items are left, at most. */
  get #isFull(): boolean {
    const { lanes, items } = this.job;
    let open = 0;
    for (const { tries } of this.#races) open += tries;
    return open >= Math.min(lanes, items.length - this.#next + this.#races.size + 1);
  }

  /** A call to make a second time, within the batch's lanes and one beside what is left. */
  #takeDue(): Race | null {
    if (this.#hedges === 0 || this.#failures > 0 || this.#isFull) return null;
    const race = this.#due.shift();
    if (race === undefined) return null;
    if (!this.#races.has(race) || this.#aborted.has(race.item.task)) return this.#takeDue();
    this.#hedges--;
    race.hedgedAtMs = this.#clock.nowMs;
    return race;
  }

  /** Makes one try; the next call of its lane follows when it has ended, or was beaten. */
  #try(race: Race): void {
    const { item } = race;
    const isHedge = race.hedgedAtMs > 0;
    const startedAtMs = this.#clock.nowMs;
    race.tries++;
    const answer = answerOf(this.#random, this.#faults(), item.timeoutMs);
    this.#ledger({ task: item.task, attempt: item.attempt, startedAtMs, effect: effectOf(answer) });
    this.#clock.after(answer.ms, () => {
      if (this.#isDead || !this.#races.has(race)) return;
      race.tries--;
      this.#ended(race, answer, isHedge);
      this.#note(answer);
      this.#call();
    });
  }

  #ended(race: Race, answer: Answer, isHedge: boolean): void {
    if (this.#aborted.has(race.item.task)) {
      if (race.tries === 0) this.#races.delete(race);
      return;
    }
    if (race.tries > 0 && isTransient(answer)) {
      race.failedStatus = answer.outcome === "answered" ? answer.status : 0;
      return;
    }
    this.#races.delete(race);
    this.#report(race.item, answer, race.startedAtMs, beatenIn(race, isHedge));
    // The other try is cut off, and its lane is free.
    for (; race.tries > 0; race.tries--) this.#call();
  }

  #note({ outcome, status }: Answer): void {
    const isThrough = outcome === "too_large" || (outcome === "answered" && ![429, 502, 503].includes(status));
    this.#failures = isThrough ? 0 : this.#failures + 1;
    const isEnough = this.#failures >= EXECUTOR_FAILURES_MAX || (this.#failures > 0 && this.#random.chance(this.#faults().givesBack));
    if (!isEnough) return;
    for (const item of this.job.items.slice(this.#next)) this.#report(item, GIVEN_BACK, this.#clock.nowMs);
    this.#next = this.job.items.length;
  }

  #report({ task, attempt }: Item, { outcome, status, retryAfterMs }: Omit<Answer, "ms">, startedAtMs: number, beaten?: Beaten): void {
    const { firstAtMs } = this.job;
    const head = { task, attempt, outcome, status, retryAfterMs, startedAtMs, endedAtMs: this.#clock.nowMs, beaten };
    const told = firstAtMs === undefined ? head : afterFirst(head, firstAtMs);
    this.#lines.push(formatLine(told, `{"status":${status}}`).trimEnd());
    if (this.#isFlushing) return;
    this.#isFlushing = true;
    this.#clock.after(this.#random.between(0, FLUSH_MS_MAX), () => this.#flush());
  }

  #flush(): void {
    this.#isFlushing = false;
    const lines = this.#lines.splice(0);
    if (lines.length > 0 && !this.#isDead) this.#link.lines(lines);
  }

  #finish(): void {
    if (this.#races.size > 0 || this.#next < this.job.items.length || this.#isClosed) return;
    this.#isClosed = true;
    this.#flush();
    if (!this.#isDead) this.#link.closed();
  }
}
