/**
 * Who gets how much of the upstream while every client has endless work:
 * call-time by weight within a band, and a floor for the band below.
 */
import { capacityOf } from "../../../durable-objects/governor/core/grant.ts";
import { LEASE_TTL_MS_MIN } from "../../../shared/limits.ts";
import type { Clock } from "../clock.ts";
import { must } from "../violation.ts";
import type { Client } from "./client.ts";
import type { Plan } from "./faults.ts";
import type { Governor } from "./governor.ts";

const SAMPLE_MS = 20;
/** Limits and leases find their place first. */
const WARM_UP_MS = 4_000;
const BAND_FLOOR = 0.05;
const STEADY = 2;
const TURN_MS = LEASE_TTL_MS_MIN / 3 + 1_000;

export class Measure {
  readonly #clock: Clock;
  readonly #clients: readonly Client[];
  readonly #plan: Plan;
  readonly #governor: () => Governor | null;
  readonly #open: number[];
  #samples = 0;
  #capacity = 0;
  #most = 0;
  #least = Number.POSITIVE_INFINITY;
  #isOver = false;

  constructor(clock: Clock, clients: readonly Client[], plan: Plan, governor: () => Governor | null) {
    this.#clock = clock;
    this.#clients = clients;
    this.#plan = plan;
    this.#governor = governor;
    this.#open = clients.map(() => 0);
  }

  /** Which band a client's work is in: with two, every third client's is in the lower one. */
  #bandOf(place: number): 1 | 2 {
    return this.#plan.bands === 2 && place % 3 === 2 ? 2 : 1;
  }

  begin(): void {
    this.#clients.forEach((client, place) => {
      client.endless = [false, this.#bandOf(place) === 1, this.#bandOf(place) === 2];
      client.turn();
    });
    this.#clock.after(WARM_UP_MS, () => this.#sample());
  }

  #sample(): void {
    if (this.#isOver) return;
    this.#samples++;
    this.#clients.forEach(({ inUse }, place) => {
      this.#open[place]! += inUse;
    });
    const governor = this.#governor();
    const capacity = governor === null ? 0 : capacityOf(governor.state);
    this.#capacity += capacity;
    this.#most = Math.max(this.#most, capacity);
    this.#least = Math.min(this.#least, capacity);
    this.#clock.after(SAMPLE_MS, () => this.#sample());
  }

  /** Takes the work away again. What each client had open on average, as text. */
  end(): string {
    this.#isOver = true;
    for (const client of this.#clients) {
      client.endless = [false, false, false];
      client.queued.fill(0);
      client.turn();
    }
    const means = this.#open.map((sum) => sum / this.#samples);
    // While the limit itself is looked for, shares follow it at the pace of reports.
    if (this.#most <= STEADY * this.#least) for (const band of [1, 2] as const) this.#judge(band, means);
    return means.map((mean) => mean.toFixed(2)).join(" ");
  }

  #judge(band: 1 | 2, means: readonly number[]): void {
    const places = this.#clients.flatMap((_, place) => (this.#bandOf(place) === band ? [place] : []));
    const total = places.reduce((sum, place) => sum + means[place]!, 0);
    const capacity = this.#capacity / this.#samples;
    // What a lower band has beyond its floor are permits that stayed until their client reported.
    const due = band === 1 ? total : Math.min(total, BAND_FLOOR * capacity);
    const weights = places.reduce((sum, place) => sum + this.#clients[place]!.weight, 0);
    const all = means.map((mean) => mean.toFixed(2)).join(" ");
    // A permit stays for a turn, and whoever has a small share may wait for its own.
    const turn = TURN_MS / (this.#plan.measureMs - WARM_UP_MS);
    for (const place of places) {
      const { name, weight } = this.#clients[place]!;
      const fair = (due * weight) / weights;
      const mean = means[place]!;
      must(
        Math.abs(mean - fair) <= 0.1 * fair + 1,
        "call-time is shared by weight",
        () => `${name} has ${mean}, fair are ${fair} (${all})`,
      );
      must(mean >= 0.4 * fair - turn, "no backlogged client starves", () => `${name} has ${mean}, fair are ${fair} (${all})`);
    }
    if (band === 1 || places.length === 0) return;
    must(total >= 0.6 * BAND_FLOOR * capacity - turn, "a lower band gets its floor", () => `${total} of ${capacity} calls (${all})`);
  }
}
