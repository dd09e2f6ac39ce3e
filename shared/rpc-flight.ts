/** The typed contract with the shards where equal calls meet. It is a part of `rpc.ts`. */
import type { Failure } from "./errors.ts";
import type { FlightMessage, GoalFlightNews } from "./protocol/flight.ts";
import type { PassRequest } from "./rpc.ts";

/** What of a call decides whether it may be made. */
export type CallAsked = Pick<PassRequest, "goalId" | "upstream" | "method" | "path" | "bearer">;

export interface RefusalRpc {
  /** Why a caller may not have the answer to this call, which another one makes; null where it may. It takes no permit and costs nothing. */
  refusal(call: CallAsked): Promise<Failure | null>;
}

/** An answer as it came: nothing decoded, names in lower case. */
export interface WholeAnswer {
  readonly status: number;
  readonly headers: readonly (readonly [string, string])[];
  readonly body: Uint8Array;
}

/** What becomes of one who asked to make a call. */
export type FlightNews =
  /** It makes the call, and says how that ended. */
  | { readonly kind: "lead" }
  /** Somebody else has made the call. `ageMs`: how long ago; null where it was under way meanwhile. */
  | { readonly kind: "answer"; readonly answer: WholeAnswer; readonly ageMs: number | null }
  /** It makes its own call, and nobody waits for that. */
  | { readonly kind: "alone" };

/** One isolate's place among those who want the same answer. Dropping it gives it up, so one that goes away needs to say nothing. */
export interface SeatRpc {
  /** Waits for what becomes of it. */
  turn(): Promise<FlightNews>;
  /** Its call came to nothing that others could use, or to an answer that is for it alone. */
  end(how: "failed" | "alone"): Promise<void>;
  /** The answer begins to come, and stays fresh for so long. Nobody joins any more; whether anybody wants the whole of it. */
  landed(freshMs: number): Promise<boolean>;
  give(answer: WholeAnswer): Promise<void>;
}

export interface FlightRpc {
  /** What a goal has to say and to ask about its tasks. What comes later the shard tells the goal by itself. */
  exchange(message: FlightMessage): Promise<GoalFlightNews>;
  /**
   * `key` is made of hashes of what is read and of all that makes two calls equal, and `seat` is a name that only this seat has.
   * Answers at once, so that nobody can go away unnoticed.
   */
  join(key: string, seat: string): Promise<SeatRpc>;
  /** These seats still lead or wait. Answers with those that nobody should join any more: taken to be gone, or their call is older than a write. */
  renew(seats: readonly string[]): Promise<string[]>;
  /** A write has been answered that changes this resource. From then on nobody is answered by a call that began before. */
  written(resource: string): Promise<void>;
  /** An upstream is another one now, or none: what came from any before is an answer to nobody. */
  changed(): Promise<void>;
}

/** A goal, as shards of flights see it. */
export interface FlightGoalRpc {
  flightNews(news: GoalFlightNews): Promise<void>;
}
