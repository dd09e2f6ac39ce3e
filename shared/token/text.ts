/**
 * How a token is written: canonical JSON in ASCII, and base64url without
 * padding (RFC 4648 §5). Both have exactly one spelling for a value, and the
 * readers refuse every other one, so no two texts are the same token.
 */
const ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const VALUES = new Int8Array(128).fill(-1);
for (let i = 0; i < ALPHABET.length; i++) VALUES[ALPHABET.charCodeAt(i)] = i;

export function base64url(bytes: Uint8Array): string {
  let text = "";
  let at = 0;
  for (; at + 2 < bytes.length; at += 3) {
    const bits = (bytes[at]! << 16) | (bytes[at + 1]! << 8) | bytes[at + 2]!;
    text += ALPHABET[bits >> 18]! + ALPHABET[(bits >> 12) & 63]! + ALPHABET[(bits >> 6) & 63]! + ALPHABET[bits & 63]!;
  }
  const rest = bytes.length - at;
  if (rest === 0) return text;
  const bits = (bytes[at]! << 16) | ((bytes[at + 1] ?? 0) << 8);
  return text + ALPHABET[bits >> 18]! + ALPHABET[(bits >> 12) & 63]! + (rest === 2 ? ALPHABET[(bits >> 6) & 63]! : "");
}

/** The bytes; null where the text is not how `base64url` writes any. */
export function fromBase64url(text: string): Uint8Array | null {
  const rest = text.length % 4;
  if (rest === 1) return null;
  const bytes = new Uint8Array(Math.floor((text.length * 3) / 4));
  let size = 0;
  let bits = 0;
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at);
    const value = code < 128 ? VALUES[code]! : -1;
    if (value < 0) return null;
    bits = ((bits << 6) | value) & 0xffffff;
    const place = at % 4;
    if (place > 0) bytes[size++] = (bits >> (6 - 2 * place)) & 255;
  }
  const unused = rest === 0 ? 0 : rest === 2 ? 15 : 3;
  return (bits & unused) === 0 ? bytes : null;
}

/** The bytes of a text that has ASCII characters only. */
export function asciiBytes(text: string): Uint8Array {
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

/** The other way round. A token has no more bytes than a call has room for. */
export function asciiText(bytes: Uint8Array): string {
  return String.fromCharCode.apply(null, bytes as unknown as number[]);
}

// What is not ASCII is escaped, as is DEL.
// oxlint-disable-next-line no-control-regex
const IS_ASCII = /^[\x00-\x7e]*$/;
const NOT_ASCII = /[\u007f-\uffff]/g;

const escaped = (char: string): string => `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`;

/** JSON with properties in the order of their names, without white space, in ASCII. */
export function canonicalJson(value: unknown): string {
  const text = JSON.stringify(isSorted(value) ? value : sorted(value));
  return IS_ASCII.test(text) ? text : text.replaceAll(NOT_ASCII, escaped);
}

/** What was canonical once mostly comes back in order. */
function isSorted(value: unknown): boolean {
  if (typeof value !== "object" || value === null) return true;
  if (Array.isArray(value)) return value.every(isSorted);
  let last = "";
  for (const name in value) {
    if (name < last || !isSorted((value as Readonly<Record<string, unknown>>)[name])) return false;
    last = name;
  }
  return true;
}

/** The value with the properties of its objects in order. Names that look like numbers would come first: no caveat has one. */
function sorted(value: unknown): unknown {
  if (typeof value !== "object" || value === null) return value;
  if (Array.isArray(value)) return value.map(sorted);
  const object = value as Readonly<Record<string, unknown>>;
  const made: Record<string, unknown> = {};
  for (const name of Object.keys(object).sort()) made[name] = sorted(object[name]);
  return made;
}
