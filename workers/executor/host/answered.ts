/** An upstream's answer as a handler gets it: a `CallResult` with all headers, as JSON text. */
import { HOST_HEADERS_CHARS_MAX } from "../../../shared/limits.ts";
import { base64Of } from "../../kit/base64.ts";
import { type Answer, jsonLine } from "../answer.ts";
import { isJsonType } from "../request.ts";

/** What belongs to the connection, or is told by the body. */
const NOT_SHOWN: ReadonlySet<string> = new Set([
  "connection",
  "content-encoding",
  "content-length",
  "keep-alive",
  "set-cookie",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade",
]);
const NOT_SHOWN_PREFIX = "proxy-";

function headersOf(headers: Headers): Record<string, string> {
  const shown: Record<string, string> = {};
  let chars = 0;
  // One call of the platform's; an iterator is one for each header.
  headers.forEach((value, name) => {
    if (NOT_SHOWN.has(name) || name.startsWith(NOT_SHOWN_PREFIX)) return;
    chars += name.length + value.length;
    if (chars <= HOST_HEADERS_CHARS_MAX) shown[name] = value;
  });
  return shown;
}

export function answerJson({ status, headers, contentType, text, bytes }: Answer): string {
  const json = text !== null && isJsonType(contentType) ? jsonLine(text) : null;
  const body = json ?? (bytes === null ? JSON.stringify(text) : `"${base64Of(bytes)}"`);
  return `{"status":${status},"headers":${JSON.stringify(headersOf(headers))}${bytes === null ? "" : ',"encoding":"base64"'},"body":${body}}`;
}
