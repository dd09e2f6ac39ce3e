/** Reading and writing WebAssembly's binary format: integers in LEB128, and sections. WebAssembly Core 2.0, chapter 5. */

export class Reader {
  readonly bytes: Uint8Array;
  at: number;

  constructor(bytes: Uint8Array, at = 0) {
    this.bytes = bytes;
    this.at = at;
  }

  byte(): number {
    const byte = this.bytes.at(this.at++);
    if (byte === undefined) throw new Error("the module breaks off");
    return byte;
  }

  u32(): number {
    let value = 0;
    for (let shift = 0; ; shift += 7) {
      const byte = this.byte();
      value += (byte & 0x7f) * 2 ** shift;
      if (byte < 0x80) return value;
    }
  }

  /** Any integer in LEB128, whatever it is worth. */
  skipInteger(): void {
    while (this.byte() >= 0x80);
  }

  skip(count: number): void {
    this.at += count;
  }

  take(count: number): Uint8Array {
    return this.bytes.subarray(this.at, (this.at += count));
  }
}

export type Bytes = ArrayLike<number>;

export function u32(value: number): number[] {
  const bytes: number[] = [];
  for (let rest = value; ; rest = Math.floor(rest / 128)) {
    if (rest < 128) return [...bytes, rest];
    bytes.push((rest % 128) | 0x80);
  }
}

/** A vector: how many, and their bytes. */
export const vector = (count: number, bytes: Bytes): Uint8Array => concat([u32(count), bytes]);

export function concat(parts: readonly Bytes[]): Uint8Array<ArrayBuffer> {
  const size = parts.reduce((sum, part) => sum + part.length, 0);
  const all = new Uint8Array(size);
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

const HEADER_BYTES = 8;

export interface Section {
  readonly id: number;
  readonly body: Uint8Array;
}

/** The sections of a module, in their order. */
export function sectionsOf(bytes: Uint8Array): Section[] {
  const reader = new Reader(bytes, HEADER_BYTES);
  const sections: Section[] = [];
  while (reader.at < bytes.length) {
    const id = reader.byte();
    sections.push({ id, body: reader.take(reader.u32()) });
  }
  return sections;
}

export function moduleOf(bytes: Uint8Array, sections: readonly Section[]): Uint8Array<ArrayBuffer> {
  const parts = sections.flatMap(({ id, body }): Bytes[] => [[id], u32(body.length), body]);
  return concat([bytes.subarray(0, HEADER_BYTES), ...parts]);
}
