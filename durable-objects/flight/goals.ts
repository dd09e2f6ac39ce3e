/**
 * Tasks that goals want one call of. A goal has one place a key, whatever the
 * number of its tasks, and is known by its id, so it may ask again. What is
 * told to other goals is gathered for a moment, one message for each.
 */
import { FLIGHT_GOAL_LEASE_MS } from "../../shared/limits-flight.ts";
import type { FlightMessage, GoalFlightNews } from "../../shared/protocol/flight.ts";
import { newFlights } from "./core/state.ts";
import { apply, isIdle, type Request } from "./core/step.ts";

type Mutable = { leads: string[]; answers: { key: string; payload: string }[]; alone: string[] };

const newNews = (): Mutable => ({ leads: [], answers: [], alone: [] });

export class GoalFlights {
  readonly #flights = newFlights<string, string>(FLIGHT_GOAL_LEASE_MS);
  readonly #tell: (goalId: string, news: GoalFlightNews) => void;
  #pending = new Map<string, Mutable>();

  /** `tell` speaks to a goal that did not ask just now. */
  constructor(tell: (goalId: string, news: GoalFlightNews) => void) {
    this.#tell = tell;
  }

  get isIdle(): boolean {
    return isIdle(this.#flights);
  }

  exchange({ goalId, ends, asks, renews }: FlightMessage, nowMs: number): GoalFlightNews {
    for (const { key, ...end } of ends) {
      const about = { key, place: goalId };
      if ("payload" in end) this.#apply({ kind: "give", ...about, answer: end.payload, bytes: end.payload.length }, nowMs);
      else if (end.how === "left") this.#apply({ kind: "leave", ...about }, nowMs);
      else this.#apply({ kind: "end", ...about, how: end.how }, nowMs);
    }
    for (const key of asks) this.#apply({ kind: "join", key, place: goalId }, nowMs);
    for (const key of renews) this.#apply({ kind: "renew", key, place: goalId }, nowMs);
    const own = this.#pending.get(goalId) ?? newNews();
    this.#pending.delete(goalId);
    this.#flush();
    return own;
  }

  tick(nowMs: number): void {
    this.#apply({ kind: "tick" }, nowMs);
    this.#flush();
  }

  #apply(request: Request<string, string>, nowMs: number): void {
    for (const { key, place, what } of apply(this.#flights, nowMs, request).news) {
      let news = this.#pending.get(place);
      if (news === undefined) this.#pending.set(place, (news = newNews()));
      if (what.kind === "answer") news.answers.push({ key, payload: what.answer });
      else if (what.kind === "lead") news.leads.push(key);
      else news.alone.push(key);
    }
  }

  #flush(): void {
    const pending = this.#pending;
    if (pending.size === 0) return;
    this.#pending = new Map();
    for (const [goalId, news] of pending) this.#tell(goalId, news);
  }
}
