/**
 * One caller's place at a gate. The runtime disposes of it when the caller
 * lets go or is gone, in some versions not before what it waits for on it has
 * come; it then gives back what it holds.
 */
import { RpcTarget } from "cloudflare:workers";
import type { CallEnd } from "../../shared/policy/outcome.ts";
import type { WholeAnswer } from "../../shared/rpc-flight.ts";
import type { Answer, Opening, PassRequest, PassRpc } from "../../shared/rpc.ts";

export interface Visit {
  readonly request: PassRequest;
  readonly untilMs: number;
  readonly avoid: readonly number[];
  /** Its caller has gone, or has said how the call ended. */
  isOver: boolean;
}

export interface Doorkeeper<V extends Visit> {
  admit(visit: V): Promise<Answer<{ readonly opening: Opening } | { readonly replay: WholeAnswer }>>;
  renew(visit: V): number;
  /** `end` is null where the caller has gone without a word. */
  leave(visit: V, end: CallEnd | null, answer: WholeAnswer | null | undefined): void;
}

export class Pass<V extends Visit> extends RpcTarget implements PassRpc {
  readonly #keeper: Doorkeeper<V>;
  readonly #visit: V;

  constructor(keeper: Doorkeeper<V>, visit: V) {
    super();
    this.#keeper = keeper;
    this.#visit = visit;
  }

  opened(): Promise<Answer<{ readonly opening: Opening } | { readonly replay: WholeAnswer }>> {
    return this.#keeper.admit(this.#visit);
  }

  async renew(): Promise<number> {
    return this.#keeper.renew(this.#visit);
  }

  async done(end: CallEnd, answer?: WholeAnswer | null): Promise<void> {
    this.#leave(end, answer);
  }

  [Symbol.dispose](): void {
    this.#leave(null, undefined);
  }

  #leave(end: CallEnd | null, answer: WholeAnswer | null | undefined): void {
    if (this.#visit.isOver) return;
    this.#visit.isOver = true;
    this.#keeper.leave(this.#visit, end, answer);
  }
}
