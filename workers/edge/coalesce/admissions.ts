/**
 * Who may have the answer of a call that another makes. It is asked once a
 * second for all who come with the same authority, by the first of them while
 * it waits. For who has the leader's authority the leader's own leave counts.
 */
import type { Failure } from "../../../shared/errors.ts";
import { within } from "../../kit/within.ts";

/** A refusal is not asked for again within so long. */
const ADMITTED_MS = 1_000;

export type Ask = () => Promise<Failure | null>;

interface Admission {
  readonly atMs: number;
  readonly asked: Promise<Failure | null>;
  /** What came of it: to wait for what belongs to another request costs more than to look. */
  verdict?: Failure | null;
}

export class Admissions {
  readonly #leader: string;
  readonly #known = new Map<string, Admission>();
  #isLeaderKnown = false;

  constructor(leader: string) {
    this.#leader = leader;
  }

  /** What the leader itself has been told. */
  leaderHas(verdict: Failure | null): void {
    this.#isLeaderKnown = true;
    this.#known.set(this.#leader, { atMs: Date.now(), asked: Promise.resolve(verdict), verdict });
  }

  /** Somebody comes: what it may see is known by the time that there is something to see. */
  prepare(authority: string, nowMs: number, ask: Ask): void {
    if (authority === this.#leader && !this.#isLeaderKnown) return;
    if (this.#fresh(authority, nowMs) !== undefined) return;
    // Whoever wants the answer asks again where this fails.
    this.#ask(authority, ask).catch(() => undefined);
  }

  /** Why one who came at `sinceMs` may not have the answer; null where it may; undefined where nobody knows yet. */
  verdict(authority: string, sinceMs: number): Failure | null | undefined {
    return this.#fresh(authority, sinceMs)?.verdict;
  }

  /** The same, and it is found out. */
  async find(authority: string, sinceMs: number, ask: Ask): Promise<Failure | null> {
    const known = this.#fresh(authority, sinceMs);
    if (known === undefined) return this.#ask(authority, ask);
    if (known.verdict !== undefined) return known.verdict;
    // Whoever asked may go before there is an answer.
    const theirs = await within(
      known.asked.then((verdict) => ({ verdict })),
      ADMITTED_MS,
    ).catch(() => null);
    if (theirs !== null) return theirs.verdict;
    return this.#known.get(authority) === known ? this.#ask(authority, ask) : this.find(authority, sinceMs, ask);
  }

  /** What was asked within the last second, for one who comes then. */
  #fresh(authority: string, atMs: number): Admission | undefined {
    const known = this.#known.get(authority);
    return known !== undefined && atMs - known.atMs < ADMITTED_MS ? known : undefined;
  }

  async #ask(authority: string, ask: Ask): Promise<Failure | null> {
    const admission: Admission = { atMs: Date.now(), asked: ask() };
    this.#known.set(authority, admission);
    admission.verdict = await admission.asked;
    return admission.verdict;
  }
}
