/**
 * A simulated executor of functions. A run pays its calls from what its task
 * has set aside, and then sets a part of the goal's budget aside for each,
 * makes the call, and says what it used; then it returns, or ends otherwise. A
 * word that gets lost makes the run fail, and what was set aside expires.
 */
import type { Command } from "../../../durable-objects/goal/core/step.ts";
import { GIVEN_BACK_STATUS, RUN_AGAIN_STATUS } from "../../../shared/policy/outcome.ts";
import { UNBOUNDED } from "../../../shared/policy/account.ts";
import { formatLine, type Outcome } from "../../../shared/protocol/line.ts";
import type { Clock } from "../clock.ts";
import type { Item, Job, Link } from "../executor.ts";
import type { Random } from "../random.ts";
import type { RunFaults } from "./plan.ts";

/** A step of a run, as only the checkers see it. */
export type Deed = { readonly task: number; readonly attempt: number } & ({ readonly kind: "begins" } | { readonly kind: "calls" });

export interface RunSurroundings {
  readonly clock: Clock;
  readonly random: Random;
  readonly faults: () => RunFaults;
  /** The most calls of one run. */
  readonly calls: number;
  readonly ledger: (deed: Deed) => void;
  readonly link: Link;
  /** Asks whatever incarnation answers, and may never hear. */
  readonly ask: (command: Command, answer: (text: string) => void) => void;
}

/** A run that goes on. */
interface SoFar {
  readonly startedAtMs: number;
  /** Calls that were charged one by one. */
  readonly made: number;
  /** Calls that were paid from what its task had set aside. */
  readonly drawn: number;
}

const PATIENCE_MS = 400;
const RESERVE_MS = 3_000;
const FLUSH_MS_MAX = 50;
const NOT_MADE = 0.1;

export class FunctionRun {
  readonly job: Job;
  readonly #around: RunSurroundings;
  readonly #aborted = new Set<number>();
  #open = 0;
  #lines: string[] = [];
  #isFlushing = false;
  #isDead = false;

  constructor(job: Job, around: RunSurroundings) {
    this.job = job;
    this.#around = around;
  }

  start(): void {
    this.#open = this.job.items.length;
    for (const item of this.job.items) this.#begin(item);
  }

  die(): void {
    this.#isDead = true;
  }

  abort(task: number): void {
    this.#aborted.add(task);
  }

  renew(): void {}

  #begin(item: Item): void {
    const { clock, random, faults, calls, ledger } = this.#around;
    const startedAtMs = clock.nowMs;
    if (this.#aborted.has(item.task)) return this.#finish();
    if (random.chance(faults().givesBack)) return this.#report(item, "not_sent", GIVEN_BACK_STATUS, { startedAtMs, made: 0, drawn: 0 });
    ledger({ kind: "begins", task: item.task, attempt: item.attempt });
    this.#call(item, random.between(0, calls), { startedAtMs, made: 0, drawn: 0 });
  }

  /** Makes the next of the run's calls, or ends it. */
  #call(item: Item, left: number, so: SoFar): void {
    const { clock, random } = this.#around;
    clock.after(random.between(0, 20), () => {
      if (this.#isDead) return;
      if (this.#aborted.has(item.task)) return this.#finish();
      if (left === 0) return this.#end(item, so);
      if (so.drawn < (item.own ?? 0)) return this.#call(item, left - 1, { ...so, drawn: so.drawn + (this.#makes(item) ? 1 : 0) });
      this.#reserve((reservation) => {
        if (this.#isDead) return;
        if (this.#aborted.has(item.task)) return this.#finish();
        if (reservation === "exhausted") return this.#report(item, "budget_exhausted", RUN_AGAIN_STATUS, so);
        if (reservation === null) return this.#report(item, "upstream_timeout", RUN_AGAIN_STATUS, so);
        const isMade = this.#makes(item);
        const used = isMade ? UNBOUNDED : null;
        this.#around.ask({ kind: "settle-reservation", by: "gate", reservation, used }, () => undefined);
        this.#call(item, left - 1, { ...so, made: so.made + (isMade ? 1 : 0) });
      });
    });
  }

  /** A call that surely did not get through costs nothing. */
  #makes({ task, attempt }: Item): boolean {
    const isMade = !this.#around.random.chance(NOT_MADE);
    if (isMade) this.#around.ledger({ kind: "calls", task, attempt });
    return isMade;
  }

  #reserve(then: (reservation: number | "exhausted" | null) => void): void {
    const { clock, random, faults, ask } = this.#around;
    let isOver = false;
    const end = (reservation: number | "exhausted" | null): void => {
      if (!isOver) then(reservation);
      isOver = true;
    };
    clock.after(PATIENCE_MS, () => end(null));
    ask({ kind: "reserve", by: "gate", amounts: [0, 1, 0, 0], ttlMs: RESERVE_MS }, (text) => {
      if (random.chance(faults().lost)) return;
      const { error, reservation } = JSON.parse(text) as { error?: string; reservation?: number };
      clock.after(random.between(0, 5), () => end(error === "budget_exhausted" ? "exhausted" : (reservation ?? null)));
    });
  }

  #end(item: Item, so: SoFar): void {
    const { random, faults } = this.#around;
    const { throws, mayRepeat, limit } = faults();
    if (random.chance(limit)) return this.#report(item, "function_limit", 500, so);
    if (!random.chance(throws)) return this.#report(item, "returned", 200, so);
    this.#report(item, "function_error", random.chance(mayRepeat) ? RUN_AGAIN_STATUS : 500, so);
  }

  #report({ task, attempt }: Item, outcome: Outcome, status: number, { startedAtMs, made, drawn }: SoFar): void {
    const { clock, random } = this.#around;
    const used = { calls: made, ...(drawn > 0 && { drawn: [0, drawn, 0, 0] }) };
    const head = { task, attempt, outcome, status, retryAfterMs: 0, startedAtMs, endedAtMs: clock.nowMs, ...used };
    this.#lines.push(formatLine(head, `{"status":${status}}`).trimEnd());
    if (!this.#isFlushing) clock.after(random.between(0, FLUSH_MS_MAX), () => this.#flush());
    this.#isFlushing = true;
    this.#finish();
  }

  #flush(): void {
    this.#isFlushing = false;
    const lines = this.#lines.splice(0);
    if (lines.length > 0 && !this.#isDead) this.#around.link.lines(lines);
  }

  #finish(): void {
    if (--this.#open > 0) return;
    this.#flush();
    if (!this.#isDead) this.#around.link.closed();
  }
}
