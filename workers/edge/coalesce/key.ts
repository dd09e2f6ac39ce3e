/**
 * What makes two calls equal: the tenant, where they go, and everything of them
 * that the upstream gets to see, but for what only traces them. A header that
 * is not known may be a credential, so it counts.
 */
import { hexOf } from "../../../shared/bytes.ts";

/** Says who calls or along which way, not what is asked for. An answer that varies by one of these is shared with nobody. */
const TRACES =
  /^(?:user-agent|traceparent|tracestate|baggage|b3|x-b3-[a-z]+|sentry-trace|x-(?:request|correlation|amzn-trace)-id|x-cloud-trace-context|x-forwarded-(?:for|proto)|x-real-ip|cdn-loop|via|forwarded|content-length)$/;

export const isTrace = (header: string): boolean => TRACES.test(header);

export interface KeyedBy {
  readonly tenant: string;
  readonly upstream: string;
  readonly method: string;
  readonly path: string;
  /** As the upstream gets them. */
  readonly headers: Headers;
  /** A hash of the body; empty for none. */
  readonly body: string;
}

/** The key itself, for the map of an isolate. */
export function keyOf({ tenant, upstream, method, path, headers, body }: KeyedBy): string {
  const parts = [tenant, upstream, method, path, body];
  for (const [name, value] of headers) if (!isTrace(name)) parts.push(name, value);
  return JSON.stringify(parts);
}

/** What is read by calls of this path, whatever their headers, and changed by writes to it. Written in one way, since answers name paths too. */
export function resourceOf(tenant: string, upstream: string, path: string): string {
  const { pathname, search } = new URL(`http://upstream${path}`);
  return JSON.stringify([tenant, upstream, pathname + search]);
}

/** SHA-256: two different calls must never be taken for equal, and a credential must not leave the isolate in a key. */
export async function hashOf(bytes: Uint8Array | string): Promise<string> {
  const digest = await crypto.subtle.digest("SHA-256", typeof bytes === "string" ? new TextEncoder().encode(bytes) : bytes);
  return hexOf(new Uint8Array(digest));
}
