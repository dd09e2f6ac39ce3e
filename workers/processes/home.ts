/**
 * What an executor in another process reaches of this one, and nothing else.
 * It lives until the executor lets go of it, or is gone. Answers of objects
 * are copied: passed on as they are, they would have to be given back.
 */
import { RpcTarget } from "cloudflare:workers";
import type { HandsRpc, GoalAsk, GoalAskRpc, HandRequest, HandRpc, StoredImage } from "../../shared/rpc-functions.ts";
import type { HomeRpc } from "../../shared/rpc-processes.ts";
import type { Answer } from "../../shared/rpc.ts";
import { settlerOf } from "../executor/run-batch.ts";
import { imageStub } from "../sandbox/images.ts";

export class Home extends RpcTarget implements HomeRpc {
  readonly #env: Env;
  readonly #left = Promise.withResolvers<void>();

  constructor(env: Env) {
    super();
    this.#env = env;
  }

  /** Resolves when nobody can ask any more. */
  get left(): Promise<void> {
    return this.#left.promise;
  }

  settle(goalId: string, lines: string): Promise<void> {
    return settlerOf(this.#env.GOAL)(goalId, lines);
  }

  async ask(goalId: string, asks: readonly GoalAsk[]): Promise<readonly Answer<string>[]> {
    const { GOAL } = this.#env;
    return [...(await (GOAL.get(GOAL.idFromName(goalId)) as unknown as GoalAskRpc).ask(asks))];
  }

  hand(gate: string, request: HandRequest): Promise<HandRpc> {
    const { GATE } = this.#env;
    return (GATE.get(GATE.idFromName(gate)) as unknown as HandsRpc).hand(request);
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
