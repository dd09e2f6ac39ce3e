/**
 * Watches calls that are run a second time in a batch of their own: who is,
 * when, and once; that one try's failure leaves the attempt to the other one;
 * and that whoever is beaten is cut off.
 */
import type { GoalState } from "../../../durable-objects/goal/core/state.ts";
import type { TaskStatus } from "../../../shared/protocol/goal.ts";
import { type LineHead, parseLineHead } from "../../../shared/protocol/line.ts";
import type { Model } from "../model.ts";
import type { Turn } from "../shell.ts";
import { must } from "../violation.ts";

const TRIES = ["first", "second"] as const;
type Try = (typeof TRIES)[number];

interface Twice {
  readonly task: number;
  readonly attempt: number;
  readonly batches: Readonly<Record<Try, number>>;
  readonly failed: Set<Try>;
  /** The one whose line decided. */
  winner: Try | null;
}

/** How long an executor may keep a result back at most. */
const LAG_MS = 150;

const nameOf = (task: number, attempt: number): string => `${task}.${attempt}`;
const isGood = ({ outcome, status }: LineHead): boolean =>
  outcome === "too_large" || (outcome === "answered" && status < 500 && ![408, 425, 429].includes(status));

export class BackupChecker {
  readonly #model: Model;
  #life = "";
  /** By attempt: the batch that it was sent with first, and when. */
  readonly #first = new Map<string, { readonly batch: number; readonly atMs: number }>();
  #twice = new Map<string, Twice>();
  readonly #ever = new Set<string>();
  /** Places in the turn's lines of those that decided nothing, and of those that came again. */
  #undecided = new Set<number>();
  #again = new Set<number>();

  constructor(model: Model) {
    this.#model = model;
  }

  /** Whether a second call of the attempt is a backup. */
  has(task: number, attempt: number): boolean {
    return this.#ever.has(nameOf(task, attempt));
  }

  /** What the turn's line at this place was: a failure that decided nothing, the same once more, or neither. */
  lineAt(place: number): "undecided" | "again" | "whole" {
    return this.#undecided.has(place) ? "undecided" : this.#again.has(place) ? "again" : "whole";
  }

  turn({ state, settled, closed, aborts, sends, nowMs }: Turn, statuses: readonly TaskStatus[]): void {
    // Of what an earlier life had sent nothing counts any more.
    if (state.life !== this.#life) this.#twice = new Map();
    this.#life = state.life;
    this.#undecided = new Set();
    this.#again = new Set();
    settled.forEach((line, place) => this.#line(parseLineHead(line), place));
    for (const [name, { batches, failed, winner }] of this.#twice) {
      for (const { batch, refusal } of winner === null ? closed : []) {
        // What nobody took was not run again.
        if (batch === batches.second && failed.size === 0 && refusal === "overloaded") this.#twice.delete(name);
        else for (const each of TRIES) if (batch === batches[each]) failed.add(each);
      }
    }
    for (const [name, twice] of this.#twice) {
      const isOver = statuses[twice.task] !== "running" || state.tasks.attempt[twice.task] !== twice.attempt;
      this.#judge(name, twice, isOver, aborts, statuses);
      if (isOver) this.#twice.delete(name);
    }
    for (const { batch, upstream, tasks, isBackup } of sends) {
      for (const task of tasks) {
        const name = nameOf(task, state.tasks.attempt[task]!);
        if (isBackup !== true) this.#first.set(name, { batch, atMs: nowMs });
        else this.#begin(name, task, batch, state, upstream, nowMs);
      }
    }
  }

  #line(head: LineHead, place: number): void {
    const twice = this.#twice.get(nameOf(head.task, head.attempt));
    if (twice === undefined || twice.winner !== null) return;
    const by: Try = head.beaten === undefined ? "first" : "second";
    if (isGood(head) || (twice.failed.size > 0 && !twice.failed.has(by))) twice.winner = by;
    else if (twice.failed.has(by)) this.#again.add(place);
    else {
      twice.failed.add(by);
      this.#undecided.add(place);
    }
  }

  #judge(
    name: string,
    { batches, failed, winner, task, attempt }: Twice,
    isOver: boolean,
    aborts: Turn["aborts"],
    statuses: readonly TaskStatus[],
  ): void {
    const isCut = (each: Try): boolean =>
      aborts.some(([batch, ...which]) => batch === batches[each] && String(which) === String([task, attempt]));
    must(winner === null || isOver, "the first of two tries that is good decides", () => `task ${name}`);
    const isEarly = winner === null && failed.size < 2 && statuses[task] === "waiting";
    must(!isEarly, "a failure decides nothing while the other try is open", () => `task ${name}`);
    if (!isOver) return;
    for (const each of TRIES) {
      must(
        each === winner || failed.has(each) || isCut(each),
        "the try that was beaten is cut off",
        () => `task ${name}, batch ${batches[each]}`,
      );
    }
  }

  #begin(name: string, task: number, batch: number, state: GoalState, number: number, nowMs: number): void {
    const { queued, name: upstream } = state.upstreams[number]!;
    must(queued === 0, "nothing is run again while something waits", () => `task ${name}, ${queued} at ${upstream}`);
    must(this.#model.tasks.get(task)!.isHedgeable, "only what is declared idempotent is run again", () => `task ${name}`);
    must(!this.#twice.has(name), "a call is run again once", () => `task ${name}`);
    const afterMs = state.admissions[number]!.lease.hedgeAfterMs;
    must(afterMs !== null, "nothing is run again while its governor lets nothing be", () => `task ${name}`);
    const first = this.#first.get(name)!;
    must(
      nowMs >= first.atMs + afterMs + LAG_MS,
      "a call is run again once it is late",
      () => `task ${name} after ${nowMs - first.atMs} ms`,
    );
    const attempt = state.tasks.attempt[task]!;
    this.#twice.set(name, { task, attempt, batches: { first: first.batch, second: batch }, failed: new Set(), winner: null });
    this.#ever.add(name);
  }
}

/** Calls at an upstream that may be run again by what the model knows: a goal asks for no more permits than those. */
export function mayRunAgain(state: GoalState, model: Model, upstream: string): number {
  let count = 0;
  for (const [task, known] of model.tasks) {
    if (known.upstream === upstream && known.isHedgeable && state.tasks.status[task] === 2 && !state.backups.has(task)) count++;
  }
  return count;
}
