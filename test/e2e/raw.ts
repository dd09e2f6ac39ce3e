/** A request on a connection of its own, byte for byte, which can be torn down. */
import { once } from "node:events";
import { connect, type Socket } from "node:net";

/** "HTTP/1.1 200" */
const STATUS_ENDS_AT = 12;

export interface Raw {
  readonly socket: Socket;
  /** The first bytes of the answer are there. */
  readonly begun: Promise<unknown>;
  /** 0 where the connection ended without. The server keeps it for a while after the answer. */
  readonly status: Promise<number>;
}

export function rawRequest(url: string, bytes: string): Raw {
  const { port, hostname } = new URL(url);
  const socket = connect(Number(port), hostname, () => socket.write(bytes));
  const begun = once(socket, "data");
  begun.catch(() => undefined);
  let heard = "";
  const status = new Promise<number>((resolve) => {
    socket.on("data", (chunk) => {
      if (heard.length >= STATUS_ENDS_AT) return;
      heard += chunk.toString();
      if (heard.length >= STATUS_ENDS_AT) resolve(Number(heard.slice(9, STATUS_ENDS_AT)));
    });
    socket.on("error", () => undefined);
    socket.once("close", () => resolve(0));
  });
  return { socket, begun, status };
}
