/**
 * What an answer says that it used, read from the end of its body as it
 * passes: the last event that tells it, of server-sent events, or the document
 * itself. Only so much of the end is kept, and nothing is held back for it.
 */
import { concatBytes } from "../../../shared/bytes.ts";
import { countAt } from "../../../shared/policy/pointer.ts";

const KEPT_BYTES_MAX = 256 * 1024;
const EVENTS = /^text\/event-stream\b/i;
const DATA = "data:";

/** The count in a JSON text; 0 where it is none. */
function countIn(text: string, pointer: string): number {
  try {
    return countAt(JSON.parse(text), pointer);
  } catch {
    return 0;
  }
}

export class UsageReader {
  readonly #pointer: string;
  readonly #isEvents: boolean;
  #chunks: Uint8Array[] = [];
  #size = 0;
  #isCut = false;

  constructor(pointer: string, contentType: string) {
    this.#pointer = pointer;
    this.#isEvents = EVENTS.test(contentType);
  }

  readonly see = (chunk: Uint8Array): void => {
    this.#chunks.push(chunk);
    this.#size += chunk.byteLength;
    while (this.#size - this.#chunks[0]!.byteLength >= KEPT_BYTES_MAX) {
      this.#size -= this.#chunks.shift()!.byteLength;
      this.#isCut = true;
    }
  };

  /** Once the body has passed. 0 where it says nothing. */
  tokens(): number {
    const text = new TextDecoder().decode(concatBytes(this.#chunks));
    // Half a document says nothing.
    if (!this.#isEvents) return this.#isCut ? 0 : countIn(text, this.#pointer);
    for (const line of text.split(/\r\n|\r|\n/).toReversed()) {
      const tokens = line.startsWith(DATA) ? countIn(line.slice(DATA.length), this.#pointer) : 0;
      if (tokens > 0) return tokens;
    }
    return 0;
  }
}
