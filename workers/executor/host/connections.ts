/** The connections of one invocation: at most six calls wait for their answer's head. */
import { PLATFORM_CONNECTIONS_PER_INVOCATION_MAX } from "../../../shared/limits.ts";

export class Connections {
  #free = PLATFORM_CONNECTIONS_PER_INVOCATION_MAX;
  readonly #waiting: (() => void)[] = [];

  /** Runs the work as soon as there is a connection, in the order of arrival; what is urgent before all others. */
  async use<T>(work: () => Promise<T>, isUrgent = false): Promise<T> {
    if (this.#free > 0) this.#free--;
    else await new Promise<void>((resolve) => (isUrgent ? this.#waiting.unshift(resolve) : this.#waiting.push(resolve)));
    try {
      return await work();
    } finally {
      const next = this.#waiting.shift();
      if (next === undefined) this.#free++;
      else next();
    }
  }
}
