/**
 * The backend of a governor's world: it works on so many calls at once, lets
 * some wait in the order they came, and refuses the rest. It slows down, goes
 * away, and asks to be left alone for a while.
 */
import type { Outcome } from "../../../shared/protocol/line.ts";
import type { Clock } from "../clock.ts";
import type { Random } from "../random.ts";
import type { Faults, Plan } from "./faults.ts";

export interface Reply {
  readonly outcome: Outcome;
  readonly status: number;
  readonly retryAfterMs: number;
}

/** One call at the upstream, from its arrival until it ends or is aborted. */
export interface Call {
  readonly origin: number;
  readonly end: (reply: Reply) => void;
  isOpen: boolean;
  isServed: boolean;
}

const REFUSED: Reply = { outcome: "answered", status: 503, retryAfterMs: 0 };
const DONE: Reply = { outcome: "answered", status: 200, retryAfterMs: 0 };
const GONE: Reply = { outcome: "not_sent", status: 0, retryAfterMs: 0 };
const BROKEN: Reply = { outcome: "broken", status: 0, retryAfterMs: 0 };
const SIGMA = 0.3;
export const HANG_MS_MAX = 8_000;

export class Upstream {
  /** Calls that are open, whoever knows of them. */
  readonly open = new Set<Call>();
  capacity: number;
  factor = 1;
  gateUntilMs = 0;
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #plan: Plan;
  readonly #faults: () => Faults;
  readonly #downUntilMs: number[];
  #waiting: Call[] = [];
  #served = 0;

  constructor(clock: Clock, random: Random, plan: Plan, faults: () => Faults) {
    this.#clock = clock;
    this.#random = random;
    this.#plan = plan;
    this.#faults = faults;
    this.capacity = plan.capacity;
    this.#downUntilMs = Array.from({ length: plan.origins }, () => 0);
  }

  isDown(origin: number): boolean {
    return this.#clock.nowMs < this.#downUntilMs[origin]!;
  }

  /** The origin is away until then; what it has open breaks off. */
  takeDown(origin: number, untilMs: number): void {
    this.#downUntilMs[origin] = Math.max(this.#downUntilMs[origin]!, untilMs);
    for (const call of this.open) if (call.origin === origin) this.#end(call, BROKEN);
  }

  restore(): void {
    this.#downUntilMs.fill(0);
    this.factor = 1;
    this.gateUntilMs = 0;
  }

  begin(origin: number, end: (reply: Reply) => void): Call {
    const call: Call = { origin, end, isOpen: true, isServed: false };
    const { nowMs } = this.#clock;
    this.open.add(call);
    if (this.isDown(origin)) this.#later(call, GONE);
    else if (nowMs < this.gateUntilMs) this.#later(call, { outcome: "answered", status: 429, retryAfterMs: this.gateUntilMs - nowMs });
    else if (this.#served < this.capacity) this.#serve(call);
    else if (this.#waiting.length < this.#plan.queueMax) this.#waiting.push(call);
    else this.#later(call, REFUSED);
    return call;
  }

  /** The executor cuts it off: the connection is closed, and nobody hears of it. */
  abort(call: Call): void {
    this.#close(call);
  }

  abortAll(): void {
    for (const call of this.open) this.#close(call);
  }

  #later(call: Call, reply: Reply): void {
    this.#clock.after(this.#random.between(1, 4), () => this.#end(call, reply));
  }

  #serve(call: Call): void {
    call.isServed = true;
    this.#served++;
    const gauss = Math.sqrt(-2 * Math.log(this.#random.next() || 1e-9)) * Math.cos(2 * Math.PI * this.#random.next());
    const hangsMs = this.#random.chance(this.#faults().hangs) ? this.#random.between(500, HANG_MS_MAX) : 0;
    const ms = hangsMs + this.#plan.serviceMs * this.factor * Math.exp(SIGMA * gauss);
    const isBroken = this.#random.chance(this.#faults().broken);
    this.#clock.after(isBroken ? ms / 2 : ms, () => this.#end(call, isBroken ? BROKEN : DONE));
  }

  #end(call: Call, reply: Reply): void {
    if (!call.isOpen) return;
    this.#close(call);
    call.end(reply);
  }

  #close(call: Call): void {
    if (!call.isOpen) return;
    call.isOpen = false;
    this.open.delete(call);
    if (call.isServed) this.#served--;
    else this.#waiting = this.#waiting.filter((other) => other !== call);
    while (this.#served < this.capacity && this.#waiting.length > 0) this.#serve(this.#waiting.shift()!);
  }
}
