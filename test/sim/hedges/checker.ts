/**
 * Watches second tries: who gets one, how many there are, that each is
 * reserved before it is made, and that no more calls are open than the goal
 * counts.
 */
import type { BatchState, GoalState } from "../../../durable-objects/goal/core/state.ts";
import { HEDGES_START } from "../../../shared/limits-hedging.ts";
import type { Call } from "../executor.ts";
import type { Model } from "../model.ts";
import type { Turn } from "../shell.ts";
import { must } from "../violation.ts";

/** One life of the goal at one upstream. */
interface Tally {
  /** Calls that were started, weighed by the share that may be hedged. */
  earned: number;
  made: number;
}

export class HedgeChecker {
  readonly #model: Model;
  #life = "";
  #tallies = new Map<string, Tally>();
  readonly #tries = new Map<string, number>();
  /** Second tries that were granted with a batch and may still be made, by attempt's batch. */
  readonly #granted = new Map<string, { left: number }>();

  constructor(model: Model) {
    this.#model = model;
  }

  turn({ state, sends }: Turn): void {
    if (state.life !== this.#life) this.#tallies = new Map();
    this.#life = state.life;
    for (const { upstream, tasks, hedges } of sends) {
      const { name, config } = state.upstreams[upstream]!;
      const tally = this.#tallies.get(name) ?? { earned: HEDGES_START, made: 0 };
      this.#tallies.set(name, tally);
      tally.earned += (tasks.length * (config?.hedge?.budgetPercent ?? 0)) / 100;
      const leave = { left: hedges?.left ?? 0 };
      for (const task of tasks) this.#granted.set(`${task}.${state.tasks.attempt[task]!}`, leave);
    }
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
    const leave = this.#granted.get(name)!;
    must(--leave.left >= 0, "a batch hedges no more than it was given", () => `task ${name}`);
    if (state?.life !== this.#life) return;
    const tally = this.#tallies.get(known.upstream!);
    if (tally === undefined) return;
    tally.made++;
    must(tally.made <= tally.earned, "hedges are a part of all calls", () => `${tally.made} of ${tally.earned} at ${known.upstream}`);
  }
}

/** Calls that the goal's batches have open, where it still counts on them. */
export function checkOpen(state: GoalState, upstream: number, open: number): void {
  const { name, lanes } = state.upstreams[upstream]!;
  const counted = lanes + (state.admissions[upstream]?.closing ?? 0);
  must(open <= counted, "no more calls are open than the goal counts", () => `${open} for ${counted} at ${name}`);
}

/** Permits that a batch holds: one more than it has tasks left, as long as it may hedge. */
export function heldBy({ lanes, left, hedges }: BatchState): number {
  return Math.min(lanes, left + ((hedges?.left ?? 0) > 0 ? 1 : 0));
}
