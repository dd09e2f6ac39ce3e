/**
 * A client of the governor around the real lease: it takes, asks and starts as
 * a goal does, and its executor aborts what outlives its permit. A client that
 * dies comes back as a new life; what its executor has open it does not know.
 */
import { askDueAtMs, asked, type Lease, newLease, startable, take, totalOf, unanswered } from "../../../shared/policy/lease.ts";
import { LEASE_ENDED_STATUS, verdictOfCall } from "../../../shared/policy/outcome.ts";
import { count, drain, newSampler, type Sampler } from "../../../shared/policy/sample.ts";
import type { Demand, Grant, Report } from "../../../shared/protocol/admission.ts";
import type { Upstream as Config } from "../../../shared/protocol/upstream.ts";
import type { Clock } from "../clock.ts";
import type { Random } from "../random.ts";
import type { Checkers } from "./checkers.ts";
import type { Faults } from "./faults.ts";
import type { Call, Reply, Upstream } from "./upstream.ts";

export interface Registry {
  readonly version: number;
  readonly config: Config;
}

/** A call as the executor holds it. */
interface Run {
  readonly life: string;
  readonly band: number;
  /** Nobody waits for it: there is more where it came from. */
  readonly isEndless: boolean;
  readonly origin: number;
  readonly startedAtMs: number;
  permitUntilMs: number;
  call: Call | null;
  isOver: boolean;
}

interface Surroundings {
  readonly clock: Clock;
  readonly random: Random;
  readonly upstream: Upstream;
  readonly checkers: Checkers;
  readonly faults: () => Faults;
  readonly send: (report: Report, answered: (grant: Grant) => void) => void;
  readonly log: (text: string) => void;
}

const DELAY_MS_MAX = 6;
/** So long a client waits for an answer. */
const PATIENCE_MS = 400;
const BACKOFF_MS_MAX = 200;

export class Client {
  readonly name: string;
  readonly weight: number;
  registry: Registry;
  lease!: Lease;
  /** Endless work in these bands, while it is measured. */
  endless: readonly boolean[] = [false, false, false];
  readonly queued: [number, number, number] = [0, 0, 0];
  /** Jobs that were asked for and are not done. */
  left = 0;
  readonly #around: Surroundings;
  #sampler: Sampler = newSampler();
  #runs = new Set<Run>();
  #lives = 0;
  #gateUntilMs = 0;
  #timerAtMs = Number.POSITIVE_INFINITY;

  constructor(name: string, weight: number, registry: Registry, around: Surroundings) {
    this.name = name;
    this.weight = weight;
    this.registry = registry;
    this.#around = around;
    this.#begin();
  }

  get inUse(): number {
    return this.#runs.size;
  }

  get wants(): Demand {
    const wants: [number, number, number] = [...this.queued];
    for (const { band } of this.#runs) wants[band]!++;
    return wants;
  }

  /** Work that could start now if it had a permit. */
  get isShort(): boolean {
    const { nowMs } = this.#around.clock;
    return totalOf(this.queued) > 0 && nowMs >= this.#gateUntilMs && startable(this.lease, this.inUse, nowMs) === 0;
  }

  add(jobs: Demand): void {
    jobs.forEach((number, band) => {
      this.queued[band] = this.queued[band]! + number;
      this.left += number;
    });
    this.turn();
  }

  /** Dies, and comes back with the work that was open as work to do again. Calls go on unless their executor dies too. */
  die(withCalls: boolean): void {
    this.#around.log(`${this.name} dies${withCalls ? " with its calls" : ""}`);
    for (const run of this.#runs) {
      this.queued[run.band]!++;
      if (!withCalls) continue;
      run.isOver = true;
      if (run.call !== null) this.#around.upstream.abort(run.call);
    }
    this.#begin();
    this.turn();
  }

  #begin(): void {
    this.#lives++;
    this.lease = newLease(`${this.name}-${this.#lives}`);
    this.#sampler = newSampler();
    this.#runs = new Set();
    this.#gateUntilMs = 0;
  }

  /** Sends what may be sent, and asks if that is due. */
  turn(): void {
    const { nowMs } = this.#around.clock;
    const { lease } = this;
    if (nowMs >= lease.untilMs) lease.calls = 0;
    for (let band = 0; band < 3; band++) {
      if (this.endless[band]!) this.queued[band] = 100;
      while (this.queued[band]! > 0 && nowMs >= this.#gateUntilMs && startable(lease, this.inUse, nowMs) > 0) this.#start(band);
    }
    const wanted = totalOf(this.wants);
    const dueAtMs = askDueAtMs(lease, wanted, this.inUse);
    if (dueAtMs !== null && dueAtMs <= nowMs) this.#ask(wanted);
    const nextMs = askDueAtMs(lease, totalOf(this.wants), this.inUse);
    if (nextMs !== null) this.#wake(Math.max(nextMs, nowMs + 1));
    const gateMs = Math.max(this.#gateUntilMs, lease.gateUntilMs);
    if (gateMs > nowMs && totalOf(this.queued) > 0) this.#wake(gateMs);
  }

  #wake(atMs: number): void {
    if (atMs >= this.#timerAtMs) return;
    this.#timerAtMs = atMs;
    this.#around.clock.at(atMs, () => {
      if (this.#timerAtMs !== atMs) return;
      this.#timerAtMs = Number.POSITIVE_INFINITY;
      this.turn();
    });
  }

  #start(band: number): void {
    const { clock, random, upstream, checkers } = this.#around;
    const { nowMs } = clock;
    const { lease } = this;
    this.queued[band]!--;
    lease.starts--;
    const { config } = this.registry;
    const places = lease.origins?.filter((place) => place < config.origins.length) ?? [];
    const origin = places.length > 0 ? random.pick(places) : random.between(0, config.origins.length - 1);
    const permitMs = config.maxConcurrency === null ? Number.POSITIVE_INFINITY : lease.untilMs - nowMs;
    const run: Run = {
      life: lease.life,
      band,
      isEndless: this.endless[band]!,
      origin,
      startedAtMs: nowMs,
      permitUntilMs: 0,
      call: null,
      isOver: false,
    };
    this.#runs.add(run);
    checkers.started(this, nowMs);
    clock.after(random.between(0, DELAY_MS_MAX), () => {
      if (run.isOver) return;
      run.permitUntilMs = Math.max(run.permitUntilMs, clock.nowMs + permitMs);
      run.call = upstream.begin(origin, (reply) => this.#ended(run, reply));
      checkers.opened(upstream.open.size, run.call, permitMs !== Number.POSITIVE_INFINITY, clock.nowMs);
      this.#watch(run);
    });
  }

  /** The executor's clock on the permit. */
  #watch(run: Run): void {
    const { clock, upstream, checkers } = this.#around;
    if (run.permitUntilMs === Number.POSITIVE_INFINITY) return;
    const untilMs = run.permitUntilMs;
    clock.at(untilMs, () => {
      if (run.isOver || run.call?.isOpen !== true) return;
      if (run.permitUntilMs > untilMs) return this.#watch(run);
      upstream.abort(run.call);
      checkers.aborted++;
      this.#ended(run, { outcome: "broken", status: LEASE_ENDED_STATUS, retryAfterMs: 0 });
    });
  }

  /** The result is on its way back to a client that may have died. */
  #ended(run: Run, reply: Reply): void {
    const { clock, random } = this.#around;
    const ms = clock.nowMs - run.startedAtMs;
    run.isOver = true;
    clock.after(random.between(0, DELAY_MS_MAX), () => {
      if (run.life !== this.lease.life || !this.#runs.delete(run)) return;
      this.#settle(run, reply, ms);
      this.turn();
    });
  }

  #settle(run: Run, reply: Reply, ms: number): void {
    const { clock, random, checkers } = this.#around;
    const { lease } = this;
    const verdict = verdictOfCall(reply.outcome, reply.status);
    count(this.#sampler, { origin: run.origin, verdict, ms, retryAfterMs: reply.retryAfterMs, tokens: 0 }, clock.nowMs);
    lease.results++;
    if (verdict === "refused" || verdict === "unavailable") lease.spoiled++;
    if (reply.retryAfterMs > 0) this.#gateUntilMs = Math.max(this.#gateUntilMs, clock.nowMs + reply.retryAfterMs);
    checkers.settled(this, verdict, clock.nowMs);
    if (run.isEndless) return;
    if (verdict === "answered") this.left--;
    else {
      clock.after(random.between(0, BACKOFF_MS_MAX), () => {
        this.queued[run.band]!++;
        this.turn();
      });
    }
  }

  #ask(wanted: number): void {
    const { clock, send, log } = this.#around;
    const { nowMs } = clock;
    const { lease } = this;
    const wants = this.wants;
    const report: Report = {
      client: this.name,
      weight: this.weight,
      life: lease.life,
      ...asked(lease, wanted, this.inUse, nowMs),
      epoch: lease.epoch,
      taken: lease.number,
      inUse: this.inUse,
      wants,
      sample: drain(this.#sampler, nowMs),
      upstream: this.registry.config,
      version: this.registry.version,
    };
    const { seq, life } = report;
    log(`${life} asks ${seq} taken=${report.epoch}.${report.taken} inUse=${report.inUse} held=${report.held} wants=${String(wants)}`);
    clock.after(PATIENCE_MS, () => {
      if (this.lease.life !== life || lease.seq !== seq || !lease.isAsking) return;
      unanswered(lease, clock.nowMs);
      this.turn();
    });
    send(report, (grant) => this.take(life, grant));
  }

  /** A grant comes in, as an answer or by itself. */
  take(life: string, grant: Grant): void {
    const { clock, checkers, faults, random, log } = this.#around;
    const { lease } = this;
    if (life !== lease.life) return;
    const before = { ...lease };
    const isTaken = take(lease, grant, clock.nowMs);
    checkers.took(this, grant, isTaken, before);
    log(
      `${life} ${isTaken ? "takes" : "drops"} ${grant.epoch}.${grant.number} calls=${grant.calls} starts=${grant.starts} until=${lease.untilMs}`,
    );
    this.turn();
    // What is open may stay so for as long as the lease lasts; the executors hear of it.
    for (const run of this.#runs) {
      if (run.permitUntilMs === Number.POSITIVE_INFINITY || random.chance(faults().renewLost)) continue;
      const permitMs = lease.untilMs - clock.nowMs;
      clock.after(random.between(0, DELAY_MS_MAX), () => {
        run.permitUntilMs = Math.max(run.permitUntilMs, clock.nowMs + permitMs);
      });
    }
  }
}
