/** The way of one call through a gate: the goal, the upstream, its key, its permit, and back. */
import { type Failure, failure } from "../../shared/errors.ts";
import { type CallEnd, NOT_SENT } from "../../shared/policy/outcome.ts";
import type { Upstream } from "../../shared/protocol/upstream.ts";
import { err, ok } from "../../shared/result.ts";
import type { CallAsked, WholeAnswer } from "../../shared/rpc-flight.ts";
import type { Answer, KeyedCall, Opening, PassRequest } from "../../shared/rpc.ts";
import type { Keys } from "./keys.ts";
import type { Doorkeeper, Visit } from "./pass.ts";
import { type Payer, Purse } from "./purse.ts";
import type { Queues, Visitor } from "./queues.ts";
import { Permissions } from "./permissions.ts";
import { type GoalCopy, goalCopy, type GoalStanding, goalStub, type RegistryCopy, unknownUpstream, upstreamIn } from "./registry.ts";

export interface Caller extends Visit, Visitor, Payer {
  /** The key that is its own now: nobody else calls with it meanwhile. */
  key: KeyedCall | null;
}

export function newCaller(request: PassRequest, nowMs: number): Caller {
  const { waitMs, avoid, isSecond = false } = request;
  return {
    request,
    untilMs: nowMs + waitMs,
    avoid,
    isSecond,
    isOver: false,
    queue: null,
    place: null,
    resolve: null,
    key: null,
    reservation: null,
  };
}

const gone = (): Failure => failure("temporary_reduced_capacity", "the caller has gone");

/** An upstream that honours the key itself lets every call be repeated. */
function keyOf({ keyed }: PassRequest, { idempotency }: Upstream): KeyedCall | null {
  if (keyed === undefined) return null;
  return { ...keyed, isRepeatable: keyed.isRepeatable || idempotency === "key" };
}

export class Door implements Doorkeeper<Caller> {
  readonly #env: Env;
  readonly #registry: RegistryCopy;
  readonly #keys: Keys;
  readonly #queues: Queues;
  readonly #permissions: Permissions;
  readonly #purse: Purse;
  #goal: GoalCopy | null = null;

  constructor(env: Env, registry: RegistryCopy, keys: Keys, queues: Queues) {
    this.#env = env;
    this.#registry = registry;
    this.#keys = keys;
    this.#queues = queues;
    this.#permissions = new Permissions(registry);
    this.#purse = new Purse((goalId) => goalStub(env, goalId));
  }

  async admit(caller: Caller): Promise<Answer<{ readonly opening: Opening } | { readonly replay: WholeAnswer }>> {
    const { gate, upstream: name } = caller.request;
    const refusal = await this.refusal(caller.request);
    if (refusal !== null) return err(refusal);
    const found = await upstreamIn(this.#registry, (one) => one.name === name);
    if (found === null) return err(unknownUpstream(name));
    const keyed = keyOf(caller.request, found.upstream);
    if (keyed !== null) {
      const claimed = await this.#keys.claim(keyed, caller.untilMs);
      if (!claimed.ok) return claimed;
      if (claimed.value !== null) return ok({ replay: claimed.value });
      caller.key = keyed;
    }
    // Its caller may have gone meanwhile, and nobody would give back what it gets.
    if (caller.isOver) return this.#refuse(caller, gone());
    if (caller.isSecond === true) return this.#admitSecond(caller, found.upstream, found.version);
    const unpaid = await this.#purse.reserve(caller, found.upstream);
    if (unpaid !== null) return this.#refuse(caller, unpaid);
    if (caller.isOver) return this.#refuse(caller, gone());
    const opened = await this.#queues.join(gate, caller, found.upstream, found.version);
    if (!opened.ok) return this.#refuse(caller, opened.error);
    if (caller.key !== null) this.#keys.begin(caller.key);
    return ok({ opening: opened.value });
  }

  /** A second try: many wait in vain, so nothing is set aside for it before it has its permit. */
  async #admitSecond(caller: Caller, upstream: Upstream, version: number): Promise<Answer<{ readonly opening: Opening }>> {
    const opened = await this.#queues.second(caller.request.gate, caller, upstream, version);
    if (!opened.ok) return opened;
    const unpaid = await this.#purse.reserve(caller, upstream);
    if (unpaid === null && !caller.isOver) return ok({ opening: opened.value });
    this.#queues.leave(caller, NOT_SENT);
    return this.#refuse(caller, unpaid ?? gone());
  }

  /** Why the call may not be made, whoever makes it; null where it may. */
  async refusal(call: CallAsked): Promise<Failure | null> {
    const goal = call.goalId === undefined ? null : await this.#goalOf(call.goalId);
    return goal?.failure ?? (await this.#permissions.refusal(call, goal));
  }

  renew(caller: Caller): number {
    return this.#queues.remainingMs(caller);
  }

  leave(caller: Caller, end: CallEnd | null, answer: WholeAnswer | null | undefined): void {
    this.#queues.leave(caller, end);
    if (caller.place === null) this.#purse.release(caller);
    else this.#purse.spend(caller, end);
    this.#release(caller, end, answer);
  }

  #refuse(caller: Caller, fault: Failure): Answer<never> {
    this.#purse.release(caller);
    this.#release(caller, null, undefined);
    return err(fault);
  }

  #release(caller: Caller, end: CallEnd | null, answer: WholeAnswer | null | undefined): void {
    if (caller.key !== null) this.#keys.release(caller.key, end, answer);
    caller.key = null;
  }

  #goalOf(goalId: string): Promise<GoalStanding> {
    this.#goal ??= goalCopy(this.#env, goalId);
    return this.#goal.get();
  }
}
