/** What a handler asks for, from JSON text to a call that can be sent. Bad arguments are the handler's error. */
import type { Fault } from "../../../shared/errors.ts";
import { KEY_CHARS_MAX } from "../../../shared/limits.ts";
import { IDEMPOTENT_METHODS, isTaskSpec, type Reserve, SAFE_METHODS } from "../../../shared/protocol/task.ts";
import { taskFaults } from "../../../shared/protocol/task-schema.ts";
import { HostError } from "../../sandbox/types.ts";
import { bodyOf } from "../request.ts";

export interface WantedCall {
  readonly upstream: string;
  readonly method: string;
  /** Path and query. */
  readonly path: string;
  /** Names in lower case. */
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string | Uint8Array | undefined;
  readonly isIdempotent: boolean;
  /** Whether it may be open twice at once; null where that is for its upstream to say. */
  readonly mayBeTwice: boolean | null;
  readonly reserve: Reserve | undefined;
  readonly timeoutMs: number | undefined;
  /** The handler's own name for the call. */
  readonly key: string | undefined;
}

type Json = Readonly<Record<string, unknown>>;

/** Numbers are the keys of calls that have none. */
const KEY = /^(?!\d+$)[!-~]+$/;
const HTTP_URL = /^https?:\/\//i;
const NO_BODY_METHODS: ReadonlySet<unknown> = new Set([undefined, "GET", "HEAD"]);

const invalid = (detail: string): HostError => new HostError("invalid_request", detail);
const isObject = (value: unknown): value is Json => typeof value === "object" && value !== null && !Array.isArray(value);

export function objectIn(args: string, what: string): Json {
  const value: unknown = JSON.parse(args);
  if (!isObject(value)) throw invalid(`${what} takes an object`);
  return value;
}

/** `{method?, path, headers?, body?, encoding?, …}` as a task's call has it, so that both are held to the same rules. */
function callFrom(upstream: unknown, request: Json, isRaw: boolean): WantedCall {
  const { method, path, headers, body, encoding, idempotent, reserve, timeoutMs, key, ...rest } = request;
  const unknown = Object.keys(rest)[0];
  if (unknown !== undefined) throw invalid(`a call has no "${unknown}"`);
  if (encoding !== undefined && encoding !== "base64") throw invalid('the encoding of a body is "base64", or left out');
  if (key !== undefined && !(typeof key === "string" && key.length <= KEY_CHARS_MAX && KEY.test(key))) {
    throw invalid(`the key of a call is 1 to ${KEY_CHARS_MAX} printable characters without spaces, and not a number`);
  }
  const hasBody = body !== undefined && body !== null;
  const sent = hasBody ? (encoding === "base64" ? { bodyBase64: body } : { body }) : {};
  const given = Object.fromEntries(
    Object.entries({ upstream, method, path, headers, idempotent }).filter(([, value]) => value !== undefined),
  );
  const bounds = Object.fromEntries(Object.entries({ reserve, timeoutMs }).filter(([, value]) => value !== undefined));
  const spec: unknown = { ...bounds, call: { ...given, ...sent } };
  if (hasBody && NO_BODY_METHODS.has(method)) throw invalid(`a call with a body needs a method such as POST`);
  if (!isTaskSpec(spec)) throw invalid(detailOf(taskFaults(spec, "")));
  const call = spec.call!;
  const lower = Object.fromEntries(Object.entries(call.headers ?? {}).map(([name, value]) => [name.toLowerCase(), value]));
  return {
    upstream: call.upstream,
    method: call.method ?? "GET",
    path: call.path,
    headers: lower,
    body: bodyOf(call, lower, isRaw),
    isIdempotent: IDEMPOTENT_METHODS.has(call.method ?? "GET") || call.idempotent === true,
    mayBeTwice: call.idempotent ?? (SAFE_METHODS.has(call.method ?? "GET") ? true : null),
    reserve: spec.reserve,
    timeoutMs: spec.timeoutMs,
    key,
  };
}

const detailOf = ([first]: readonly Fault[]): string =>
  first === undefined ? "this is not a call" : `${first.pointer.replace("/call", "") || "the call"} ${first.detail}`;

/** `{upstream, request}`. */
export function wantedCall(args: string): WantedCall {
  const { upstream, request } = objectIn(args, "ctx.call");
  if (!isObject(request)) throw invalid('ctx.call takes a request such as {path: "/"}');
  return callFrom(upstream, request, false);
}

/** `{url, init}`. The upstream is found by the origin. */
export async function wantedFetch(args: string, upstreamAt: (origin: string) => Promise<string | null>): Promise<WantedCall> {
  const { url: text, init = {} } = objectIn(args, "ctx.fetch");
  const url = typeof text === "string" && HTTP_URL.test(text) ? URL.parse(text) : null;
  if (url === null) throw invalid("ctx.fetch takes a URL that begins with http:// or https://");
  if (url.username !== "" || url.password !== "") throw invalid("the URL must not carry credentials; an upstream's headers can");
  if (!isObject(init)) throw invalid("the second argument of ctx.fetch is an object");
  const upstream = await upstreamAt(url.origin);
  if (upstream === null) {
    throw new HostError(
      "permission_denied",
      `${url.origin} is not the origin of an upstream, and functions call nothing else; PUT /v1/upstreams/{name} with {"origin": "${url.origin}"} makes it one`,
    );
  }
  const method = typeof init["method"] === "string" ? init["method"].toUpperCase() : init["method"];
  return callFrom(upstream, { ...init, method, path: url.pathname + url.search }, true);
}
