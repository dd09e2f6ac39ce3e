/**
 * Simulated executors and the upstreams behind them. A batch runs its calls in
 * lanes; each call is written into a ledger that only the checkers read: what
 * reached the upstream, and what came of it. An executor may die, or lose its
 * stream and report by `settle`; it never runs an attempt twice by itself.
 * Where permits end, so do the calls, unless they were renewed; where calls do
 * not get through, the rest is given back.
 */
import { EXECUTOR_FAILURES_MAX } from "../../shared/limits.ts";
import { GIVEN_BACK_STATUS, LEASE_ENDED_STATUS } from "../../shared/policy/outcome.ts";
import { formatLine, type Outcome } from "../../shared/protocol/line.ts";
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
}

export interface Job {
  readonly batch: number;
  readonly upstream: number;
  /** How long the permits last; null where they have no end. */
  readonly permitMs: number | null;
  readonly lanes: number;
  readonly items: readonly Item[];
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

export class Run {
  readonly job: Job;
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #faults: () => Faults;
  readonly #ledger: (call: Call) => void;
  readonly #link: Link;
  readonly #aborted = new Set<number>();
  /** Calls that are open: item and start. */
  readonly #open = new Map<Item, number>();
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
      for (const [item, startedAtMs] of this.#open) if (!this.#aborted.has(item.task)) this.#report(item, CUT_OFF, startedAtMs);
      this.#open.clear();
      this.#finish();
    });
  }

  #call(): void {
    while (this.#next < this.job.items.length && this.#aborted.has(this.job.items[this.#next]!.task)) this.#next++;
    const item = this.job.items[this.#next++];
    if (item === undefined) return this.#finish();
    const startedAtMs = this.#clock.nowMs;
    this.#open.set(item, startedAtMs);
    const answer = answerOf(this.#random, this.#faults(), item.timeoutMs);
    this.#ledger({ task: item.task, attempt: item.attempt, startedAtMs, effect: effectOf(answer) });
    this.#clock.after(answer.ms, () => {
      if (this.#isDead || !this.#open.delete(item)) return;
      if (!this.#aborted.has(item.task)) this.#report(item, answer, startedAtMs);
      this.#note(answer);
      this.#call();
    });
  }

  #note({ outcome, status }: Answer): void {
    const isThrough = outcome === "too_large" || (outcome === "answered" && ![429, 502, 503].includes(status));
    this.#failures = isThrough ? 0 : this.#failures + 1;
    const isEnough = this.#failures >= EXECUTOR_FAILURES_MAX || (this.#failures > 0 && this.#random.chance(this.#faults().givesBack));
    if (!isEnough) return;
    for (const item of this.job.items.slice(this.#next)) this.#report(item, GIVEN_BACK, this.#clock.nowMs);
    this.#next = this.job.items.length;
  }

  #report({ task, attempt }: Item, { outcome, status, retryAfterMs }: Omit<Answer, "ms">, startedAtMs: number): void {
    const head = { task, attempt, outcome, status, retryAfterMs, startedAtMs, endedAtMs: this.#clock.nowMs };
    this.#lines.push(formatLine(head, `{"status":${status}}`).trimEnd());
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
    if (this.#open.size > 0 || this.#isClosed) return;
    this.#isClosed = true;
    this.#flush();
    if (!this.#isDead) this.#link.closed();
  }
}
