/** Keeps a batch's home for as long as something of the batch goes on: the runtime lets go of it when the call has been answered. */
import type { HomeRpc } from "../../shared/rpc-processes.ts";

/** A stub of the runtime. */
type Stub<T> = T & Disposable & { dup(): Stub<T> };

export class Lease {
  readonly home: Stub<HomeRpc>;
  #uses = 1;

  constructor(home: HomeRpc) {
    this.home = (home as Stub<HomeRpc>).dup();
  }

  /** For the work, and for whatever it asks to wait for. */
  static async during<T>(home: HomeRpc, work: (lease: Lease) => Promise<T>): Promise<T> {
    const lease = new Lease(home);
    try {
      return await work(lease);
    } finally {
      lease.#end();
    }
  }

  until(work: Promise<unknown>): void {
    this.#uses++;
    const end = (): void => this.#end();
    work.then(end, end);
  }

  #end(): void {
    if (--this.#uses === 0) this.home[Symbol.dispose]();
  }
}
