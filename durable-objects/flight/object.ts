/**
 * The Durable Object of a shard of flights: where isolates that are about to
 * make the same call meet, and goals that have equal tasks. What becomes of
 * them is decided in `core/`. Nothing is written to disk: an object that is lost
 * costs a call, never an answer.
 */
import { DurableObject } from "cloudflare:workers";
import { FLIGHT_LEASE_MS } from "../../shared/limits-flight.ts";
import type { FlightMessage, GoalFlightNews } from "../../shared/protocol/flight.ts";
import type { FlightGoalRpc, FlightNews, FlightRpc, SeatRpc, WholeAnswer } from "../../shared/rpc-flight.ts";
import { newFlights } from "./core/state.ts";
import { apply, isIdle, type Request } from "./core/step.ts";
import { GoalFlights } from "./goals.ts";
import { type Place, Seat } from "./seat.ts";

export class Flight extends DurableObject<Env> implements FlightRpc {
  readonly #calls = newFlights<Place, WholeAnswer>(FLIGHT_LEASE_MS);
  readonly #tasks = new GoalFlights((goalId, news) => this.ctx.waitUntil(this.#tell(goalId, news)));
  /** By the names that their isolates gave them. */
  readonly #seats = new Map<string, { readonly key: string; readonly place: Place }>();
  #hasTimer = false;

  async join(key: string, seat: string): Promise<SeatRpc> {
    const place = Promise.withResolvers<FlightNews>();
    this.#seats.set(seat, { key, place });
    this.#apply({ kind: "join", key, place });
    return new Seat(key, place, (said) => {
      if (said.kind === "leave") this.#seats.delete(seat);
      return this.#apply(said);
    });
  }

  async renew(seats: readonly string[]): Promise<string[]> {
    return seats.filter((name) => {
      const seat = this.#seats.get(name);
      return seat === undefined || !this.#apply({ kind: "renew", ...seat });
    });
  }

  async written(resource: string): Promise<void> {
    this.#apply({ kind: "written", resource });
  }

  async changed(): Promise<void> {
    this.#apply({ kind: "changed" });
  }

  async exchange(message: FlightMessage): Promise<GoalFlightNews> {
    const news = this.#tasks.exchange(message, Date.now());
    this.#watch();
    return news;
  }

  #apply(request: Request<Place, WholeAnswer>): boolean {
    const { news, holds } = apply(this.#calls, Date.now(), request);
    for (const { place, what } of news) place.resolve(what);
    this.#watch();
    return holds;
  }

  /** One timer for all that time brings about. Whoever waits on the line keeps the object in memory, and goals ask again. */
  #watch(): void {
    if (this.#hasTimer || (isIdle(this.#calls) && this.#tasks.isIdle)) return;
    this.#hasTimer = true;
    setTimeout(() => this.#tick(), FLIGHT_LEASE_MS / 2);
  }

  #tick(): void {
    this.#hasTimer = false;
    this.#tasks.tick(Date.now());
    this.#apply({ kind: "tick" });
  }

  async #tell(goalId: string, news: GoalFlightNews): Promise<void> {
    const goal: FlightGoalRpc = this.env.GOAL.get(this.env.GOAL.idFromName(goalId));
    try {
      await goal.flightNews(news);
    } catch (error) {
      // It asks again, or is gone, and its lease ends.
      console.warn(`${goalId} was not told of its flights: ${String(error)}`);
    }
  }
}
