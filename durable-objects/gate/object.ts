/**
 * The Durable Object that calls are passed through with: it gives each leave
 * to go, in the order of arrival, and remembers the answers to calls with an
 * `Idempotency-Key`. The calls themselves, and their bodies, never come here.
 */
import { DurableObject } from "cloudflare:workers";
import type { Failure } from "../../shared/errors.ts";
import type { Grant } from "../../shared/protocol/admission.ts";
import type { HandRequest, HandRpc, HandsRpc } from "../../shared/rpc-functions.ts";
import type { CallAsked } from "../../shared/rpc-flight.ts";
import type { GateRpc, PassRequest, PassRpc } from "../../shared/rpc.ts";
import { governorsOf } from "../kit/governors.ts";
import { Door, newCaller } from "./door.ts";
import { Hands } from "./hands.ts";
import { Keys } from "./keys.ts";
import { Pass } from "./pass.ts";
import { Queues } from "./queues.ts";
import { registryCopy } from "./registry.ts";
import { GateStore } from "./store.ts";

export class Gate extends DurableObject<Env> implements GateRpc, HandsRpc {
  readonly #store: GateStore;
  readonly #queues: Queues;
  readonly #door: Door;
  readonly #hands: Hands;
  #alarmIsSet = false;

  constructor(ctx: DurableObjectState, env: Env) {
    super(ctx, env);
    this.#store = new GateStore(ctx.storage);
    this.#queues = new Queues(governorsOf(env).exchange);
    const keys = new Keys(this.#store, () => this.#wakeLater());
    const registry = registryCopy(env);
    this.#door = new Door(env, registry, keys, this.#queues);
    this.#hands = new Hands(env, registry, keys, this.#queues);
  }

  async enter(request: PassRequest): Promise<PassRpc> {
    return new Pass(this.#door, newCaller(request, Date.now()));
  }

  async refusal(call: CallAsked): Promise<Failure | null> {
    return this.#door.refusal(call);
  }

  async hand(request: HandRequest): Promise<HandRpc> {
    return this.#hands.hand(request);
  }

  async permits(upstream: string, life: string, grant: Grant): Promise<void> {
    this.#queues.grant(upstream, life, grant);
  }

  override async alarm(): Promise<void> {
    const nextMs = this.#store.expire(Date.now());
    this.#alarmIsSet = nextMs !== null;
    // Each goal has a gate, and nobody comes back to most of them.
    if (nextMs === null) await this.ctx.storage.deleteAll();
    else await this.ctx.storage.setAlarm(Math.max(nextMs, Date.now()) + 1);
  }

  /** One alarm for the oldest answer. A life that did not set it asks whether an earlier one has. */
  #wakeLater(): void {
    if (this.#alarmIsSet) return;
    this.#alarmIsSet = true;
    this.ctx.waitUntil(this.#arm());
  }

  async #arm(): Promise<void> {
    const { storage } = this.ctx;
    const nextMs = this.#store.nextExpiry();
    if (nextMs !== null && (await storage.getAlarm()) === null) await storage.setAlarm(nextMs + 1);
  }
}
