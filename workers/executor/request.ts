/**
 * The way out: from an item of a batch to what `fetch` takes. Drover's own
 * headers come last, so nothing that a caller gives can replace them. Header
 * names are in lower case throughout, or two spellings of one name would be
 * sent as two values.
 */
import { bytesOf } from "../kit/base64.ts";
import type { Batch, BatchItem } from "../../shared/rpc-batch.ts";

const JSON_TYPE = /^application\/(?:[^;]+\+)?json\s*(?:;|$)/i;
const SPAN_HALF = 8;

type Headers = Record<string, string>;

export function isJsonType(contentType: string): boolean {
  return contentType === "application/json" || JSON_TYPE.test(contentType);
}

function addHeaders(target: Headers, headers: Readonly<Record<string, string>>): void {
  for (const name in headers) target[name.toLowerCase()] = headers[name]!;
}

/** What every request of the batch carries, unless its task says otherwise. */
export function commonHeaders(batch: Batch): Headers {
  const headers: Headers = {};
  addHeaders(headers, batch.headers);
  return headers;
}

/**
 * 16 hex digits, the same for the same attempt, unique in its trace and never
 * all zero. A call that a function makes has the number of its ask, of which
 * 20 bits count, beside 12 of the attempt.
 */
export function spanOf(task: number, attempt: number, ask = 0): string {
  const rest = ask === 0 ? attempt : (attempt & 0xfff) * 0x100000 + (ask & 0xfffff);
  return (task + 1).toString(16).padStart(SPAN_HALF, "0") + rest.toString(16).padStart(SPAN_HALF, "0");
}

/** W3C Trace Context, version 00, sampled. */
export const traceparentOf = (traceId: string, span: string): string => `00-${traceId}-${span}-01`;

/** The body to send, or undefined. Fills in the content type. `isRaw`: text is sent as it stands, whatever its type. */
export function bodyOf(
  { body, bodyBase64 }: { readonly body?: unknown; readonly bodyBase64?: string | undefined },
  headers: Headers,
  isRaw = false,
): string | Uint8Array | undefined {
  if (bodyBase64 !== undefined) return bytesOf(bodyBase64);
  if (body === undefined) return undefined;
  const contentType = headers["content-type"];
  if (isRaw && typeof body === "string") {
    headers["content-type"] ??= "text/plain;charset=UTF-8";
    return body;
  }
  if (contentType === undefined) headers["content-type"] = "application/json";
  else if (typeof body === "string" && !isJsonType(contentType)) return body;
  return JSON.stringify(body);
}

/** The second argument of `fetch`. `common` comes from `commonHeaders` of the same batch and is not changed. */
export function requestOf(batch: Batch, common: Readonly<Headers>, item: BatchItem, signal: AbortSignal): RequestInit {
  const headers: Headers = { ...common };
  if (item.headers !== undefined) addHeaders(headers, item.headers);
  const body = bodyOf(item, headers);
  headers["idempotency-key"] = item.taskId;
  headers["drover-goal"] = batch.goalId;
  headers["drover-task"] = item.taskId;
  headers["drover-attempt"] = `${item.attempt}`;
  if (item.fence !== undefined) headers["drover-fence"] = item.fence;
  headers["traceparent"] = traceparentOf(batch.traceId, spanOf(item.task, item.attempt));
  const init: RequestInit = { method: item.method, headers, redirect: "manual", signal };
  if (body !== undefined) init.body = body;
  return init;
}
