/** The goal's locks for callers from outside, who stay on the line while they wait; and its way to the shards of the tenant's. */
import { failure, type Failure } from "../../shared/errors.ts";
import type { Granted, LockMessage, LockNews, LockRelease } from "../../shared/policy/lock-steps.ts";
import { err, ok, type Result } from "../../shared/result.ts";
import type { LockShardRpc, OutsideAsk } from "../../shared/rpc-locks.ts";
import type { Answer } from "../../shared/rpc.ts";
import type { Bearer } from "../../shared/token/claims.ts";
import type { SettledLine } from "./core/lock-turn.ts";
import type { Turns } from "./turns.ts";

type Line = (outcome: Result<Granted, Failure>) => void;

export class LockDesk {
  readonly #env: Env;
  readonly #turns: () => Turns;
  /** By the number of the request. They are lost with the incarnation; their places in the queue are not. */
  readonly #lines = new Map<number, Line>();

  constructor(env: Env, turns: () => Turns) {
    this.#env = env;
    this.#turns = turns;
  }

  acquire(ask: OutsideAsk, bearer: Bearer | undefined): Promise<Answer<Granted>> {
    return new Promise((resolve, reject) => {
      let granted: Granted | null = null;
      const run = this.#turns().run({
        command: { kind: "acquire-lock", ask: { ...ask, owner: null } },
        bearer,
        // The line is open before anything can end it.
        render: ({ lock }) => {
          if ("granted" in lock!) granted = lock.granted;
          else this.#hold(lock!.seq, resolve);
          return "{}";
        },
      });
      run.then((reply) => {
        if (!reply.ok) resolve(reply);
        else if (granted !== null) resolve(ok(granted));
      }, reject);
    });
  }

  /** The caller stays on the line until its wait ends. Another line of the same holder ends here. */
  #hold(seq: number, line: Line): void {
    this.#lines.get(seq)?.(err(failure("lock_held", "the same holder waits on another line now")));
    this.#lines.set(seq, line);
  }

  async release(release: LockRelease, bearer: Bearer | undefined): Promise<Answer<null>> {
    const reply = await this.#turns().run({ command: { kind: "release-lock", release }, bearer });
    return reply.ok ? ok(null) : reply;
  }

  /** Waits have ended, and that is durable. */
  end(lines: readonly SettledLine[]): void {
    for (const { seq, outcome } of lines) {
      this.#lines.get(seq)?.(outcome);
      this.#lines.delete(seq);
    }
  }

  /** What the shard answers; null where it does not. */
  async tell(message: LockMessage): Promise<LockNews | null> {
    const { LOCKS } = this.#env;
    const shard: Pick<LockShardRpc, "exchangeLocks"> = LOCKS.get(LOCKS.idFromName(String(message.shard)));
    try {
      return await shard.exchangeLocks(message);
    } catch (error) {
      // All of it is said again.
      console.warn(`shard ${message.shard} of the locks did not answer ${message.goalId}: ${String(error)}`);
      return null;
    }
  }
}
