/**
 * The Durable Object of a shard of flights: where isolates that are about to
 * make the same call meet. What becomes of them is decided in `core/`. Nothing
 * is written to disk: an object that is lost costs a call, never an answer.
 */
import { DurableObject } from "cloudflare:workers";
import { FLIGHT_LEASE_MS } from "../../shared/limits-flight.ts";
import type { FlightNews, FlightRpc, SeatRpc, WholeAnswer } from "../../shared/rpc-flight.ts";
import { newFlights } from "./core/state.ts";
import { apply, isIdle, type Request } from "./core/step.ts";
import { type Place, Seat } from "./seat.ts";

export class Flight extends DurableObject<Env> implements FlightRpc {
  readonly #flights = newFlights<Place, WholeAnswer>();
  #hasTimer = false;

  async join(key: string): Promise<SeatRpc> {
    const place = Promise.withResolvers<FlightNews>();
    this.#apply({ kind: "join", key, place });
    return new Seat(key, place, (said) => this.#apply(said));
  }

  #apply(request: Request<Place, WholeAnswer>): boolean {
    const { news, holds } = apply(this.#flights, Date.now(), request);
    for (const { place, what } of news) place.resolve(what);
    // One timer for all that time brings about. Whoever waits keeps the object in memory.
    if (!this.#hasTimer && !isIdle(this.#flights)) {
      this.#hasTimer = true;
      setTimeout(() => this.#tick(), FLIGHT_LEASE_MS / 2);
    }
    return holds;
  }

  #tick(): void {
    this.#hasTimer = false;
    this.#apply({ kind: "tick" });
  }
}
