/**
 * Watches second tries: who gets one, how many there are, that each is
 * reserved before it is made, and that no more calls are open than the goal
 * counts.
 */
import type { GoalState } from "../../../durable-objects/goal/core/state.ts";
import { HEDGES_START } from "../../../shared/limits-hedging.ts";
import type { TaskStatus } from "../../../shared/protocol/goal.ts";
import type { Call } from "../executor.ts";
import { BackupChecker } from "./backups.ts";
import type { Model } from "../model.ts";
import type { Turn } from "../shell.ts";
import { must } from "../violation.ts";

/** One life of the goal at one upstream. */
interface Tally {
  /** Calls that were started, weighed by the share that may be hedged. */
  earned: number;
  made: number;
}

/** Second tries that one batch may make. */
interface Leave {
  left: number;
  readonly life: string;
  readonly upstream: string;
}

/** Shares are added up in another order than the goal does. */
const ROUNDING = 1e-9;

export class HedgeChecker {
  readonly #model: Model;
  #life = "";
  #tallies = new Map<string, Tally>();
  readonly #tries = new Map<string, number>();
  /** Second tries that were granted with a batch and may still be made, by attempt and by batch. */
  readonly #granted = new Map<string, Leave>();
  readonly #open = new Map<number, Leave>();

  readonly backups: BackupChecker;

  constructor(model: Model) {
    this.#model = model;
    this.backups = new BackupChecker(model);
  }

  turn(turn: Turn, statuses: readonly TaskStatus[]): void {
    const { state, sends } = turn;
    this.backups.turn(turn, statuses);
    if (state.life !== this.#life) this.#tallies = new Map();
    this.#life = state.life;
    for (const [batch, { left, life, upstream }] of this.#open) {
      if (state.batches.has(batch)) continue;
      // What an earlier life had earned and its batch did not use is this one's.
      if (life !== state.life) this.#tallyOf(upstream).earned += left;
      this.#open.delete(batch);
    }
    for (const { batch, upstream, tasks, hedges, isBackup } of sends) {
      if (isBackup === true) continue;
      const { name, config } = state.upstreams[upstream]!;
      const tally = this.#tallyOf(name);
      tally.earned += (tasks.length * (config?.hedge?.budgetPercent ?? 0)) / 100;
      const leave = { left: hedges?.left ?? 0, life: state.life, upstream: name };
      this.#open.set(batch, leave);
      for (const task of tasks) this.#granted.set(`${task}.${state.tasks.attempt[task]!}`, leave);
    }
  }

  #tallyOf(upstream: string): Tally {
    const tally = this.#tallies.get(upstream) ?? { earned: HEDGES_START, made: 0 };
    this.#tallies.set(upstream, tally);
    return tally;
  }

  /** An upstream saw a call. */
  call({ task, attempt }: Call, state: GoalState | undefined): void {
    const name = `${task}.${attempt}`;
    const tries = (this.#tries.get(name) ?? 0) + 1;
    this.#tries.set(name, tries);
    if (tries === 1) return;
    must(tries === 2, "an attempt has two tries at most", () => `task ${name}: ${tries}`);
    const known = this.#model.tasks.get(task)!;
    must(known.isHedgeable, "only what is declared idempotent is open twice at once", () => `task ${name}`);
    const isBackup = this.backups.has(task, attempt);
    const leave = this.#granted.get(name)!;
    must(isBackup || --leave.left >= 0, "a batch hedges no more than it was given", () => `task ${name}`);
    // What an earlier life has sent is no part of this one's calls.
    if (state?.life !== this.#life || leave.life !== this.#life) return;
    const tally = this.#tallies.get(known.upstream!);
    if (tally === undefined) return;
    tally.made++;
    must(
      tally.made <= tally.earned + ROUNDING,
      "hedges are a part of all calls",
      () => `${tally.made} of ${tally.earned} at ${known.upstream}`,
    );
  }
}

/** Calls that the goal's batches have open, where it still counts on them. */
export function checkOpen(state: GoalState, upstream: number, open: number): void {
  const { name, lanes } = state.upstreams[upstream]!;
  const counted = lanes + (state.admissions[upstream]?.closing ?? 0);
  must(open <= counted, "no more calls are open than the goal counts", () => `${open} for ${counted} at ${name}`);
}

/** Permits that what was sent to an upstream holds, in all and by origin: of a batch one more than it has tasks left, as long as it may hedge. */
export function heldAt(
  { batches, backups }: GoalState,
  number: number,
): { readonly all: number; readonly byOrigin: ReadonlyMap<number, number> } {
  const byOrigin = new Map<number, number>();
  let all = 0;
  const hold = (origin: number, permits: number): void => {
    all += permits;
    byOrigin.set(origin, (byOrigin.get(origin) ?? 0) + permits);
  };
  for (const { upstream, origin, lanes, left, hedges } of batches.values()) {
    const mayHedge = hedges !== undefined && (hedges.left > 0 || hedges.isUnheard === true);
    if (upstream === number) hold(origin, Math.min(lanes, left + (mayHedge ? 1 : 0)));
  }
  for (const { upstream, origin } of backups.values()) if (upstream === number) hold(origin, 1);
  return { all, byOrigin };
}
