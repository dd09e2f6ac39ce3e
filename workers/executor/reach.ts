/**
 * Whether an upstream takes connections at all. `fetch` reports a refused
 * connection exactly as one that broke after the request was sent (the table
 * in call.ts), so a call that must not be repeated asks here first: what was
 * never sent may be repeated. So does every call to an origin that was lost and
 * has not answered since: what was never sent costs nothing, and says why. An
 * origin that answered within the last second is not asked again. The memory
 * is a cache: losing it costs one connection.
 */
import { connect } from "cloudflare:sockets";

const FRESH_MS = 1_000;
const ORIGINS_MAX = 1_000;

const answeredAtMs = new Map<string, number>();
/** Origins whose last connection broke. */
const suspects = new Set<string>();

export interface Reach {
  /** The origin answered. */
  saw(origin: string, nowMs: number): void;
  /** A connection to the origin broke. */
  lost(origin: string): void;
  /** Whether a connection to the origin broke, and none was answered since. */
  isSuspect(origin: string): boolean;
  /** False: no connection can be opened, or not before the signal. Nothing has been sent. */
  isOpen(origin: string, nowMs: number, signal: AbortSignal): Promise<boolean>;
}

async function opens(origin: string, signal: AbortSignal): Promise<boolean> {
  const { protocol, hostname, port } = new URL(origin);
  const isSecure = protocol === "https:";
  const socket = connect(`${hostname}:${port || (isSecure ? 443 : 80)}`, {
    secureTransport: isSecure ? "on" : "off",
    allowHalfOpen: false,
  });
  // Rejects along with `opened`, and nobody else listens.
  socket.closed.catch(() => undefined);
  const verdict = Promise.withResolvers<boolean>();
  const giveUp = (): void => verdict.resolve(false);
  signal.addEventListener("abort", giveUp);
  socket.opened.then(() => verdict.resolve(true), giveUp);
  const isOpen = await verdict.promise;
  signal.removeEventListener("abort", giveUp);
  socket.close().catch(() => undefined);
  return isOpen;
}

/** For a machine of one's own. Deployed, `connect` refuses Cloudflare's own addresses, and `fetch` answers 52x where a connection fails. */
export const tcpReach: Reach = {
  saw(origin, nowMs) {
    if (answeredAtMs.size >= ORIGINS_MAX && !answeredAtMs.has(origin)) answeredAtMs.clear();
    answeredAtMs.set(origin, nowMs);
    suspects.delete(origin);
  },
  lost(origin) {
    answeredAtMs.delete(origin);
    if (suspects.size >= ORIGINS_MAX) suspects.clear();
    suspects.add(origin);
  },
  isSuspect: (origin) => suspects.has(origin),
  async isOpen(origin, nowMs, signal) {
    if (nowMs - (answeredAtMs.get(origin) ?? -Infinity) <= FRESH_MS) return true;
    return opens(origin, signal);
  },
};
