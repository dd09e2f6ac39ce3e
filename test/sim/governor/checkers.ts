/**
 * Watches a governor's world from outside: what is really open, what really
 * starts, what clients are really told. It calls nothing of the core but the
 * two counts that say whether a permit is free.
 */
import { capacityOf } from "../../../durable-objects/governor/core/grant.ts";
import { boundOf, boundOfAll, type Governor as State } from "../../../durable-objects/governor/core/state.ts";
import type { Command, Out } from "../../../durable-objects/governor/core/step.ts";
import { LEASE_TTL_MS_MIN } from "../../../shared/limits.ts";
import type { Lease } from "../../../shared/policy/lease.ts";
import type { Verdict } from "../../../shared/policy/outcome.ts";
import type { Grant } from "../../../shared/protocol/admission.ts";
import type { Client } from "./client.ts";
import type { Plan } from "./faults.ts";
import { factsOf, type Governor } from "./governor.ts";
import { type Call, HANG_MS_MAX } from "./upstream.ts";
import { must } from "../violation.ts";

const SLICE_MS = 150;
const PROBE_MS = 100;
/** A free permit is given, and an idle one is taken back, within this. */
const FREE_MS_MAX = 500;
/** A part of the rate that is used at least, after a while. */
const RATE_USED = 0.6;
const SLOW_MS = 1_000;
const EXCHANGE_MS = 50;
const IDLE_MS_MAX = LEASE_TTL_MS_MIN;
/** A permit stays with a client until it reports again, after a third of its lease; and so long on top. */
const TURN_MS = LEASE_TTL_MS_MIN / 3 + 200;
/** As often as long as usual does a call take where the upstream is slow. */
const LONG_CALLS = 10;
const STARVED_MS_MAX = 5_000;

interface Circuit {
  openedAtMs: number;
  /** Calls that clients could make without hearing of it. */
  allowed: number;
  starts: number;
}

export class Checkers {
  aborted = 0;
  calls = 0;
  /** The most that messages may shift what they bring. */
  spreadMs: number;
  readonly #plan: Plan;
  /** A call may have a permit for so long. */
  readonly #longMs: number;
  /** `maxConcurrency` as governors were told it, and until when each was in force. */
  readonly #inForce: { max: number | null; untilMs: number }[] = [];
  #ttlMs = LEASE_TTL_MS_MIN;
  readonly #unbounded = new Set<Call>();
  readonly #starts: number[] = [];
  readonly #bornAtMs: number[] = [];
  /** The gate as it was when a grant was made. */
  readonly #gateAt = new Map<string, number>();
  #gateUntilMs = 0;
  readonly #gateOf = new Map<string, number>();
  /** Starts that a life has left of a probe. */
  readonly #probesOf = new Map<string, number>();
  #probedAtMs = 0;
  #circuit: Circuit | null = null;
  #epochOut = 0;
  #epoch = 0;
  #startsEver = 0;
  #lacking: { readonly sinceMs: number; readonly starts: number } | null = null;
  #freeSinceMs: number | null = null;
  #idleSinceMs: number | null = null;
  readonly #shortSince = new Map<Client, number>();

  constructor(plan: Plan, spreadMs: number) {
    this.#plan = plan;
    this.spreadMs = spreadMs;
    this.#longMs = LONG_CALLS * plan.serviceMs + (plan.faults.hangs > 0 ? HANG_MS_MAX : 0);
  }

  /** A governor was loaded. */
  born({ state }: Governor, nowMs: number): void {
    must(state.epoch > this.#epochOut, "no epoch is used twice", () => `epoch ${state.epoch}, and grants of ${this.#epochOut} are out`);
    this.#epoch = state.epoch;
    this.#gateUntilMs = 0;
    this.#circuit = null;
    this.#probedAtMs = 0;
    this.#bornAtMs.push(nowMs);
  }

  stepped({ state }: Governor, command: Command, before: string | null, { pushes }: Out, grant: Grant | null, nowMs: number): void {
    if (command.kind === "report") {
      const { report } = command;
      if (before === null)
        this.#gateUntilMs = Math.max(this.#gateUntilMs, report.sample.retryAfterMs > 0 ? nowMs + report.sample.retryAfterMs : 0);
      else
        must(factsOf(state, report) === before, "a report that was overtaken changes nothing", () => `${before} ${factsOf(state, report)}`);
    }
    const max = state.upstream?.maxConcurrency ?? null;
    const last = this.#inForce.at(-1);
    if (state.upstream !== null && (last === undefined || last.max !== max)) {
      if (last !== undefined) last.untilMs = nowMs;
      this.#inForce.push({ max, untilMs: Number.POSITIVE_INFINITY });
    }
    for (const made of [...(grant === null ? [] : [grant]), ...pushes.map((push) => push.grant)]) this.#made(made, nowMs);
    if (!state.health.isOpen) this.#circuit = null;
    else this.#circuit ??= { openedAtMs: nowMs, allowed: boundOfAll(state), starts: 0 };
  }

  #made(grant: Grant, nowMs: number): void {
    this.#ttlMs = Math.max(this.#ttlMs, grant.ttlMs);
    this.#gateAt.set(`${grant.epoch}.${grant.number}`, this.#gateUntilMs);
    if (!grant.isOpen || grant.starts === 0) return;
    must(
      nowMs >= this.#probedAtMs + PROBE_MS,
      "an open circuit is probed ten times a second",
      () => `${nowMs - this.#probedAtMs} ms apart`,
    );
    must(grant.starts === 1, "a probe is one call", () => String(grant.starts));
    this.#probedAtMs = nowMs;
  }

  /** A grant is on its way. */
  left({ epoch, calls }: Grant): void {
    if (calls > 0) this.#epochOut = Math.max(this.#epochOut, epoch);
  }

  took(client: Client, grant: Grant, isTaken: boolean, before: Lease): void {
    const { lease } = client;
    const isLater = grant.epoch > before.epoch || (grant.epoch === before.epoch && grant.number > before.number);
    must(
      isTaken === (isLater && grant.seq === before.seq),
      "a grant counts if it is later than the last and answers the latest report",
      () => `${grant.epoch}.${grant.number} after ${before.epoch}.${before.number}`,
    );
    if (!isTaken) {
      const same = { ...lease, isAsking: before.isAsking };
      must(JSON.stringify(same) === JSON.stringify(before), "an old grant changes nothing", () => JSON.stringify(grant));
      return;
    }
    this.#gateOf.set(lease.life, this.#gateAt.get(`${grant.epoch}.${grant.number}`) ?? 0);
    if (grant.isOpen) this.#probesOf.set(lease.life, grant.starts ?? Number.POSITIVE_INFINITY);
    else this.#probesOf.delete(lease.life);
  }

  /** A client sends a call. */
  started({ lease, name }: Client, nowMs: number): void {
    this.calls++;
    const gateMs = this.#gateOf.get(lease.life) ?? 0;
    must(nowMs >= gateMs, "a closed gate is kept by whoever was told", () => `${name} starts ${gateMs - nowMs} ms too early`);
    this.#rate(nowMs);
    const probes = this.#probesOf.get(lease.life);
    if (probes !== undefined) {
      must(probes > 0, "an open circuit lets nothing through but probes", () => `${name} starts a call`);
      this.#probesOf.set(lease.life, probes - 1);
    } else if (this.#circuit !== null && lease.epoch === this.#epoch) {
      const { openedAtMs, allowed } = this.#circuit;
      const starts = ++this.#circuit.starts;
      must(starts <= allowed, "an open circuit stops the calls", () => `${starts} calls of ${allowed} in ${nowMs - openedAtMs} ms`);
    }
  }

  #rate(nowMs: number): void {
    const { ratePerSecond } = this.#plan;
    if (ratePerSecond === null) return;
    this.#startsEver++;
    this.#starts.push(nowMs);
    while (this.#starts[0]! <= nowMs - 1_000) this.#starts.shift();
    // A governor that died took with it what it had given out.
    const restarts = this.#bornAtMs.filter((atMs) => atMs > nowMs - 1_000 - this.spreadMs).length;
    const sliceMs = Math.max(SLICE_MS, 1_000 / ratePerSecond);
    const most = (ratePerSecond * (1_000 + this.spreadMs + sliceMs * (1 + restarts))) / 1_000 + 1;
    must(this.#starts.length <= most, "ratePerSecond holds in every second", () => `${this.#starts.length} starts, ${most} allowed`);
  }

  /** A call is open at the upstream; `open` are all of them. */
  opened(open: number, call: Call, isBounded: boolean, nowMs: number): void {
    for (const other of this.#unbounded) if (!other.isOpen) this.#unbounded.delete(other);
    if (!isBounded) this.#unbounded.add(call);
    if (this.#unbounded.size > 0) return;
    let most: number | null = 0;
    for (const { max, untilMs } of this.#inForce) {
      if (untilMs >= nowMs - this.#ttlMs) most = most === null || max === null ? null : Math.max(most, max);
    }
    must(most === null || open <= most, "maxConcurrency holds over all that is open", () => `${open} calls are open, ${most} may be`);
  }

  settled(_client: Client, verdict: Verdict, _nowMs: number): void {
    // What comes back well may be followed by another call before anybody hears of the circuit.
    if (verdict === "answered" && this.#circuit !== null) this.#circuit.allowed++;
  }

  /** Permits that only lack a start must not lack it for longer than the rate says. */
  #rateIsUsed(state: State | null, clients: readonly Client[], nowMs: number): void {
    const { ratePerSecond } = this.#plan;
    // Calls that end within an exchange start once in each.
    if (ratePerSecond === null || this.#plan.serviceMs < EXCHANGE_MS) return;
    const isHeld = state === null || state.health.isOpen || nowMs < state.learnUntilMs || nowMs < state.gateUntilMs;
    const lacks = ({ lease, inUse, isShort }: Client): boolean => isShort && nowMs < lease.untilMs && lease.calls - lease.spoiled > inUse;
    if (isHeld || !clients.some(lacks)) this.#lacking = null;
    else this.#lacking ??= { sinceMs: nowMs, starts: this.#startsEver };
    if (this.#lacking === null) return;
    const ms = nowMs - this.#lacking.sinceMs;
    const starts = this.#startsEver - this.#lacking.starts;
    const due = (RATE_USED * ratePerSecond * (ms - SLOW_MS)) / 1_000 - 1;
    must(starts >= due, "the rate is used while a client waits for it", () => `${starts} starts in ${ms} ms, at ${ratePerSecond} a second`);
  }

  /** In calm times, every now and then. */
  calm(governor: Governor | null, clients: readonly Client[], open: number, nowMs: number): void {
    const weights = clients.reduce((sum, { weight }) => sum + weight, 0);
    const isLearning = governor !== null && nowMs < governor.state.learnUntilMs;
    // Whoever has only less urgent work waits for longer; what it gets then is measured elsewhere.
    const first = [0, 1, 2].find((band) => clients.some(({ wants }) => wants[band]! > 0)) ?? 0;
    for (const client of clients) {
      if (isLearning || !client.isShort || client.wants[first] === 0 || client.inUse > 0) this.#shortSince.delete(client);
      else if (!this.#shortSince.has(client)) this.#shortSince.set(client, nowMs);
      const shortMs = nowMs - (this.#shortSince.get(client) ?? nowMs);
      must(
        shortMs <= STARVED_MS_MAX + this.#longMs + 2 * TURN_MS * (weights / client.weight),
        "no client starves",
        () => `${client.name} has waited for ${shortMs} ms`,
      );
    }
    const state = governor?.state ?? null;
    this.#rateIsUsed(state, clients, nowMs);
    const isHeld =
      state === null || state.health.isOpen || nowMs < state.learnUntilMs || nowMs < state.gateUntilMs || this.#plan.ratePerSecond !== null;
    if (isHeld || !clients.some(({ isShort }) => isShort)) {
      this.#freeSinceMs = null;
      this.#idleSinceMs = null;
      return;
    }
    const capacity = capacityOf(state);
    // A refused call's permit rests for a moment; the governor has not kept it back.
    const isKept = clients.some(({ isShort, lease }) => isShort && lease.wanted > lease.calls);
    if (!isKept || capacity - boundOfAll(state) <= 0) this.#freeSinceMs = null;
    else this.#freeSinceMs ??= nowMs;
    // What clients that died have open nobody may use before their lease has run out.
    const alive = new Set(clients.map(({ lease }) => lease.life));
    let left = 0;
    for (const [life, client] of state.clients) if (!alive.has(life)) left += boundOf(client);
    if (open >= 0.75 * (capacity - left) - 1) this.#idleSinceMs = null;
    else this.#idleSinceMs ??= nowMs;
    const freeMs = nowMs - (this.#freeSinceMs ?? nowMs);
    must(freeMs <= FREE_MS_MAX, "no permit stays free while a client wants it", () => `${capacity - boundOfAll(state)} for ${freeMs} ms`);
    const idleMs = nowMs - (this.#idleSinceMs ?? nowMs);
    must(idleMs <= IDLE_MS_MAX, "no permit stays idle while a client wants it", () => `${open} calls of ${capacity} open for ${idleMs} ms`);
  }
}
