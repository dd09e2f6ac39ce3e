/**
 * A backend to try Drover on: a real HTTP server that takes 20 ms a call, 300 ms
 * for one call in a hundred, and counts what reached it. `GET /stats` tells.
 * It prints `{"url"}` when it listens, and ends with whoever started it.
 */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";

export const USUAL_MS = 20;
export const SLOW_MS = 300;
/** One call in so many is slow. */
export const SLOW_EVERY = 100;

export interface UpstreamStats {
  /** Everything that arrived, repeats included. */
  readonly calls: number;
  /** Different values of `Idempotency-Key`. */
  readonly keys: number;
  /** Different things that were asked for. */
  readonly paths: number;
}

function serveUpstream(): void {
  let calls = 0;
  const keys = new Set<string>();
  const paths = new Set<string>();
  const server = createServer((request, response) => {
    const path = request.url ?? "/";
    const answer = (body: unknown): void => {
      response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(body));
    };
    request.resume();
    if (path === "/stats") return answer({ calls, keys: keys.size, paths: paths.size } satisfies UpstreamStats);
    calls++;
    paths.add(path);
    keys.add(String(request.headers["idempotency-key"]));
    const slow = calls % SLOW_EVERY === 0;
    setTimeout(answer, slow ? SLOW_MS : USUAL_MS, { page: path, words: 200 + (path.length % 7) });
  });
  server.keepAliveTimeout = 60_000;
  server.listen(0, "127.0.0.1", () => {
    process.stdout.write(`${JSON.stringify({ url: `http://127.0.0.1:${(server.address() as AddressInfo).port}` })}\n`);
  });
  process.once("disconnect", () => process.exit(0));
}

if (import.meta.main) serveUpstream();
