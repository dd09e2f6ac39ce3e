/**
 * Whether the answer to one call may be the answer to calls that are equal to
 * it. Those that wait while it is under way may have it unless it is for one
 * caller alone, whatever it says about being stored: they are the same caller
 * asking the same at the same time. Later ones may have it only while it is
 * fresh by its own word (RFC 9111 §4.2).
 */
import { FLIGHT_ANSWER_BYTES_MAX, FLIGHT_FRESH_MS_MAX } from "../../../shared/limits-flight.ts";
import { isRefusal } from "../../../shared/policy/outcome.ts";
import { isTrace } from "./key.ts";

/** `failed`: it says nothing that the next try would have to say too. `alone`: it is for its caller. */
export type Sharing = { readonly kind: "shared"; readonly freshMs: number } | { readonly kind: "failed" | "alone" };

/** RFC 9110 §15.1: those that may be stored without a word about it, and so with one. */
const STORABLE: ReadonlySet<number> = new Set([200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501]);
const EVENTS = /^text\/event-stream\b/i;

export function sharingOf(method: string, status: number, headers: Headers, nowMs: number): Sharing {
  if (status >= 500 || isRefusal(status)) return { kind: "failed" };
  const control = directivesOf(headers.get("cache-control"));
  if (isForOne(headers, control)) return { kind: "alone" };
  const isStorable = (method === "GET" || method === "HEAD") && STORABLE.has(status);
  const isStored = isStorable && !control.has("no-store") && !control.has("no-cache");
  return { kind: "shared", freshMs: isStored ? freshMsOf(headers, control, nowMs) : 0 };
}

function isForOne(headers: Headers, control: ReadonlyMap<string, string>): boolean {
  if (headers.has("set-cookie") || control.has("private")) return true;
  // It has no end that is worth waiting for.
  if (EVENTS.test(headers.get("content-type") ?? "") || Number(headers.get("content-length")) > FLIGHT_ANSWER_BYTES_MAX) return true;
  const vary = (headers.get("vary") ?? "").split(",").map((name) => name.trim().toLowerCase());
  return vary.some((name) => name === "*" || isTrace(name));
}

/** `Cache-Control`, with names in lower case and values without quotes. */
function directivesOf(header: string | null): ReadonlyMap<string, string> {
  const found = new Map<string, string>();
  for (const part of (header ?? "").split(",")) {
    const [name = "", value = ""] = part.split("=", 2);
    if (name.trim() !== "") found.set(name.trim().toLowerCase(), value.trim().replaceAll('"', ""));
  }
  return found;
}

/** How much longer it is fresh. No word of it: not at all. */
function freshMsOf(headers: Headers, control: ReadonlyMap<string, string>, nowMs: number): number {
  const seconds = control.get("s-maxage") ?? control.get("max-age");
  const date = Date.parse(headers.get("date") ?? "");
  const expires = Date.parse(headers.get("expires") ?? "");
  const lifetimeMs = seconds === undefined ? expires - (Number.isNaN(date) ? nowMs : date) : secondsOf(seconds) * 1_000;
  const freshMs = lifetimeMs - ageSecondsOf(headers) * 1_000;
  return freshMs > 0 ? Math.min(freshMs, FLIGHT_FRESH_MS_MAX) : 0;
}

/** RFC 9111 §1.2.2: what is no count of seconds is none. */
const secondsOf = (text: string): number => (/^[0-9]{1,10}$/.test(text) ? Number(text) : 0);
export const ageSecondsOf = (headers: Headers): number => secondsOf(headers.get("age") ?? "");

/** A caller that wants no answer but one that is made for it. */
export function asksAnew(headers: Headers): boolean {
  const control = directivesOf(headers.get("cache-control"));
  const isOld = control.get("max-age") === "0" || /no-cache/i.test(headers.get("pragma") ?? "");
  return control.has("no-cache") || control.has("no-store") || isOld;
}
