/**
 * A body on its way to the caller. Nothing is held back: without a reader of
 * its own the runtime moves the bytes and no code runs for them. A tail reader
 * sees each chunk as it passes, and goes on when the caller has gone.
 */

/** Sees what passes. False: it has seen enough. */
export type Tail = (chunk: Uint8Array) => boolean;

export interface Piped {
  readonly readable: ReadableStream<Uint8Array>;
  /** Resolves when the whole body has passed; rejects where it broke off, at either end. */
  readonly ended: Promise<void>;
}

/** `length` is that of the body's bytes, where it is known: the answer then says so too. */
export function pipe(body: ReadableStream<Uint8Array>, length: number | null, tail: Tail | null): Piped {
  const { readable, writable } = length === null ? new IdentityTransformStream() : new FixedLengthStream(length);
  return { readable, ended: tail === null ? body.pipeTo(writable) : pump(body, writable, tail) };
}

async function pump(body: ReadableStream<Uint8Array>, writable: WritableStream<Uint8Array>, tail: Tail): Promise<void> {
  const reader = body.getReader();
  const writer = writable.getWriter();
  let hasCaller = true;
  let hasTail = true;
  try {
    while (hasCaller || hasTail) {
      const { done, value } = await reader.read();
      if (done) break;
      hasTail &&= tail(value);
      if (hasCaller)
        hasCaller = await writer.write(value).then(
          () => true,
          () => false,
        );
    }
  } catch (error) {
    await writer.abort(error).catch(() => undefined);
    throw error;
  }
  if (hasCaller) await writer.close().catch(() => undefined);
  if (!hasCaller && !hasTail) await reader.cancel("nobody reads on");
}
