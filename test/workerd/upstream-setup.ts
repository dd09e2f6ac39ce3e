/**
 * A real HTTP server for the tests that run inside workerd, which can't open
 * one themselves. Started once a run; its address is `inject("upstreamUrl")`.
 * A request with `?name=…` is counted under that name: see `/counts`.
 */
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { gzipSync } from "node:zlib";
import type { TestProject } from "vitest/node";

interface Count {
  total: number;
  inFlight: number;
  max: number;
}

interface Visit {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly body: Buffer;
  readonly query: URLSearchParams;
  /** The path's segments after the first. */
  readonly rest: readonly string[];
}

const counts = new Map<string, Count>();

const kept = new Map<string, Buffer>();

/** Tries that were seen, by path and idempotency key. */
const tries = new Map<string, number>();

/** Tries that wait to be let go, by the name that they are counted under. */
const held = new Map<string, (() => void)[]>();

function countOf(name: string): Count {
  let count = counts.get(name);
  if (count === undefined) counts.set(name, (count = { total: 0, inFlight: 0, max: 0 }));
  return count;
}

function sendJson(response: ServerResponse, value: unknown): void {
  response.setHeader("content-type", "application/json");
  response.end(JSON.stringify(value));
}

/** `type`, `text` or `base64`, `bytes` (of the text `fill`), `chunked`, `gzip`, and `h-<name>` for any other header. */
function sendBody({ response, query }: Visit): void {
  const bytes = query.get("bytes");
  let body = bytes === null ? Buffer.from(query.get("text") ?? "") : Buffer.alloc(Number(bytes), query.get("fill") ?? "x");
  if (query.has("base64")) body = Buffer.from(query.get("base64")!, "base64");
  if (query.has("gzip")) {
    body = gzipSync(body);
    response.setHeader("content-encoding", "gzip");
  }
  if (query.has("type")) response.setHeader("content-type", query.get("type")!);
  for (const [name, value] of query) if (name.startsWith("h-")) response.setHeader(name.slice(2), value);
  if (query.has("chunked")) {
    response.write(body.subarray(0, 10));
    response.end(body.subarray(10));
  } else {
    response.setHeader("content-length", body.byteLength);
    response.end(body);
  }
}

function breakOff(response: ServerResponse, afterMs: number): void {
  setTimeout(() => response.socket?.resetAndDestroy(), afterMs);
}

const PAGES: Record<string, (visit: Visit) => void> = {
  counts: ({ response, query }) => sendJson(response, countOf(query.get("name") ?? "")),
  echo: ({ request, response, body }) =>
    sendJson(response, { method: request.method, path: request.url, headers: request.headers, body: body.toString("base64") }),
  delay: ({ response, rest }) => void setTimeout(() => sendJson(response, { ok: true }), Number(rest[0])),
  // Any answer, after a while: `ms`, `status` (of writes `written`), and what `body` takes. With `once` only the first one is like that.
  slow: (visit) => {
    const { query, response, request } = visit;
    const isFirst = countOf(query.get("name") ?? "").total === 1;
    if (query.has("once") && !isFirst) return sendBody({ ...visit, query: new URLSearchParams({ text: "later" }) });
    const isWrite = request.method !== "GET" && request.method !== "HEAD";
    response.statusCode = Number((isWrite ? query.get("written") : null) ?? query.get("status") ?? 200);
    // What a caller's headers are told apart by.
    if (query.has("echo")) query.set("text", `${String(request.headers["authorization"])} ${visit.body.toString()}`);
    setTimeout(() => sendBody(visit), isWrite ? 0 : Number(query.get("ms") ?? 200));
  },
  // Each try of a call by its own segment, `ms`, `ms-status` or `ms-status-ms` with the time of the body; the last one for all that follow. `held` waits for `/let-go`.
  tries: ({ request, response, query, rest }) => {
    const key = `${request.url} ${request.headers["idempotency-key"] as string}`;
    const seen = tries.get(key) ?? 0;
    tries.set(key, seen + 1);
    const [ms, status = "200", bodyMs = "0"] = (rest[seen] ?? rest.at(-1)!).split("-");
    const answer = (): void => {
      response.statusCode = Number(status);
      response.setHeader("content-type", "application/json");
      if (bodyMs !== "0") response.flushHeaders();
      setTimeout(() => response.end(JSON.stringify({ try: seen + 1 })), Number(bodyMs));
    };
    if (ms !== "held") return void setTimeout(answer, Number(ms));
    const name = query.get("name")!;
    held.set(name, [...(held.get(name) ?? []), answer]);
  },
  // Answers all tries that are held under the name.
  "let-go": ({ response, query }) => {
    const name = query.get("name")!;
    for (const answer of held.get(name) ?? []) answer();
    held.delete(name);
    sendJson(response, { ok: true });
  },
  status: (visit) => {
    visit.response.statusCode = Number(visit.rest[0]);
    sendBody(visit);
  },
  body: sendBody,
  // Keeps a document under its path, and gives it back.
  kept: ({ request, response, body, rest }) => {
    if (request.method === "PUT") kept.set(rest.join("/"), body);
    const found = kept.get(rest.join("/"));
    response.statusCode = found === undefined ? 404 : 200;
    response.setHeader("content-type", "application/json");
    response.end(found);
  },
  // The head never comes.
  hang: () => undefined,
  "hang-body": ({ response }) => {
    response.writeHead(200, { "content-type": "text/plain", "content-length": 100 });
    response.write("hello");
  },
  reset: ({ response }) => breakOff(response, 0),
  "reset-body": ({ response }) => {
    response.writeHead(200, { "content-type": "text/plain", "content-length": 100 });
    response.write("hello");
    breakOff(response, 30);
  },
  // A second request on a connection is read, and then its connection is reset.
  once: ({ request, response }) => {
    const socket = request.socket as typeof request.socket & { served?: boolean };
    if (socket.served === true) return breakOff(response, 0);
    socket.served = true;
    sendJson(response, { ok: true });
  },
};

async function visit(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const url = new URL(request.url ?? "/", "http://upstream");
  const [page = "", ...rest] = url.pathname.slice(1).split("/");
  const name = url.searchParams.get("name");
  if (name !== null && page !== "counts" && page !== "let-go") {
    const count = countOf(name);
    count.total++;
    count.max = Math.max(count.max, ++count.inFlight);
    response.on("close", () => count.inFlight--);
  }
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  const show = PAGES[page];
  if (show !== undefined) return show({ request, response, body: Buffer.concat(chunks), query: url.searchParams, rest });
  response.statusCode = 404;
  response.end();
}

export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const server = createServer((request, response) => {
    // A client that goes away in the middle is part of the tests.
    visit(request, response).catch(() => response.destroy());
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  project.provide("upstreamUrl", `http://127.0.0.1:${(server.address() as AddressInfo).port}`);
  return async () => {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  };
}

declare module "vitest" {
  interface ProvidedContext {
    /** Scheme, host and port of the upstream. */
    upstreamUrl: string;
  }
}
