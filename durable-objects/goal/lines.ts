/**
 * Where result lines are kept. Lines of one commit share rows of the log; a
 * large line gets chunk rows of its own, and a mark in its place.
 */
import { INLINE_PAYLOAD_BYTES_MAX, ROW_CHARS_MAX } from "../../shared/limits.ts";
import type { Place } from "./core/recorder.ts";

export const LARGE_MARK = "#";

/** A line with rows of its own. */
export interface LargeLine extends Place {
  readonly line: string;
}

/** Gathers the lines of one commit and gives each its address. */
export class LineKeeper {
  readonly #firstRow: number;
  /** The text of each row, in order. */
  readonly rows: string[][] = [[]];
  readonly large: LargeLine[] = [];
  #chars = 0;

  constructor(firstRow: number) {
    this.#firstRow = firstRow;
  }

  keep(text: string): Place {
    const line = text.endsWith("\n") ? text.slice(0, -1) : text;
    const isLarge = line.length > INLINE_PAYLOAD_BYTES_MAX;
    const kept = isLarge ? LARGE_MARK : line;
    if (this.#chars + kept.length > ROW_CHARS_MAX) {
      this.rows.push([]);
      this.#chars = 0;
    }
    this.#chars += kept.length + 1;
    const index = this.rows.at(-1)!.push(kept) - 1;
    const place = { row: this.#firstRow + this.rows.length - 1, index };
    if (isLarge) this.large.push({ ...place, line });
    return place;
  }
}

/** Cuts text into rows' worth; no text gives one empty piece. */
export function piecesOf(text: string): string[] {
  const pieces: string[] = [];
  for (let at = 0; at === 0 || at < text.length; at += ROW_CHARS_MAX) pieces.push(text.slice(at, at + ROW_CHARS_MAX));
  return pieces;
}
