/**
 * Drives a governor's core in tests: a clock that is told the time, reports
 * with defaults, and the pushes that a step makes.
 */
import { type Governor, type Kept, newGovernor } from "../../durable-objects/governor/core/state.ts";
import { type Out, type Push, step, wakeAt } from "../../durable-objects/governor/core/step.ts";
import type { Grant, OriginSample, Report, Sample } from "../../shared/protocol/admission.ts";
import type { Upstream } from "../../shared/protocol/upstream.ts";
import { START_MS, upstream } from "./goal-harness.ts";

export { START_MS };

export const NO_SAMPLE: Sample = { answered: 0, sumMs: 0, tokens: 0, metered: 0, retryAfterMs: 0, origins: [], latencies: [] };

export const origin = (over: Partial<OriginSample>): OriginSample => ({ reached: 0, unavailable: 0, refused: 0, ...over });

export class Driver {
  nowMs = START_MS;
  state: Governor;
  kept: Kept | null = null;
  pushes: Push[] = [];
  readonly #upstream: Upstream;
  readonly #seqs = new Map<string, number>();
  readonly #last = new Map<string, Grant>();

  constructor(over: Partial<Upstream> = {}) {
    this.#upstream = upstream(over);
    this.state = newGovernor(null, "", this.nowMs);
  }

  /** A report of a client's life, in the name before the dash; it has taken the last grant and keeps what it wants of it. */
  report(life: string, wanted: number, over: Partial<Report> = {}): Grant {
    const seq = over.seq ?? (this.#seqs.get(life) ?? 0) + 1;
    this.#seqs.set(life, seq);
    const last = this.#last.get(life);
    const grant = this.#step({
      client: life.split("-")[0]!,
      life,
      weight: 1,
      seq,
      epoch: last?.epoch ?? 0,
      taken: last?.number ?? 0,
      inUse: 0,
      held: Math.min(wanted, last?.calls ?? 0),
      unusedStarts: 0,
      wants: [0, wanted, 0],
      sample: NO_SAMPLE,
      upstream: this.#upstream,
      version: 1,
      ...over,
    });
    this.#last.set(life, grant);
    return grant;
  }

  #step(report: Report): Grant {
    return this.#run({ kind: "report", report, chance: 0.5 })!;
  }

  pass(ms: number): void {
    this.nowMs += ms;
  }

  tick(): void {
    this.#run({ kind: "tick" });
  }

  #run(command: Parameters<typeof step>[2]): Grant | null {
    const out: Out = { keep: null, pushes: [] };
    const grant = step(this.state, this.nowMs, command, out);
    if (out.keep !== null) this.kept = JSON.parse(JSON.stringify(out.keep)) as Kept;
    this.pushes = out.pushes;
    return grant;
  }

  /** What the pushes of the last step allow, by life. */
  pushed(): Record<string, number> {
    return Object.fromEntries(this.pushes.map(({ life, grant }) => [life, grant.calls]));
  }

  /** Loses its memory, and perhaps its process. */
  restart(boot = ""): void {
    this.state = newGovernor(this.kept, boot, this.nowMs);
  }

  wakeMs(): number | null {
    const at = wakeAt(this.state, this.nowMs);
    return at === null ? null : at - this.nowMs;
  }
}
