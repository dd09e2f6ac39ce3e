/**
 * How many files and sockets workerd may have open. It takes two per
 * connection and exits when there is none left, so few of them call for a gate.
 */
import { execFileSync } from "node:child_process";

/** Asked for; the system may grant less. */
const DESCRIPTORS_WANTED = 65_536;
/** Enough for 5,000 connections, their calls and the databases. */
const DESCRIPTORS_ENOUGH = 16_384;
const DESCRIPTORS_PER_CONNECTION = 2;
/** For the program itself, before any connection. */
const DESCRIPTORS_RESERVED = 64;

export interface Descriptors {
  /** What workerd will be given. */
  readonly limit: number;
  /** Connections that are let in at most; null where no gate is needed. */
  readonly connectionsMax: number | null;
}

/** Finds the highest limit that a child of this process can have. Node raises the soft limit to the hard one at its start. */
export function findDescriptors(): Descriptors {
  const script = `ulimit -n ${DESCRIPTORS_WANTED} 2>/dev/null || ulimit -n "$(ulimit -Hn)" 2>/dev/null; ulimit -n`;
  const answer = execFileSync("sh", ["-c", script], { encoding: "utf8" }).trim();
  const limit = answer === "unlimited" ? DESCRIPTORS_WANTED : Number(answer);
  if (limit >= DESCRIPTORS_ENOUGH) return { limit, connectionsMax: null };
  // Half for connections from outside; the other half is for the calls to upstreams and the databases.
  const connectionsMax = Math.max(1, Math.floor((limit - DESCRIPTORS_RESERVED) / 2 / DESCRIPTORS_PER_CONNECTION));
  return { limit, connectionsMax };
}

/** What the user should know about a low limit. */
export function describeLowLimit(descriptors: Descriptors): string {
  return (
    `only ${descriptors.limit} file descriptors are available, and each connection takes ${DESCRIPTORS_PER_CONNECTION} of them in workerd: ` +
    `at most ${descriptors.connectionsMax} connections are served at once, the others get 503. ` +
    `For more, raise the hard limit to ${DESCRIPTORS_ENOUGH} or higher (ulimit -Hn) and start again.`
  );
}
