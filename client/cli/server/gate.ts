/**
 * Stands before workerd where descriptors are scarce: lets so many connections
 * in and answers the rest with 503, so that workerd never runs out and exits.
 */
import { connect, createServer, type Server, type Socket } from "node:net";
import { Refusal } from "./refusal.ts";

const BODY = JSON.stringify({
  type: "about:blank",
  title: "Too many connections",
  status: 503,
  detail: "The local server has no file descriptors left for another connection. Try again in a second, over fewer connections.",
  code: "temporary_reduced_capacity",
  retryable: true,
  retryAfterMs: 1000,
});
const ANSWER =
  "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\nRetry-After: 1\r\nConnection: close\r\n" +
  `Content-Length: ${Buffer.byteLength(BODY)}\r\n\r\n${BODY}`;
/** A refused caller that goes on sending is cut off, or it would hold a descriptor. */
const REFUSED_LINGER_MS = 500;
const BACKLOG = 4_096;

export interface Gate {
  readonly port: number;
  close(): void;
}

function refuse(socket: Socket): void {
  socket.on("error", () => socket.destroy());
  socket.setTimeout(REFUSED_LINGER_MS, () => socket.destroy());
  socket.resume();
  socket.end(ANSWER);
}

function join(socket: Socket, port: number): void {
  const inner = connect({ host: "127.0.0.1", port, noDelay: true, allowHalfOpen: true });
  socket.setNoDelay(true);
  socket.pipe(inner).pipe(socket);
  const end = (): void => {
    socket.destroy();
    inner.destroy();
  };
  for (const side of [socket, inner]) side.on("error", end).on("close", end);
}

function listen(server: Server, host: string, port: number): Promise<number> {
  return new Promise((resolve, reject) => {
    server.once("error", (error: NodeJS.ErrnoException) => {
      reject(new Refusal(`cannot listen on ${host}:${port} (${error.code}). Choose another port with --port N; 0 picks a free one.`));
    });
    server.listen({ host, port, backlog: BACKLOG }, () => resolve((server.address() as { port: number }).port));
  });
}

/** Opens the gate on `host:port` before the local port `inner`. */
export async function openGate(host: string, port: number, inner: number, connectionsMax: number): Promise<Gate> {
  const open = new Set<Socket>();
  let refused = 0;
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    if (open.size < connectionsMax) {
      open.add(socket);
      socket.once("close", () => open.delete(socket));
      return join(socket, inner);
    }
    // Beyond this even a refusal would cost more descriptors than there are.
    if (refused >= connectionsMax) return void socket.destroy();
    refused++;
    socket.once("close", () => refused--);
    refuse(socket);
  });
  return {
    port: await listen(server, host, port),
    close() {
      server.close();
      for (const socket of open) socket.destroy();
    },
  };
}
