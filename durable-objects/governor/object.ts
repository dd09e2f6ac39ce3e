/**
 * The Durable Object of one upstream's governor. It carries reports in and
 * grants out; `core/` decides. It needs no alarm: whoever waits for it asks
 * again, so a timer of this incarnation is enough.
 */
import { DurableObject } from "cloudflare:workers";
import { latencyView } from "../../shared/policy/latencies.ts";
import type { Grant, Report, UpstreamLive } from "../../shared/protocol/admission.ts";
import type { GovernorRpc, PermitsRpc } from "../../shared/rpc.ts";
import { capacityOf, expectation } from "./core/grant.ts";
import { type Governor as State, newGovernor, wantedBy } from "./core/state.ts";
import { type Command, type Out, type Push, step, wakeAt } from "./core/step.ts";
import { GovernorStore } from "./store.ts";

export class Governor extends DurableObject<Env> implements GovernorRpc {
  readonly #store: GovernorStore;
  readonly #state: State;
  #timer: number | null = null;
  #timerAtMs = Number.POSITIVE_INFINITY;

  constructor(ctx: DurableObjectState, env: Env) {
    super(ctx, env);
    this.#store = new GovernorStore(ctx.storage);
    this.#state = newGovernor(this.#store.load(), bootOf(env), Date.now());
  }

  async exchange(report: Report): Promise<Grant> {
    return this.#step({ kind: "report", report, chance: Math.random() })!;
  }

  async outlook(weight: number): Promise<number> {
    return expectation(this.#state, weight, null);
  }

  async live(): Promise<UpstreamLive> {
    const { clients, limiter, hedgeAfterMs, health, upstream, messages, calls } = this.#state;
    let inFlight = 0;
    let wanted = 0;
    for (const client of clients.values()) {
      inFlight += client.inUse;
      wanted += wantedBy(client);
    }
    return {
      limit: upstream === null ? null : health.isOpen ? Math.floor(limiter.limit) : capacityOf(this.#state),
      inFlight,
      queued: Math.max(0, wanted - inFlight),
      ...latencyView(this.#state),
      tokensPerCall: Math.round(this.#state.meanTokens),
      circuit: health.isOpen ? "open" : "closed",
      hedgeAfterMs,
      messages,
      calls,
    };
  }

  #step(command: Command): Grant | null {
    const nowMs = Date.now();
    const out: Out = { keep: null, pushes: [] };
    const grant = step(this.#state, nowMs, command, out);
    // The output gate holds everything below until this is durable.
    if (out.keep !== null) this.#store.keep(out.keep);
    for (const push of out.pushes) this.ctx.waitUntil(this.#tell(push));
    this.#arm(nowMs);
    return grant;
  }

  /** A push that is lost does no harm: its client asks again. */
  async #tell({ client, life, grant }: Push): Promise<void> {
    const stub = this.#clientOf(client);
    try {
      await stub.permits(this.#state.upstream!.name, life, grant);
    } catch (error) {
      console.warn(`${client} was not told of its permits: ${String(error)}`);
    }
  }

  /** A goal's name is its id; every other client is a gate. */
  #clientOf(client: string): PermitsRpc {
    const clients = client.startsWith("goal_") ? this.env.GOAL : this.env.GATE;
    return clients.get(clients.idFromName(client));
  }

  #arm(nowMs: number): void {
    const atMs = wakeAt(this.#state, nowMs);
    if (atMs === null || (atMs >= this.#timerAtMs && this.#timerAtMs > nowMs)) return;
    clearTimeout(this.#timer);
    this.#timerAtMs = atMs;
    this.#timer = setTimeout(() => {
      this.#timerAtMs = Number.POSITIVE_INFINITY;
      this.#step({ kind: "tick" });
    }, atMs - nowMs);
  }
}

/** Names the process, where somebody names processes: what an earlier one had open died with it. */
function bootOf(env: object): string {
  return (env as { readonly BOOT_ID?: string }).BOOT_ID ?? "";
}
