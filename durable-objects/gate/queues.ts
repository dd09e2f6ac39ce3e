/**
 * The queues of a gate, one an upstream, and its talk with their governors:
 * one timer, and one report at a time and upstream. What to do is decided in
 * `core/`.
 */
import { type Failure, failure } from "../../shared/errors.ts";
import { GATE_SWEEP_MS, GATE_WAITING_MAX } from "../../shared/limits.ts";
import { permitted, startable, take, unanswered } from "../../shared/policy/lease.ts";
import type { CallEnd } from "../../shared/policy/outcome.ts";
import type { Grant } from "../../shared/protocol/admission.ts";
import type { Upstream } from "../../shared/protocol/upstream.ts";
import { err, ok } from "../../shared/result.ts";
import type { Answer, Opening } from "../../shared/rpc.ts";
import { newLife, randomSeed } from "../kit/chance.ts";
import type { Governors } from "../kit/governors.ts";
import {
  configure,
  earn,
  finish,
  hedgeAfterMs,
  isHedging,
  newQueue,
  type Queue,
  repeat,
  reportAtMs,
  reportOf,
  retryAfterMs,
  start,
  startSecond,
  type Waiter,
} from "./core/queue.ts";

/** A timer that is so late is not waited for. */
const TIMER_LATE_MS = 20;

/** A call at the gate, and where it stands. */
export interface Visitor extends Waiter {
  queue: Queue<Visitor> | null;
  /** The place of the origin that it calls; null while it waits. */
  place: number | null;
  resolve: ((answer: Answer<Opening>) => void) | null;
  /** A second try of a call. */
  readonly isSecond?: boolean;
  /** Its permit is for one call after another. */
  readonly isLent?: boolean;
}

export class Queues {
  readonly #exchange: Governors["exchange"];
  readonly #life = newLife();
  readonly #queues = new Map<string, Queue<Visitor>>();
  #client = "";
  #timer: number | null = null;
  #timerAtMs = Number.POSITIVE_INFINITY;

  constructor(exchange: Governors["exchange"]) {
    this.#exchange = exchange;
  }

  /** Answers with a permit, or after the visitor's patience. `client` is what governors know the gate by. */
  async join(client: string, visitor: Visitor, upstream: Upstream, version: number): Promise<Answer<Opening>> {
    this.#client = client;
    const nowMs = Date.now();
    const queue = this.#queueOf(upstream, version);
    if (queue.waiting.size >= GATE_WAITING_MAX) return err(full(queue, nowMs));
    visitor.queue = queue;
    // Nobody overtakes those who wait.
    const place = queue.waiting.size === 0 ? start(queue, visitor.avoid, randomSeed(), nowMs) : null;
    if (place !== null) {
      this.#stir(nowMs);
      return ok(open(queue, visitor, place, nowMs));
    }
    return new Promise((resolve) => {
      visitor.resolve = resolve;
      queue.waiting.add(visitor);
      this.#stir(nowMs);
    });
  }

  /** Answers a second try of a call with a permit that nobody else wants, or with none. */
  async second(client: string, visitor: Visitor, upstream: Upstream, version: number): Promise<Answer<Opening>> {
    this.#client = client;
    const queue = this.#queueOf(upstream, version);
    if (queue.waiting.size > 0 || !isHedging(queue, queue.seconds.size + 1)) return err(notTwice(queue));
    visitor.queue = queue;
    return new Promise((resolve) => {
      visitor.resolve = resolve;
      queue.seconds.add(visitor);
      const nowMs = Date.now();
      this.#serve(queue, nowMs);
      this.#stir(nowMs);
    });
  }

  /** The visitor's call has ended, or its caller has gone (null), whether or not it had a permit. */
  leave(visitor: Visitor, end: CallEnd | null): void {
    const { queue, place } = visitor;
    if (queue === null) return;
    visitor.queue = null;
    const nowMs = Date.now();
    // A second try that was not made after all may be another call's.
    if (place !== null && visitor.isSecond === true && end?.outcome === "not_sent") queue.hedges++;
    if (place !== null) finish(queue, place, end, nowMs);
    else sendAway(queue, visitor, failure("temporary_reduced_capacity", "the caller has gone"));
    this.#stir(nowMs);
  }

  /** A call with the visitor's permit has ended, and the next one may begin with it. */
  again({ queue, place }: Visitor, end: CallEnd): void {
    if (queue === null || place === null) return;
    const nowMs = Date.now();
    repeat(queue, place, end, nowMs);
    earn(queue);
    this.#stir(nowMs);
  }

  /** After how long a call at the visitor's upstream may be made a second time; null where none may. */
  hedgeAfterMs({ queue }: Visitor): number | null {
    return queue === null ? null : hedgeAfterMs(queue);
  }

  /** Whether permits may be used for one call after another without a word. */
  isReusable({ queue }: Visitor): boolean {
    return queue !== null && !Number.isFinite(queue.lease.starts);
  }

  /** How much longer the visitor's permit lasts. */
  remainingMs({ queue }: Visitor): number {
    return queue === null ? 0 : Math.max(0, queue.lease.untilMs - Date.now());
  }

  grant(upstream: string, life: string, grant: Grant): void {
    const queue = this.#queues.get(upstream);
    if (queue === undefined || life !== this.#life) return;
    const nowMs = Date.now();
    take(queue.lease, grant, nowMs);
    this.#serve(queue, nowMs);
    this.#stir(nowMs);
  }

  #queueOf(upstream: Upstream, version: number): Queue<Visitor> {
    let queue = this.#queues.get(upstream.name);
    if (queue === undefined) this.#queues.set(upstream.name, (queue = newQueue(upstream, version, this.#life)));
    else if (version > queue.version) configure(queue, upstream, version);
    return queue;
  }

  /** Something has changed. A timer waits behind everything that came before it; where a herd makes it late, its work is done here. */
  #stir(nowMs: number): void {
    if (nowMs < this.#timerAtMs + TIMER_LATE_MS) return this.#schedule(nowMs);
    clearTimeout(this.#timer);
    this.#tick();
  }

  #schedule(atMs: number): void {
    if (atMs >= this.#timerAtMs) return;
    clearTimeout(this.#timer);
    this.#timerAtMs = atMs;
    this.#timer = setTimeout(() => this.#tick(), Math.max(0, atMs - Date.now()));
  }

  /** Starts what may start, reports what is due, and sends away whose patience has ended. */
  #tick(): void {
    this.#timerAtMs = Number.POSITIVE_INFINITY;
    const nowMs = Date.now();
    for (const queue of this.#queues.values()) {
      this.#serve(queue, nowMs);
      for (const waiting of [queue.waiting, queue.seconds]) {
        for (const visitor of waiting) if (visitor.untilMs <= nowMs) giveUp(queue, visitor, nowMs);
      }
      const dueAtMs = reportAtMs(queue, nowMs);
      if (dueAtMs !== null && dueAtMs <= nowMs) void this.#report(queue, nowMs);
      else if (dueAtMs !== null) this.#schedule(dueAtMs);
      if (queue.waiting.size + queue.seconds.size === 0) continue;
      this.#schedule(nowMs + GATE_SWEEP_MS);
      if (queue.lease.gateUntilMs > nowMs) this.#schedule(queue.lease.gateUntilMs);
    }
  }

  #serve(queue: Queue<Visitor>, nowMs: number): void {
    admit(queue, queue.waiting, start, nowMs);
    for (const visitor of queue.seconds) if (!isHedging(queue, queue.seconds.size)) sendAway(queue, visitor, notTwice(queue));
    admit(queue, queue.seconds, startSecond, nowMs);
  }

  async #report(queue: Queue<Visitor>, nowMs: number): Promise<void> {
    const grant = await this.#exchange(queue.upstream.name, reportOf(queue, this.#client, nowMs));
    if (grant !== null) return this.grant(queue.upstream.name, this.#life, grant);
    unanswered(queue.lease, Date.now());
    this.#schedule(queue.lease.restUntilMs);
  }
}

/** Lets those go who wait, in order, as long as one may begin. */
function admit(queue: Queue<Visitor>, waiting: Set<Visitor>, begin: typeof start<Visitor>, nowMs: number): void {
  for (const visitor of waiting) {
    const place = begin(queue, visitor.avoid, randomSeed(), nowMs);
    if (place === null) return;
    waiting.delete(visitor);
    visitor.resolve!(ok(open(queue, visitor, place, nowMs)));
  }
}

function open(queue: Queue<Visitor>, visitor: Visitor, place: number, nowMs: number): Opening {
  const { upstream, lease } = queue;
  const afterMs = hedgeAfterMs(queue);
  visitor.place = place;
  // Of one that is lent, each call counts when it has ended.
  if (visitor.isSecond !== true && visitor.isLent !== true) earn(queue);
  return {
    origin: upstream.origins[place]!,
    place,
    headers: upstream.headers,
    timeoutMs: upstream.timeoutMs,
    permitMs: upstream.maxConcurrency === null ? null : Math.max(0, lease.untilMs - nowMs),
    tokensPointer: upstream.usage.tokens,
    costPointer: upstream.usage.costMicros ?? null,
    ...(upstream.coalesce === "off" && { isUnshared: true }),
    ...(afterMs !== null && { hedgeAfterMs: afterMs }),
    granted: permitted(lease, nowMs),
    free: startable(lease, queue.open, nowMs),
  };
}

function sendAway(queue: Queue<Visitor>, visitor: Visitor, fault: Failure): void {
  queue.waiting.delete(visitor);
  queue.seconds.delete(visitor);
  visitor.queue = null;
  visitor.resolve!(err(fault));
}

const notTwice = ({ upstream }: Queue<Visitor>): Failure =>
  failure("temporary_reduced_capacity", `no call to "${upstream.name}" is made a second time just now`);

function giveUp(queue: Queue<Visitor>, visitor: Visitor, nowMs: number): void {
  const why = queue.lease.isOpen ? "is taken to be down" : "has no permit free";
  const detail = `the upstream "${queue.upstream.name}" ${why}, and the call waited as long as it was let; Prefer: wait=n says how long`;
  sendAway(queue, visitor, failure("temporary_reduced_capacity", detail, { retryAfterMs: retryAfterMs(queue, nowMs) }));
}

function full(queue: Queue<Visitor>, nowMs: number): Failure {
  const detail = `${GATE_WAITING_MAX} calls wait for the upstream "${queue.upstream.name}" already`;
  return failure("temporary_reduced_capacity", detail, { retryAfterMs: retryAfterMs(queue, nowMs) });
}
