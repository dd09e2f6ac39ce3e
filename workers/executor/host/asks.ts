/**
 * What handlers ask of their goal: those of a tick go in one message. One that
 * may wait for a lock goes by itself, because the others must not wait for it.
 */
import { HOST_LOCK_WAIT_MS_MAX } from "../../../shared/limits.ts";
import type { GoalAsk, GoalAskRpc } from "../../../shared/rpc-functions.ts";
import type { Answer } from "../../../shared/rpc.ts";
import { HostError } from "../../sandbox/types.ts";
import { errorOf } from "./slice.ts";
import { objectIn } from "./wanted.ts";

interface Asking {
  readonly ask: GoalAsk;
  readonly resolve: (json: string) => void;
  readonly reject: (error: unknown) => void;
}

/** Whether the answer may take its time. */
export function waitsForLock(ask: GoalAsk): boolean {
  if (ask.op !== "lock") return false;
  const { waitMs = 0 } = objectIn(ask.args, "ctx.lock");
  if (!(Number.isInteger(waitMs) && (waitMs as number) >= 0 && (waitMs as number) <= HOST_LOCK_WAIT_MS_MAX)) {
    throw new HostError("invalid_request", `waitMs must be a whole number from 0 to ${HOST_LOCK_WAIT_MS_MAX}`);
  }
  return waitMs !== 0;
}

export class Asks {
  readonly #goal: () => GoalAskRpc;
  #gathered: Asking[] = [];

  constructor(goal: () => GoalAskRpc) {
    this.#goal = goal;
  }

  ask(ask: GoalAsk): Promise<string> {
    const isAlone = waitsForLock(ask);
    return new Promise((resolve, reject) => {
      const asking = { ask, resolve, reject };
      if (isAlone) void this.#send([asking]);
      else if (this.#gathered.push(asking) === 1) setTimeout(() => void this.#send(this.#gathered.splice(0)), 0);
    });
  }

  async #send(asking: readonly Asking[]): Promise<void> {
    let answers: readonly Answer<string>[];
    try {
      answers = await this.#goal().ask(asking.map(({ ask }) => ask));
    } catch {
      const fault = new HostError("temporary_reduced_capacity", "the goal could not be asked; another attempt may");
      for (const { reject } of asking) reject(fault);
      return;
    }
    asking.forEach(({ resolve, reject }, i) => {
      const answer = answers[i]!;
      if (answer.ok) resolve(answer.value);
      else reject(errorOf(answer.error));
    });
  }
}
