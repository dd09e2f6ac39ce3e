/**
 * What a write makes of answers from before (RFC 9111 §4.4): once it is
 * answered, whoever asks gets none of them, neither one that is kept nor one
 * of a call that had begun. Of the paths that its answer names, too.
 */
import { FLIGHT_SHARDS } from "../../../shared/limits-flight.ts";
import { flightShardOf } from "../../../shared/protocol/flight.ts";
import type { FlightRpc } from "../../../shared/rpc-flight.ts";
import { forgetAllReads, forgetReadsOf } from "./flights.ts";
import { hashOf, resourceOf } from "./key.ts";

/** Safe by the registry of methods; what is not known may write. */
const SAFE: ReadonlySet<string> = new Set(["GET", "HEAD", "OPTIONS", "TRACE", "PROPFIND", "QUERY", "REPORT", "SEARCH"]);
const NAMING = ["location", "content-location"] as const;

export const isWrite = (method: string): boolean => !SAFE.has(method);

/** An answer of 4xx says that nothing was written. Without one, or with 5xx, nobody knows. */
export const mayHaveWritten = (status: number): boolean => status < 400 || status >= 500;

/** Its own path, and those that its answer names at the same origin. */
export function pathsWritten(origin: string, path: string, headers: Headers | null): string[] {
  const paths = [path];
  for (const header of NAMING) {
    const named = headers?.get(header) ?? null;
    const url = named === null ? null : URL.parse(named, origin + path);
    if (url !== null && url.origin === new URL(origin).origin) paths.push(url.pathname + url.search);
  }
  return paths;
}

async function tellAll(telling: readonly Promise<void>[], what: string): Promise<void> {
  for (const told of await Promise.allSettled(telling)) {
    if (told.status === "rejected") console.warn(`a shard of flights was not told of ${what}: ${String(told.reason)}`);
  }
}

/** Ends what is known of these paths. A shard that has gone keeps nothing. */
export async function outdate(
  tenant: string,
  upstream: string,
  paths: readonly string[],
  shard: (number: number) => FlightRpc,
): Promise<void> {
  const resources = [...new Set(paths.map((path) => resourceOf(tenant, upstream, path)))];
  const telling = resources.map(async (resource) => {
    const name = await hashOf(resource);
    await shard(flightShardOf(name)).written(name);
  });
  await tellAll(telling, "a write");
  // Last, because who came meanwhile may wait there for a call from before.
  for (const resource of resources) forgetReadsOf(resource);
}

/** An upstream was replaced or deleted. Rarely, so every shard is told. */
export async function outdateAll(shard: (number: number) => FlightRpc): Promise<void> {
  const telling = Array.from({ length: FLIGHT_SHARDS }, (_, number) => shard(number).changed());
  await tellAll(telling, "a change");
  forgetAllReads();
}
