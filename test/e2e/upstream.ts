/**
 * A real HTTP upstream in the test's own process, which remembers every
 * request that reached it: whom it was for, how often it came, under which key.
 */
import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo, Socket } from "node:net";

export interface Seen {
  readonly method: string;
  readonly path: string;
  readonly key: string;
  readonly attempt: number;
}

export interface Upstream {
  readonly origin: string;
  /** Every request, in the order of arrival. */
  readonly seen: readonly Seen[];
  readonly inFlight: number;
  /** The most that were open at once. */
  readonly inFlightMax: number;
  /** Resolves when `count` requests have come in all. */
  reached(count: number): Promise<void>;
  close(): Promise<void>;
}

export type Answer = (request: IncomingMessage, response: ServerResponse, number: number) => void;

/** Answers after `delayMs` with the path that was asked for. */
export function answerAfter(delayMs: number): Answer {
  return (request, response) => {
    const answer = (): void => {
      response.setHeader("content-type", "application/json");
      response.end(JSON.stringify({ path: request.url }));
    };
    if (delayMs === 0) answer();
    else setTimeout(answer, delayMs);
  };
}

export async function startUpstream(answer: Answer): Promise<Upstream> {
  const seen: Seen[] = [];
  const waiting: { count: number; resolve: () => void }[] = [];
  const sockets = new Set<Socket>();
  let inFlight = 0;
  let inFlightMax = 0;
  const server = createServer((request, response) => {
    const { method = "", url = "", headers } = request;
    seen.push({ method, path: url, key: String(headers["idempotency-key"]), attempt: Number(headers["drover-attempt"]) });
    inFlightMax = Math.max(inFlightMax, ++inFlight);
    response.once("close", () => inFlight--);
    for (const { count, resolve } of waiting) if (seen.length >= count) resolve();
    request.resume();
    answer(request, response, seen.length);
  });
  // An idle connection that closes by itself would make the client repeat a call.
  server.keepAliveTimeout = 600_000;
  server.on("connection", (socket) => {
    sockets.add(socket);
    socket.once("close", () => sockets.delete(socket));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    origin: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    seen,
    get inFlight() {
      return inFlight;
    },
    get inFlightMax() {
      return inFlightMax;
    },
    async reached(count) {
      if (seen.length < count) await new Promise<void>((resolve) => waiting.push({ count, resolve }));
    },
    async close() {
      for (const socket of sockets) socket.destroy();
      server.close();
      await once(server, "close");
    },
  };
}
