/** When two upstreams are the same: their texts are equal, whatever the order in which headers were given. */
import type { Upstream } from "../../../shared/protocol/upstream.ts";

/** The upstream as JSON with its headers in order. */
export function canonicalUpstream(upstream: Upstream): string {
  const headers = Object.fromEntries(Object.entries(upstream.headers).toSorted(([a], [b]) => (a < b ? -1 : 1)));
  const { name, origins, maxConcurrency, ratePerSecond, timeoutMs, idempotency, retry } = upstream;
  return JSON.stringify({ name, origins, maxConcurrency, ratePerSecond, timeoutMs, idempotency, retry, headers } satisfies Upstream);
}
