/**
 * An upstream that can be told what to be, in a process of its own: slow by the
 * path (`/d20/…`: 20 ms), limited (`/limited/…`: so many servers and a bounded
 * queue), a stream (`/sse`), or down. It counts what is open at any time, from
 * the request's begin to the response's close, and tells over the process's
 * channel what came since it last told.
 */
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { Order, Window } from "./upstreams.ts";

const BODY = '{"ok":true,"answer":"forty-two......"}';
/** The queue before the servers of `/limited/…`; beyond it the answer is 503. */
const QUEUE_MAX = 400;
const SERVICE_MS = 100;
const SERVICE_SIGMA = 0.3;
const SSE_PAUSE_MS = 20;

/** Mulberry32: the same services for every client. */
let seed = 5;
function random(): number {
  seed = (seed + 0x6d2b79f5) | 0;
  let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
  return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
}

/** Lognormal, by Box and Muller. */
const serviceMs = (): number =>
  SERVICE_MS * Math.exp(SERVICE_SIGMA * Math.sqrt(-2 * Math.log(random() || 1e-9)) * Math.cos(2 * Math.PI * random()));

let isDown = false;
let ownDelayMs = 0;
let servers = 64;
let busy = 0;
const queue: (() => void)[] = [];

let open = 0;
let calls = 0;
let refused = 0;
let mostOpen = 0;
let sinceMs = performance.now();
let tookMs: number[] = [];
let byGoal: Record<string, number> = {};

function serve(done: () => void): void {
  busy++;
  setTimeout(() => {
    busy--;
    done();
    fill();
  }, serviceMs());
}

function fill(): void {
  while (busy < servers && queue.length > 0) serve(queue.shift()!);
}

function take(request: IncomingMessage, response: ServerResponse): void {
  const startedAt = performance.now();
  const path = request.url ?? "/";
  calls++;
  mostOpen = Math.max(mostOpen, ++open);
  response.on("close", () => open--);
  request.resume();
  const answer = (): void => {
    const goal = request.headers["drover-goal"];
    if (typeof goal === "string") byGoal[goal] = (byGoal[goal] ?? 0) + 1;
    tookMs.push(performance.now() - startedAt);
    response.setHeader("content-type", "application/json");
    response.end(BODY);
  };
  const refuse = (): void => {
    refused++;
    response.statusCode = 503;
    response.end();
  };
  if (isDown) return refuse();
  if (path.startsWith("/sse")) return stream(response);
  if (path.startsWith("/limited/")) {
    if (busy < servers) serve(answer);
    else if (queue.length < QUEUE_MAX) queue.push(answer);
    else refuse();
    return;
  }
  const delayMs = Number(/^\/d(\d+)\//.exec(path)?.[1] ?? ownDelayMs);
  if (delayMs === 0) answer();
  else setTimeout(answer, delayMs);
}

function stream(response: ServerResponse): void {
  response.setHeader("content-type", "text/event-stream");
  response.write("data: first\n\n");
  setTimeout(() => response.end("data: last\n\n"), SSE_PAUSE_MS);
}

/** What came since the last time. */
function told(): Window {
  const sorted = tookMs.toSorted((a, b) => a - b);
  const at = (q: number): number => sorted[Math.floor(q * (sorted.length - 1))] ?? 0;
  const nowMs = performance.now();
  const window = { calls, refused, open, mostOpen, ms: nowMs - sinceMs, answered: tookMs.length, p50Ms: at(0.5), p99Ms: at(0.99), byGoal };
  calls = 0;
  refused = 0;
  mostOpen = open;
  sinceMs = nowMs;
  tookMs = [];
  byGoal = {};
  return window;
}

process.on("message", (order: Order) => {
  isDown = order.isDown ?? isDown;
  servers = order.servers ?? servers;
  ownDelayMs = order.delayMs ?? ownDelayMs;
  seed = order.seed ?? seed;
  fill();
  process.send!(told(), () => order.die && process.kill(process.pid, "SIGKILL"));
});
process.on("disconnect", () => process.exit(0));

const server = createServer(take);
server.keepAliveTimeout = 120_000;
server.listen(Number(process.argv[2] ?? 0), "127.0.0.1", 8_192, () => {
  const address = server.address();
  process.send!(typeof address === "object" && address !== null ? address.port : 0);
});
