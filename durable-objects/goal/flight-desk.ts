/** The goal's way to the shards of flights, and theirs to it. */
import { ok } from "../../shared/result.ts";
import type { FlightMessage, GoalFlightNews } from "../../shared/protocol/flight.ts";
import type { FlightRpc } from "../../shared/rpc-flight.ts";
import type { Answer, JsonReply } from "../../shared/rpc.ts";
import type { Turns } from "./turns.ts";

export class FlightDesk {
  readonly #env: Env;
  readonly #turns: () => Turns;

  constructor(env: Env, turns: () => Turns) {
    this.#env = env;
    this.#turns = turns;
  }

  async tell(message: FlightMessage): Promise<unknown> {
    return this.#turns().run({ command: { kind: "flight-news", message, news: await this.#ask(message) } });
  }

  /** A shard speaks by itself. What it says comes at the pace of commits, as results do. */
  async hear(news: GoalFlightNews): Promise<Answer<JsonReply>> {
    if (this.#turns().state.goal === null) return ok({ json: "{}", replayed: false });
    return this.#turns().runPaced({ command: { kind: "flight-news", message: null, news } });
  }

  /** What the shard answers; null where it does not. */
  async #ask(message: FlightMessage): Promise<GoalFlightNews | null> {
    const { FLIGHT } = this.#env;
    const shard: Pick<FlightRpc, "exchange"> = FLIGHT.get(FLIGHT.idFromName(`default-${message.shard}`));
    try {
      return await shard.exchange(message);
    } catch (error) {
      // All of it is said again.
      console.warn(`shard ${message.shard} of the flights did not answer ${message.goalId}: ${String(error)}`);
      return null;
    }
  }
}
