/** When two upstreams are the same: their texts are equal, whatever the order in which headers were given. */
import type { Upstream } from "../../../shared/protocol/upstream.ts";

/** The upstream as JSON with its properties and its headers in order. */
export function canonicalUpstream(upstream: Upstream): string {
  const sorted = (object: object): [string, unknown][] => Object.entries(object).toSorted(([a], [b]) => (a < b ? -1 : 1));
  return JSON.stringify(Object.fromEntries(sorted({ ...upstream, headers: Object.fromEntries(sorted(upstream.headers)) })));
}
