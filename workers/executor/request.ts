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

/** 16 hex digits, the same for the same attempt, unique in its trace and never all zero. */
export function spanOf(task: number, attempt: number): string {
  return (task + 1).toString(16).padStart(SPAN_HALF, "0") + attempt.toString(16).padStart(SPAN_HALF, "0");
}

/** W3C Trace Context, version 00, sampled. */
function traceparentOf(traceId: string, item: BatchItem): string {
  return `00-${traceId}-${spanOf(item.task, item.attempt)}-01`;
}

/** The body to send, or undefined. Fills in the content type of JSON. */
function bodyOf(item: BatchItem, headers: Headers): string | Uint8Array | undefined {
  if (item.bodyBase64 !== undefined) return bytesOf(item.bodyBase64);
  if (item.body === undefined) return undefined;
  const contentType = headers["content-type"];
  if (contentType === undefined) headers["content-type"] = "application/json";
  else if (typeof item.body === "string" && !isJsonType(contentType)) return item.body;
  return JSON.stringify(item.body);
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
  headers["traceparent"] = traceparentOf(batch.traceId, item);
  const init: RequestInit = { method: item.method, headers, redirect: "manual", signal };
  if (body !== undefined) init.body = body;
  return init;
}
