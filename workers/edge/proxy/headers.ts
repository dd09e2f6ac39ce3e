/** What passes of a call's headers, both ways. What belongs to a connection, or to Drover, stays here. */
import type { Opening } from "../../../shared/rpc.ts";
import { otherPreferences } from "../prefer.ts";

const HOP = /^(?:connection|keep-alive|proxy-[a-z-]+|te|trailer|transfer-encoding|upgrade)$/;
/** `cf-…`: what the platform says of the caller. `drover-…`: what the caller says to Drover. */
const NOT_SENT = /^(?:host|content-length|expect|authorization|prefer|(?:drover|cf)-[a-z-]+)$/;
const UPSTREAM_CREDENTIAL = "drover-upstream-authorization";

/** Names that a `Connection` header takes along with the connection (RFC 9110 §7.6.1). */
function namesOf(connection: string | null): ReadonlySet<string> {
  return new Set((connection ?? "").split(",").map((name) => name.trim().toLowerCase()));
}

/** The caller's headers as the upstream gets them; the upstream's own ones win. An answer that is to be read must come as it is. */
export function requestHeaders(from: Headers, own: Readonly<Record<string, string>>, isRead = false): Headers {
  const headers = new Headers();
  const nominated = namesOf(from.get("connection"));
  for (const [name, value] of from) if (!HOP.test(name) && !NOT_SENT.test(name) && !nominated.has(name)) headers.append(name, value);
  const preferences = otherPreferences(from.get("prefer"));
  if (preferences !== "") headers.set("prefer", preferences);
  const credential = from.get(UPSTREAM_CREDENTIAL);
  if (credential !== null) headers.set("authorization", credential);
  // The platform would ask for an encoding that this caller may not know.
  if (isRead || !headers.has("accept-encoding")) headers.set("accept-encoding", "identity");
  for (const name in own) headers.set(name, own[name]!);
  return headers;
}

/** The upstream's headers as the caller gets them. */
export function responseHeaders(from: Headers): Headers {
  const headers = new Headers(from);
  for (const name of namesOf(from.get("connection"))) if (name !== "") headers.delete(name);
  for (const name of from.keys()) if (HOP.test(name)) headers.delete(name);
  return headers;
}

/** `RateLimit` and its policy, as the IETF's draft 10 writes them: what the gate may have open, and how much of it is free. */
export function addRateLimit(headers: Headers, upstream: string, { granted, free }: Opening): void {
  headers.set("ratelimit-policy", `"${upstream}";q=${granted};qu="concurrent-requests"`);
  headers.set("ratelimit", `"${upstream}";r=${free}`);
}
