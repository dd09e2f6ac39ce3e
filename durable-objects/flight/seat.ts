/**
 * One isolate's place in a flight. The runtime disposes of it when the isolate
 * lets go or is gone, in some versions not before its turn; somebody else then leads.
 */
import { RpcTarget } from "cloudflare:workers";
import type { FlightNews, SeatRpc, WholeAnswer } from "../../shared/rpc-flight.ts";
import type { Request } from "./core/step.ts";

/** Where somebody waits to be told, once, what becomes of it. */
export type Place = PromiseWithResolvers<FlightNews>;

type Said = Exclude<Request<Place, WholeAnswer>, { kind: "renew" | "written" | "tick" }>;

/** Carries out what is said from a place, and answers whether it holds. */
export type Hear = (said: Said) => boolean;

export class Seat extends RpcTarget implements SeatRpc {
  readonly #key: string;
  readonly #place: Place;
  readonly #hear: Hear;

  constructor(key: string, place: Place, hear: Hear) {
    super();
    this.#key = key;
    this.#place = place;
    this.#hear = hear;
  }

  turn(): Promise<FlightNews> {
    return this.#place.promise;
  }

  async end(how: "failed" | "alone"): Promise<void> {
    this.#hear({ kind: "end", key: this.#key, place: this.#place, how });
  }

  async landed(freshMs: number): Promise<boolean> {
    return this.#hear({ kind: "landed", key: this.#key, place: this.#place, freshMs });
  }

  async give(answer: WholeAnswer): Promise<void> {
    this.#hear({ kind: "give", key: this.#key, place: this.#place, answer, bytes: answer.body.byteLength });
  }

  [Symbol.dispose](): void {
    this.#hear({ kind: "leave", key: this.#key, place: this.#place });
  }
}
