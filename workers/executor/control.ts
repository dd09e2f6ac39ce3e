/**
 * The goal's hand in a batch that is still running. It holds the invocation
 * open until the goal disposes of it.
 */
import { RpcTarget } from "cloudflare:workers";
import type { BatchControl } from "../../shared/rpc-batch.ts";

export class Control extends RpcTarget implements BatchControl {
  readonly #verbs: BatchControl;

  constructor(verbs: BatchControl) {
    super();
    this.#verbs = verbs;
  }

  abort(attempts: readonly (readonly [number, number])[]): void {
    this.#verbs.abort(attempts);
  }

  renew(permitMs: number): void {
    this.#verbs.renew(permitMs);
  }

  stop(): void {
    this.#verbs.stop();
  }
}
