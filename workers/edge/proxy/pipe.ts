/**
 * A body on its way to the caller. Nothing is held back: without a reader of
 * its own the runtime moves the bytes and no code runs for them. A watcher sees
 * each chunk as it passes, at the caller's pace. A tail reader keeps them, and
 * goes on when the caller has gone.
 */

/** Sees what passes. False: it has seen enough. */
export type Tail = (chunk: Uint8Array) => boolean;

export interface Readers {
  readonly watch: ((chunk: Uint8Array) => void) | null;
  readonly tail: Tail | null;
  /** Whether the tail is worth reading on for when the caller has gone. */
  readonly isTailWanted: () => boolean;
}

export interface Piped {
  readonly readable: ReadableStream<Uint8Array>;
  /** Resolves when the whole body has come; rejects where it broke off, or where its only reader went. */
  readonly ended: Promise<void>;
  /** Settles when the caller has taken it, too. */
  readonly taken: Promise<unknown>;
}

/** `length` is that of the body's bytes, where it is known: the answer then says so too. */
export function pipe(body: ReadableStream<Uint8Array>, length: number | null, readers: Readers): Piped {
  const { readable, writable } = length === null ? new IdentityTransformStream() : new FixedLengthStream(length);
  if (readers.tail === null && readers.watch === null) {
    const ended = body.pipeTo(writable);
    return { readable, ended, taken: ended };
  }
  const caller = new Caller(writable);
  const ended = pump(body, caller, readers);
  return { readable, ended, taken: ended.then(() => caller.close()) };
}

class Caller {
  readonly #writer: WritableStreamDefaultWriter<Uint8Array>;
  #written: Promise<void> = Promise.resolve();
  isGone = false;

  constructor(writable: WritableStream<Uint8Array>) {
    this.#writer = writable.getWriter();
    this.#writer.closed.catch(() => (this.isGone = true));
  }

  /** Resolves when there is room for more. */
  write(chunk: Uint8Array): Promise<void> {
    if (!this.isGone) this.#written = this.#writer.write(chunk).catch(() => void (this.isGone = true));
    return this.#written;
  }

  async close(): Promise<void> {
    await this.#writer.close().catch(() => undefined);
  }

  async abort(error: unknown): Promise<void> {
    await this.#writer.abort(error).catch(() => undefined);
  }
}

/** As long as the tail keeps what passes, a caller that reads slowly holds nobody up. */
async function pump(body: ReadableStream<Uint8Array>, caller: Caller, { watch, tail, isTailWanted }: Readers): Promise<void> {
  const reader = body.getReader();
  let hasTail = tail !== null;
  try {
    while (!caller.isGone || (hasTail && isTailWanted())) {
      const { done, value } = await reader.read();
      if (done) return;
      watch?.(value);
      hasTail &&= tail!(value);
      const written = caller.write(value);
      if (!hasTail) await written;
    }
  } catch (error) {
    await caller.abort(error);
    throw error;
  }
  await reader.cancel("nobody reads on");
  // What was kept must not be taken for the whole.
  if (hasTail) throw new Error("nobody reads on");
}
