/**
 * Result lines on their way to the goal. A chunk costs about 0.2 ms, more than
 * a call does, so the stream is throttled: the first line after a quiet time
 * leaves at once, then at most one chunk an interval, or a full buffer.
 *
 *   lines   x  x x   xx x        x
 *   chunks  x        x    x      x
 *           |- 50 ms -|- 50 ms -|
 *
 * What waits is bounded: while it is full, `room` holds back whoever would add.
 * Bytes are counted as characters, so a chunk may have three times the bound.
 */
import { EXECUTOR_BUFFER_BYTES_MAX, EXECUTOR_CHUNK_INTERVAL_MS } from "../../shared/limits.ts";

const encoder = new TextEncoder();

/** Whether the character is the first half of a pair, which must not be cut from the second. */
const isHighSurrogate = (code: number): boolean => code >= 0xd800 && code <= 0xdbff;

export class ReplyStream {
  #text = "";
  #hasEnded = false;
  #isReleased = false;
  #sentAtMs = 0;
  /** The last chunk that left: nobody knows whether it arrived. */
  #lastChunk = "";
  #wake: (() => void) | null = null;
  #room: PromiseWithResolvers<void> | null = null;
  readonly #whenFull = Promise.withResolvers<void>();

  get isFull(): boolean {
    return !this.#isReleased && this.#text.length >= EXECUTOR_BUFFER_BYTES_MAX;
  }

  /** Resolves the first time that the buffer is full. */
  get whenFull(): Promise<void> {
    return this.#whenFull.promise;
  }

  append(line: string): void {
    const wasEmpty = this.#text === "";
    this.#text += line;
    if (this.isFull) this.#whenFull.resolve();
    if (wasEmpty || this.isFull) this.#wake?.();
  }

  end(): void {
    this.#hasEnded = true;
    this.#wake?.();
  }

  /** Everything that waits. */
  take(): string {
    const text = this.#text;
    this.#text = "";
    this.#madeRoom();
    return text;
  }

  /** What the reader may not have got: call it after the stream was canceled. */
  takeUnconfirmed(): string {
    const text = this.#lastChunk + this.take();
    this.#lastChunk = "";
    return text;
  }

  /** Resolves when there is room again. */
  room(): Promise<void> {
    this.#room ??= Promise.withResolvers();
    return this.#room.promise;
  }

  /** Nothing is held back any more, because nobody may read again. */
  release(): void {
    this.#isReleased = true;
    this.#madeRoom();
  }

  /** `sentAtMs` is when lines last left, 0 for never. `onCancel` hears that the reader has gone. */
  stream(sentAtMs: number, onCancel: () => void): ReadableStream<Uint8Array> {
    this.#sentAtMs = sentAtMs;
    return new ReadableStream(
      {
        type: "bytes",
        pull: (controller) => this.#pull(controller),
        cancel: () => {
          this.release();
          onCancel();
        },
      },
      { highWaterMark: 0 },
    );
  }

  #madeRoom(): void {
    this.#room?.resolve();
    this.#room = null;
  }

  /** Milliseconds until a chunk is due: none when it is, Infinity when there is nothing. */
  #dueInMs(): number {
    if (this.#hasEnded || this.isFull) return 0;
    if (this.#text === "") return Infinity;
    return this.#sentAtMs + EXECUTOR_CHUNK_INTERVAL_MS - Date.now();
  }

  #changed(withinMs: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = withinMs === Infinity ? null : setTimeout(() => this.#wake?.(), withinMs);
      this.#wake = () => {
        this.#wake = null;
        clearTimeout(timer);
        resolve();
      };
    });
  }

  async #pull(controller: ReadableByteStreamController): Promise<void> {
    for (let dueInMs = this.#dueInMs(); dueInMs > 0; dueInMs = this.#dueInMs()) await this.#changed(dueInMs);
    const chunk = this.#takeChunk();
    if (chunk === "") {
      controller.close();
      // A byte stream's pending read is answered only so.
      controller.byobRequest?.respond(0);
      return;
    }
    this.#sentAtMs = Date.now();
    controller.enqueue(encoder.encode(chunk));
  }

  #takeChunk(): string {
    let chars = EXECUTOR_BUFFER_BYTES_MAX;
    if (isHighSurrogate(this.#text.charCodeAt(chars - 1))) chars++;
    this.#lastChunk = this.#text.slice(0, chars);
    this.#text = this.#text.slice(chars);
    if (!this.isFull) this.#madeRoom();
    return this.#lastChunk;
  }
}
