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

/** What a row of the log holds: a piece of the changes, and results. */
export interface Row {
  readonly piece: string;
  readonly results: string;
}

const isHighSurrogate = (code: number): boolean => code >= 0xd800 && code < 0xdc00;

/** Cuts the changes into the room that the results leave in each row; there is always one row. */
export function rowsOf(changes: string, lines: readonly (readonly string[])[]): Row[] {
  const rows: Row[] = [];
  for (let at = 0; rows.length < lines.length || rows.length === 0 || at < changes.length;) {
    const results = (lines[rows.length] ?? []).join("\n");
    let end = Math.min(changes.length, at + Math.max(0, ROW_CHARS_MAX - results.length));
    // Half a character is not kept as it is.
    if (end > at && end < changes.length && isHighSurrogate(changes.charCodeAt(end - 1))) end--;
    rows.push({ piece: changes.slice(at, end), results });
    at = end;
  }
  return rows;
}
