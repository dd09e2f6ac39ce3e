/**
 * Request bodies, read whole before anything is kept: a body that is too large
 * or breaks off midway leaves no trace. The bound holds by `Content-Length`
 * where there is one, and by counting where there is none. What is refused is
 * let pass unread, because a client that is still sending hears no answer.
 */
import type { Next } from "hono";
import { concatBytes } from "../../../shared/bytes.ts";
import { type Failure, failure } from "../../../shared/errors.ts";
import { BODY_BYTES_MAX } from "../../../shared/limits.ts";
import { err, ok } from "../../../shared/result.ts";
import type { Answer } from "../../../shared/rpc.ts";
import type { EdgeContext } from "../context.ts";

export interface Body {
  readonly bytes: Uint8Array;
  /** Type and subtype in lower case; empty where the request names none. */
  readonly mediaType: string;
}

export type JsonObject = Readonly<Record<string, unknown>>;

/** How much of a refused body is let pass. */
const DISCARDED_BYTES_MAX = 4 * BODY_BYTES_MAX;

const JSON_TYPE = /^application\/(?:json|[a-z0-9.+-]+\+json)$/;
const NDJSON_TYPE = /^application\/(?:x-ndjson|ndjson|jsonl)$/;

const invalid = (detail: string): { readonly ok: false; readonly error: Failure } => err(failure("invalid_request", detail));

function tooLarge(): { readonly ok: false; readonly error: Failure } {
  return err(failure("payload_too_large", `the body must have at most ${BODY_BYTES_MAX} bytes; send it in several requests`));
}

/** Reads on without keeping anything; a client that goes on past the bound is cut off. */
async function discard(reader: ReadableStreamDefaultReader<Uint8Array>): Promise<void> {
  let size = 0;
  try {
    while (size <= DISCARDED_BYTES_MAX) {
      const { done, value } = await reader.read();
      if (done) return;
      size += value.byteLength;
    }
    await reader.cancel("the body is too large");
  } catch {
    // The client has left, so nobody waits for the rest.
  }
}

/** Lets a body pass that no handler wanted. The runtime would close the connection on a client that is still sending it. */
export async function passUnread(c: EdgeContext, next: Next): Promise<void> {
  await next();
  const { body, bodyUsed } = c.req.raw;
  // A locked one is on its way to an upstream.
  if (body !== null && !bodyUsed && !body.locked) await discard(body.getReader());
}

/** The chunks as one; null past the bound. */
async function counted(stream: ReadableStream<Uint8Array>): Promise<Uint8Array | null> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  const reader = stream.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    size += value.byteLength;
    if (size > BODY_BYTES_MAX) {
      await discard(reader);
      return null;
    }
    chunks.push(value);
  }
  return concatBytes(chunks);
}

/** The whole body. One that is declared with its length is read in one piece, which is the fast way. */
export async function readBody(request: Request): Promise<Answer<Body>> {
  const encoding = request.headers.get("content-encoding") ?? "identity";
  if (encoding !== "identity") return invalid(`the body must be sent without Content-Encoding, not as "${encoding.slice(0, 64)}"`);
  const mediaType = (request.headers.get("content-type") ?? "").split(";", 1)[0]!.trim().toLowerCase();
  const bytes = await readBytes(request);
  return bytes.ok ? ok({ bytes: bytes.value, mediaType }) : bytes;
}

/** The body's bytes, whatever they are. */
export async function readBytes(request: Request): Promise<Answer<Uint8Array>> {
  if (request.body === null) return ok(new Uint8Array());
  const declared = request.headers.get("content-length");
  if (Number(declared) > BODY_BYTES_MAX) return tooLarge();
  try {
    const bytes = declared === null ? await counted(request.body) : new Uint8Array(await request.arrayBuffer());
    return bytes === null || bytes.byteLength > BODY_BYTES_MAX ? tooLarge() : ok(bytes);
  } catch {
    return invalid("the body broke off before its end; nothing of it was kept");
  }
}

/** How a body of tasks is written. A request that does not say sends JSON. */
export function taskFormat(body: Body): Answer<"json" | "ndjson"> {
  if (body.mediaType === "" || JSON_TYPE.test(body.mediaType)) return ok("json");
  if (NDJSON_TYPE.test(body.mediaType)) return ok("ndjson");
  return invalid(`the Content-Type must be application/json or application/x-ndjson, not "${body.mediaType.slice(0, 64)}"`);
}

function decoded(bytes: Uint8Array): string | null {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: false }).decode(bytes);
  } catch {
    return null;
  }
}

/** The body as a JSON object; no body at all is an empty one. */
export function jsonObjectOf(body: Body): Answer<JsonObject> {
  if (body.bytes.byteLength === 0) return ok({});
  if (body.mediaType !== "" && !JSON_TYPE.test(body.mediaType)) {
    return invalid(`the Content-Type must be application/json, not "${body.mediaType.slice(0, 64)}"`);
  }
  const text = decoded(body.bytes);
  if (text === null) return invalid("the body is not valid UTF-8");
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    return invalid(`the body is not JSON: ${(error as Error).message}`);
  }
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return ok(value as JsonObject);
  return invalid("the body must be a JSON object");
}

export async function readJsonObject(request: Request): Promise<Answer<{ readonly body: Body; readonly value: JsonObject }>> {
  const body = await readBody(request);
  if (!body.ok) return body;
  const value = jsonObjectOf(body.value);
  return value.ok ? ok({ body: body.value, value: value.value }) : value;
}

/** The value as JSON text. What can be parsed may still be nested too deeply to be written. */
export function jsonText(value: unknown): Answer<string> {
  try {
    return ok(JSON.stringify(value));
  } catch {
    return invalid("the body is nested too deeply");
  }
}
