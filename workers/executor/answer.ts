/**
 * The way in: from an upstream's answer to a payload, which is JSON text
 * without a newline. JSON stays the text that it was, so that big integers
 * survive. Never holds more of an answer than RESPONSE_BYTES_MAX.
 */
import { concatBytes } from "../../shared/bytes.ts";
import { RESPONSE_BYTES_MAX } from "../../shared/limits.ts";
import { countAt } from "../../shared/policy/pointer.ts";
import { base64Of } from "../kit/base64.ts";
import { isJsonType } from "./request.ts";

/** Quoted text can be six times as long as it was; what is more than twice as long does not fit an isolate's share. */
const PAYLOAD_CHARS_MAX = 2 * RESPONSE_BYTES_MAX;
const EXCERPT_CHARS_MAX = 1_000;
// Looking up a header that is not there is a cost as well, so a plain 200 is asked for few.
const KEPT_HEADERS = ["etag", "link", "last-modified"];
const KEPT_HEADERS_OF_OTHERS = [...KEPT_HEADERS, "location", "content-location", "retry-after"];
const TEXT_TYPE = /^text\/|[/+]xml|javascript|x-www-form-urlencoded|;\s*charset=/i;
const CHARSET = /;\s*charset="?([^";\s]+)/i;
const NEWLINES = /[\r\n]+/g;
const NO_BODY_STATUSES: ReadonlySet<number> = new Set([204, 205, 304]);

// Shared: neither keeps anything between calls, and one a call is a tenth of the call's cost.
const lenient = new TextDecoder();
const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: false });

/** An answer that has been read: JSON or other text as `text`, anything else as `bytes`, or neither for no body. */
export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly contentType: string;
  readonly text: string | null;
  readonly bytes: Uint8Array | null;
}

async function discard(response: Response): Promise<null> {
  await response.body?.cancel().catch(() => undefined);
  return null;
}

/** Reads to the end, or gives null and closes the connection once there is more than the limit. */
async function readBounded(response: Response): Promise<Uint8Array | null> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  if (response.body !== null) {
    const reader: ReadableStreamDefaultReader<Uint8Array> = response.body.getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      size += value.byteLength;
      if (size > RESPONSE_BYTES_MAX) {
        await reader.cancel().catch(() => undefined);
        return null;
      }
      chunks.push(value);
    }
  }
  return concatBytes(chunks);
}

/** The decoder that the content type asks for; null where the bytes are not text, or in an unknown charset. */
function decoderFor(contentType: string): TextDecoder | null {
  if (isJsonType(contentType)) return lenient;
  if (!TEXT_TYPE.test(contentType)) return null;
  const charset = CHARSET.exec(contentType)?.[1]?.toLowerCase() ?? "utf-8";
  if (charset === "utf-8" || charset === "utf8") return lenient;
  try {
    return new TextDecoder(charset);
  } catch {
    return null;
  }
}

/** Null where the bytes are not UTF-8. */
function guessText(bytes: Uint8Array): string | null {
  try {
    return strict.decode(bytes);
  } catch {
    return null;
  }
}

/** What the head of an answer says of its body. */
export interface Head {
  readonly status: number;
  readonly headers: Headers;
  readonly contentType: string;
  /** There is no body to read, whatever the headers say. */
  readonly isEmpty: boolean;
  /** The body is text of a known, bearable length: `response.text()` will do. */
  readonly isPlain: boolean;
}

export function headOf(response: Response, method: string): Head {
  const { status, headers } = response;
  const contentType = headers.get("content-type") ?? "";
  const isEmpty = method === "HEAD" || NO_BODY_STATUSES.has(status);
  const length = headers.get("content-length");
  const isShort = length !== null && Number(length) <= RESPONSE_BYTES_MAX;
  // The declared length holds, unless it is that of packed bytes.
  const isPlain = !isEmpty && isShort && decoderFor(contentType) === lenient && headers.get("content-encoding") === null;
  return { status, headers, contentType, isEmpty, isPlain };
}

export function plainAnswer({ status, headers, contentType }: Head, text: string): Answer {
  return { status, headers, contentType, text: text === "" ? null : text, bytes: null };
}

/** Null: there is more than RESPONSE_BYTES_MAX; the connection is closed. Throws what reading throws. */
export async function readAnswer(response: Response, { status, headers, contentType, isEmpty }: Head): Promise<Answer | null> {
  const about = { status, headers, contentType };
  if (isEmpty) return { ...about, text: null, bytes: null };
  if (Number(headers.get("content-length")) > RESPONSE_BYTES_MAX) return discard(response);
  const bytes = await readBounded(response);
  if (bytes === null) return null;
  if (bytes.byteLength === 0) return { ...about, text: null, bytes: null };
  const decoder = decoderFor(contentType);
  const text = decoder !== null ? decoder.decode(bytes) : contentType === "" ? guessText(bytes) : null;
  return { ...about, text, bytes: text === null ? bytes : null };
}

export interface Usage {
  readonly tokens: number;
  readonly costMicros: number;
}

const NO_USAGE: Usage = { tokens: 0, costMicros: 0 };

/** What a JSON answer says that it used, by JSON pointers into it; 0 where it says nothing. */
export function usageOf(answer: Answer, tokens: string | null, costMicros: string | null): Usage {
  if ((tokens ?? costMicros) === null || answer.text === null || !isJsonType(answer.contentType)) return NO_USAGE;
  try {
    const document: unknown = JSON.parse(answer.text);
    const count = (pointer: string | null): number => (pointer === null ? 0 : countAt(document, pointer));
    return { tokens: count(tokens), costMicros: count(costMicros) };
  } catch {
    return NO_USAGE;
  }
}

/** The same JSON on one line, or null where it is not JSON. Strings in JSON have no raw newlines, so all newlines are space. */
export function jsonLine(text: string): string | null {
  try {
    JSON.parse(text);
  } catch {
    return null;
  }
  return text.includes("\n") || text.includes("\r") ? text.replace(NEWLINES, " ") : text;
}

function headersPart(answer: Answer, json: boolean): string {
  let kept: Record<string, string> | null = null;
  if (!json && answer.contentType !== "") kept = { "content-type": answer.contentType };
  for (const name of answer.status === 200 ? KEPT_HEADERS : KEPT_HEADERS_OF_OTHERS) {
    const value = answer.headers.get(name);
    if (value !== null) (kept ??= {})[name] = value;
  }
  return kept === null ? "" : `,"headers":${JSON.stringify(kept)}`;
}

/** A `CallResult` as JSON text; null where it would be too long to keep. */
export function resultOf(answer: Answer): string | null {
  const { status, contentType, text, bytes } = answer;
  const json = text !== null && isJsonType(contentType) ? jsonLine(text) : null;
  const headers = headersPart(answer, json !== null || (text === null && bytes === null));
  const encoding = bytes === null ? "" : `,"encoding":"base64"`;
  const body = json ?? (bytes !== null ? `"${base64Of(bytes)}"` : JSON.stringify(text));
  return body.length > PAYLOAD_CHARS_MAX ? null : `{"status":${status}${headers}${encoding},"body":${body}}`;
}

/** The beginning of the answer's text, for a person who looks for the fault. */
export function excerptOf(answer: Answer): string {
  return answer.text === null ? "" : answer.text.slice(0, EXCERPT_CHARS_MAX).trim();
}
