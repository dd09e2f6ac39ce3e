/** Keeps a batch's home for as long as something of the batch goes on: the runtime lets go of it when the call has been answered. */
import type { BatchReply } from "../../shared/rpc-batch.ts";
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
      lease.end();
    }
  }

  until(work: Promise<unknown>): void {
    this.#uses++;
    const end = (): void => this.end();
    work.then(end, end);
  }

  /** Whoever took it is done with it. */
  end(): void {
    if (--this.#uses === 0) this.home[Symbol.dispose]();
  }
}

/** A reply whose batch goes on until its stream has been read: whoever reads it may go away, and what is left then goes home. */
export function keptOpen(reply: BatchReply, waitUntil: (work: Promise<unknown>) => void): BatchReply {
  if (typeof reply === "string") return reply;
  const { readable, writable } = new IdentityTransformStream();
  waitUntil(reply.rest.pipeTo(writable).catch(() => undefined));
  return { ...reply, rest: readable };
}
