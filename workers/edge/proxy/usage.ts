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

/** JSON pointers to what is counted; null where it is not. */
interface Pointers {
  readonly tokens: string | null;
  readonly costMicros: string | null;
}

interface Usage {
  readonly tokens: number;
  readonly costMicros: number;
}

const NOTHING: Usage = { tokens: 0, costMicros: 0 };

/** The counts in a JSON text; 0 where there are none. */
function usageIn(text: string, pointers: Pointers): Usage {
  try {
    const document: unknown = JSON.parse(text);
    const count = (pointer: string | null): number => (pointer === null ? 0 : countAt(document, pointer));
    return { tokens: count(pointers.tokens), costMicros: count(pointers.costMicros) };
  } catch {
    return NOTHING;
  }
}

export class UsageReader {
  readonly #pointers: Pointers;
  readonly #isEvents: boolean;
  #chunks: Uint8Array[] = [];
  #size = 0;
  #isCut = false;

  constructor(pointers: Pointers, contentType: string) {
    this.#pointers = pointers;
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
  usage(): Usage {
    const text = new TextDecoder().decode(concatBytes(this.#chunks));
    // Half a document says nothing.
    if (!this.#isEvents) return this.#isCut ? NOTHING : usageIn(text, this.#pointers);
    for (const line of text.split(/\r\n|\r|\n/).toReversed()) {
      const usage = line.startsWith(DATA) ? usageIn(line.slice(DATA.length), this.#pointers) : NOTHING;
      if (usage.tokens + usage.costMicros > 0) return usage;
    }
    return NOTHING;
  }
}
