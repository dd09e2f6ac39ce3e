/**
 * What an executor in another process reaches of this one for a batch, and
 * nothing else: that batch's goal and its gate, and images of functions.
 * It lives until the executor lets go of it, or is gone. Answers of objects
 * are copied: passed on as they are, they would have to be given back.
 */
import { RpcTarget } from "cloudflare:workers";
import type { GoalAsk, HandRpc, StoredImage } from "../../shared/rpc-functions.ts";
import type { HomeRpc } from "../../shared/rpc-processes.ts";
import type { Answer } from "../../shared/rpc.ts";
import { gateAt, gateNameOf, goalAt } from "../executor/host/hosts.ts";
import { settlerOf } from "../executor/run-batch.ts";
import { imageStub } from "../sandbox/images.ts";

export class Home extends RpcTarget implements HomeRpc {
  readonly #env: Env;
  readonly #goalId: string;
  readonly #left = Promise.withResolvers<void>();

  /** Empty where it is for no goal. */
  constructor(env: Env, goalId: string) {
    super();
    this.#env = env;
    this.#goalId = goalId;
  }

  /** Resolves when nobody can ask any more. */
  get left(): Promise<void> {
    return this.#left.promise;
  }

  settle(lines: string): Promise<void> {
    return settlerOf(this.#env.GOAL)(this.#goalId, lines);
  }

  async ask(asks: readonly GoalAsk[]): Promise<readonly Answer<string>[]> {
    return [...(await goalAt(this.#env, this.#goalId).ask(asks))];
  }

  hand(waitMs: number): Promise<HandRpc> {
    const goalId = this.#goalId;
    return gateAt(this.#env, goalId).hand({ gate: gateNameOf(goalId), goalId, waitMs });
  }

  bundle(version: string): Promise<string | null> {
    return imageStub(this.#env, version).bundle();
  }

  async image(version: string, engineId: string): Promise<StoredImage | null> {
    const stored = await imageStub(this.#env, version).image(engineId);
    return stored === null ? null : { ...stored };
  }

  putImage(version: string, image: StoredImage): Promise<void> {
    return imageStub(this.#env, version).putImage(image);
  }

  [Symbol.dispose](): void {
    this.#left.resolve();
  }
}
