/**
 * The governor's object around the real core, in the order of the real one:
 * what is to be kept is written first, and the output gate holds answers and
 * pushes until that is durable. A crash loses what is not.
 */
import { type Governor as State, type Kept, newGovernor } from "../../../durable-objects/governor/core/state.ts";
import { type Command, type Out, type Push, step, wakeAt } from "../../../durable-objects/governor/core/step.ts";
import type { Grant, Report } from "../../../shared/protocol/admission.ts";
import type { Clock } from "../clock.ts";
import type { Random } from "../random.ts";

/** Text, as on disk: nothing of the state in memory survives by accident. */
export interface Disk {
  kept: string | null;
}

export interface Surroundings {
  readonly clock: Clock;
  readonly random: Random;
  readonly disk: Disk;
  readonly boot: string;
  readonly tell: (push: Push) => void;
  /** After each step, before anything of it leaves. */
  readonly observe: (governor: Governor, command: Command, before: string | null, out: Out, grant: Grant | null) => void;
  /** Whether the object dies before its commit is durable. */
  readonly commitFails: () => boolean;
  readonly die: (governor: Governor) => void;
  /** A grant leaves. */
  readonly leaves: (grant: Grant) => void;
}

const COMMIT_MS_MAX = 4;

export class Governor {
  readonly state: State;
  isDead = false;
  readonly #around: Surroundings;
  #durableAtMs = 0;
  #timerAtMs = Number.POSITIVE_INFINITY;

  constructor(around: Surroundings) {
    this.#around = around;
    const { disk, boot, clock } = around;
    this.state = newGovernor(disk.kept === null ? null : (JSON.parse(disk.kept) as Kept), boot, clock.nowMs);
  }

  exchange(report: Report, answer: (grant: Grant) => void): void {
    const grant = this.#step({ kind: "report", report, chance: this.#around.random.next() })!;
    this.#release(() => {
      this.#around.leaves(grant);
      answer(grant);
    });
  }

  #step(command: Command): Grant | null {
    const { clock, disk, random, observe, tell, leaves, commitFails, die } = this.#around;
    const { nowMs } = clock;
    const out: Out = { keep: null, pushes: [] };
    const before = command.kind === "report" ? factsOf(this.state, command.report) : null;
    const grant = step(this.state, nowMs, command, out);
    if (out.keep !== null) {
      const text = JSON.stringify(out.keep);
      this.#durableAtMs = Math.max(this.#durableAtMs, nowMs + random.between(1, COMMIT_MS_MAX));
      if (commitFails()) clock.at(this.#durableAtMs, () => die(this));
      this.#release(() => {
        disk.kept = text;
      });
    }
    observe(this, command, before, out, grant);
    for (const push of out.pushes) {
      this.#release(() => {
        leaves(push.grant);
        tell(push);
      });
    }
    this.#arm(nowMs);
    return grant;
  }

  /** Runs it once all that was written is durable; never if the object dies before. */
  #release(run: () => void): void {
    const { clock } = this.#around;
    if (this.#durableAtMs < clock.nowMs) return run();
    clock.at(this.#durableAtMs, () => {
      if (!this.isDead) run();
    });
  }

  #arm(nowMs: number): void {
    const atMs = wakeAt(this.state, nowMs);
    if (atMs === null || (atMs >= this.#timerAtMs && this.#timerAtMs > nowMs)) return;
    this.#timerAtMs = atMs;
    this.#around.clock.at(atMs, () => {
      if (this.isDead || this.#timerAtMs !== atMs) return;
      this.#timerAtMs = Number.POSITIVE_INFINITY;
      this.#step({ kind: "tick" });
    });
  }
}

/** What an overtaken report must leave as it is; null for one that is not overtaken. */
export function factsOf({ clients, limiter, health, gateUntilMs, calls }: State, { life, seq }: Report): string | null {
  const client = clients.get(life);
  if (client === undefined || seq > client.seq) return null;
  const { weight, inUse, wants, heardAtMs } = client;
  return JSON.stringify([client.seq, weight, inUse, wants, heardAtMs, limiter, health.isOpen, gateUntilMs, calls]);
}
