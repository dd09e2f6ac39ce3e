/**
 * The governors of a world's upstreams, as bad as one may be: what they grant
 * rises and shrinks, runs out, gets lost, comes late, twice or unasked; they
 * forget everything and begin a new epoch; they take upstreams for dead and
 * for alive again. They keep what a goal relies on: never more calls than
 * `maxConcurrency`, numbers that rise, and starts that a rate allows.
 */
import { LANES_DEFAULT, LEASE_TTL_MS_MIN, RATE_SLICE_MS } from "../../shared/limits.ts";
import type { Grant, Report } from "../../shared/protocol/admission.ts";
import type { Upstream } from "../../shared/protocol/upstream.ts";
import type { Clock } from "./clock.ts";
import type { Faults } from "./faults.ts";
import type { Random } from "./random.ts";
import type { Shell } from "./shell.ts";

interface Surroundings {
  readonly clock: Clock;
  readonly random: Random;
  readonly faults: () => Faults;
  readonly log: (text: string) => void;
  /** When calls may be hedged; null for never, now. */
  readonly hedgeAfterMs: () => number | null;
}

interface Governor {
  upstream: Upstream;
  version: number;
  epoch: number;
  number: number;
  isOpen: boolean;
  /** The theoretical arrival time of the next start (GCRA). */
  arrivalMs: number;
}

const DELAY_MS_MAX = 8;
const LATE_MS_MAX = 2_500;
/** How soon a circuit that is open closes again, for each grant. */
const CLOSES = 0.3;

export class Governors {
  readonly #around: Surroundings;
  readonly #governors = new Map<string, Governor>();

  constructor(around: Surroundings) {
    this.#around = around;
  }

  /** Carries a report to its governor, and the answer back. */
  exchange(shell: Shell, report: Report): void {
    const { clock, random, log } = this.#around;
    const { name } = report.upstream;
    if (random.chance(this.#around.faults().reportLost)) {
      log(`report ${report.seq} to ${name} is lost`);
      return this.#unanswered(shell, name);
    }
    clock.after(random.between(0, DELAY_MS_MAX), () => this.#answer(shell, report));
  }

  #answer(shell: Shell, report: Report): void {
    const { random } = this.#around;
    const faults = this.#around.faults();
    const grant = this.#grant(report);
    const isLost = random.chance(faults.grantLost);
    if (isLost) this.#unanswered(shell, report.upstream.name);
    // What was given up for lost may come after all.
    if (!isLost || random.chance(0.3)) this.#deliver(shell, report, grant, isLost || random.chance(faults.grantLate));
    if (random.chance(faults.pushed)) this.#push(shell, report, random.between(1, 1_000));
    const isShort = grant.calls <= report.inUse || grant.starts === 0;
    if (isShort && total(report) > report.inUse) this.#push(shell, report, random.between(20, 400));
  }

  /** Tells the client of something new, as the report's sender knows itself. */
  #push(shell: Shell, report: Report, inMs: number): void {
    this.#around.clock.after(inMs, () => {
      if (!shell.isDead) this.#deliver(shell, report, this.#grant(report), this.#around.random.chance(this.#around.faults().grantLate));
    });
  }

  #deliver(shell: Shell, { life, upstream }: Report, grant: Grant, isLate: boolean): void {
    const { clock, random } = this.#around;
    const times = random.chance(this.#around.faults().grantTwice) ? 2 : 1;
    for (let i = 0; i < times; i++) {
      const ms = isLate || i > 0 ? random.between(0, LATE_MS_MAX) : random.between(0, DELAY_MS_MAX);
      clock.after(ms, () => (shell.isDead ? undefined : shell.grant(upstream.name, life, grant)));
    }
  }

  #unanswered(shell: Shell, name: string): void {
    const { clock, random } = this.#around;
    clock.after(random.between(0, 200), () => (shell.isDead ? undefined : shell.unanswered(name)));
  }

  #grant(report: Report): Grant {
    const { random, log } = this.#around;
    const faults = this.#around.faults();
    const governor = this.#of(report);
    if (random.chance(faults.governorForgets)) Object.assign(governor, { epoch: governor.epoch + 1, number: 0 });
    governor.isOpen = random.chance(governor.isOpen && faults.opens > 0 ? 1 - CLOSES : faults.opens);
    const { upstream, isOpen } = governor;
    const most = Math.min(upstream.maxConcurrency ?? LANES_DEFAULT, total(report));
    const isProbe = isOpen && random.chance(0.5);
    const inUse = Math.min(report.inUse, most);
    const calls = isOpen ? Math.min(most, inUse + (isProbe ? 1 : 0)) : random.chance(faults.stingy) ? random.between(0, most) : most;
    const starts = isOpen ? (isProbe ? 1 : 0) : this.#starts(governor, calls - inUse);
    const count = upstream.origins.length;
    const isResting = random.chance(faults.originsRest);
    const grant: Grant = {
      epoch: governor.epoch,
      number: ++governor.number,
      seq: report.seq,
      calls,
      starts,
      ttlMs: random.chance(faults.shortLease) ? random.between(100, 1_000) : LEASE_TTL_MS_MIN,
      gateMs: random.chance(faults.gated) ? random.between(1, 500) : 0,
      isOpen,
      origins: isResting ? [random.between(0, count - 1)] : null,
      callsPerSecond: 0,
      hedgeAfterMs: this.#around.hedgeAfterMs(),
    };
    const { epoch, number, ttlMs } = grant;
    log(
      `grant ${upstream.name} ${epoch}.${number} for ${report.seq}: ${calls} calls ${starts ?? "-"} starts ${ttlMs} ms${isOpen ? " open" : ""}`,
    );
    return grant;
  }

  #of(report: Report): Governor {
    const { upstream, version } = report;
    let governor = this.#governors.get(upstream.name);
    if (governor === undefined) {
      governor = { upstream, version, epoch: 1, number: 0, isOpen: false, arrivalMs: 0 };
      this.#governors.set(upstream.name, governor);
    }
    if (version > governor.version) Object.assign(governor, { upstream, version });
    return governor;
  }

  #starts(governor: Governor, useful: number): number | null {
    const rate = governor.upstream.ratePerSecond;
    if (rate === null) return null;
    const { nowMs } = this.#around.clock;
    const intervalMs = 1_000 / rate;
    const from = Math.max(governor.arrivalMs, nowMs);
    const room = Math.floor((nowMs + Math.max(RATE_SLICE_MS, intervalMs) - from) / intervalMs);
    const starts = Math.max(0, Math.min(room, useful));
    governor.arrivalMs = from + starts * intervalMs;
    return starts;
  }
}

const total = ({ wants }: Report): number => wants[0] + wants[1] + wants[2];
