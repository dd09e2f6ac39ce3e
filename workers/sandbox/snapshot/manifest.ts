/** What is needed beside its bytes to restore an image, and how an image is stored. */
import { concatBytes } from "../../../shared/bytes.ts";
import type { Extent } from "./extents.ts";

/** Functions of the prelude that the host calls, as the guest's addresses, which are the same in every instance. */
export interface Entries {
  readonly invoke: number;
  readonly settle: number;
  readonly fire: number;
  readonly stop: number;
  /** A place for the addresses of arguments. */
  readonly values: number;
}

export interface Manifest {
  /** Where the image begins, which is also the stack pointer at rest: what is below is dead stack. */
  readonly start: number;
  /** Memory, in pages of 64 KiB. */
  readonly pages: number;
  /** What of the memory is not zero; the image is their bytes. */
  readonly extents: readonly Extent[];
  /** What an invocation may allocate beyond that. */
  readonly memoryBytes: number;
  /** Where the state of `Math.random` is. */
  readonly seed: number;
  readonly entries: Entries;
  /** The source map of the bundle without its sources; left out where it has none. */
  readonly map?: string;
}

async function through(bytes: Uint8Array, stream: CompressionStream | DecompressionStream): Promise<Uint8Array<ArrayBuffer>> {
  const chunks: Uint8Array[] = [];
  const body = new Response(bytes as Uint8Array<ArrayBuffer>).body!;
  for await (const chunk of body.pipeThrough(stream as ReadableWritablePair<Uint8Array, Uint8Array>)) chunks.push(chunk);
  return concatBytes(chunks) as Uint8Array<ArrayBuffer>;
}

export const packed = (bytes: Uint8Array): Promise<Uint8Array> => through(bytes, new CompressionStream("gzip"));
export const unpacked = (bytes: Uint8Array): Promise<Uint8Array<ArrayBuffer>> => through(bytes, new DecompressionStream("gzip"));
