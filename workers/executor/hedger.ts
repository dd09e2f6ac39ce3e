/**
 * Second tries of calls that take long (Dean and Barroso, "The tail at scale",
 * 2013). A call that is due waits here for a lane that has nothing else open,
 * so a hedge never has a connection or a permit beside those of its batch: one
 * lane more than items are left, at most, and never more than there are. The
 * better of the two answers is the attempt's, and the other try is aborted.
 */
import { formatLine, parseLineHead, payloadOf } from "../../shared/protocol/line.ts";
import { isDecisive } from "../../shared/policy/outcome.ts";

/** An attempt that is under way, by one try or two. */
export interface Race<I> {
  readonly item: I;
  readonly startedAtMs: number;
  readonly deadlineAtMs: number;
  /** When its second try began; 0 for never. */
  hedgedAtMs: number;
  /** Tries that are open. */
  tries: number;
  /** The status of a try that failed while the other one was open. */
  failedStatus: number;
}

export interface HedgePlan<I> {
  readonly afterMs: number;
  readonly most: number;
  readonly may: (item: I) => boolean;
}

export class Hedger<I> {
  readonly #plan: HedgePlan<I>;
  readonly #races = new Set<Race<I>>();
  #due: Race<I>[] = [];
  #left: number;
  /** Null where nobody waits. */
  #changed: PromiseWithResolvers<void> | null = null;

  constructor(plan: HedgePlan<I>) {
    this.#plan = plan;
    this.#left = plan.most;
  }

  /** Attempts that have not ended. */
  get open(): number {
    return this.#races.size;
  }

  /** Whether a second try may still come. */
  get isUseful(): boolean {
    return this.#left > 0 && this.#races.size > 0;
  }

  /** Resolves when something has changed for lanes that have nothing to do. */
  changed(): Promise<void> {
    this.#changed ??= Promise.withResolvers();
    return this.#changed.promise;
  }

  /** Lets those who wait look again: something has ended, or a lane is free. */
  tell(): void {
    this.#changed?.resolve();
    this.#changed = null;
  }

  /** No second try begins any more. */
  stop(): void {
    this.#left = 0;
    this.tell();
  }

  begin(item: I, startedAtMs: number, deadlineAtMs: number): Race<I> {
    const race = { item, startedAtMs, deadlineAtMs, hedgedAtMs: 0, tries: 1, failedStatus: 0 };
    this.#races.add(race);
    return race;
  }

  /** When the race is due for a second try; the end of time for never. */
  dueAtMs({ item, startedAtMs }: Race<I>): number {
    return this.#left > 0 && this.#plan.may(item) ? startedAtMs + this.#plan.afterMs : Infinity;
  }

  /** The race's time has come. */
  isDue(race: Race<I>): void {
    this.#due.push(race);
    this.tell();
  }

  /** A race to take part in; null for none. `spare`: lanes that may be open beside those that are. */
  take(spare: number): Race<I> | null {
    if (spare <= 0) return null;
    while (this.#left > 0 && this.#due.length > 0) {
      const race = this.#due.shift()!;
      if (!this.#races.has(race)) continue;
      this.#left--;
      race.tries++;
      race.hedgedAtMs = Date.now();
      return race;
    }
    return null;
  }

  /**
   * A try has ended, with its line, or with null where nobody wants to know.
   * Gives the attempt's line once it is decided: then the other try, if it is
   * open, was beaten.
   */
  ended(race: Race<I>, line: string | null, isHedge: boolean): string | null {
    race.tries--;
    if (!this.#races.has(race)) return null;
    if (line === null) {
      if (race.tries === 0) this.#end(race);
      return null;
    }
    if (race.hedgedAtMs === 0) {
      this.#end(race);
      return line;
    }
    const head = parseLineHead(line);
    if (race.tries > 0 && !isDecisive(head.outcome, head.status)) {
      race.failedStatus = head.outcome === "answered" ? head.status : 0;
      return null;
    }
    this.#end(race);
    const { startedAtMs, hedgedAtMs, failedStatus: status } = race;
    const beaten = { isFirst: isHedge, startedAtMs: isHedge ? startedAtMs : hedgedAtMs, status };
    return formatLine({ ...head, startedAtMs, beaten }, payloadOf(line));
  }

  #end(race: Race<I>): void {
    this.#races.delete(race);
    this.tell();
  }
}
