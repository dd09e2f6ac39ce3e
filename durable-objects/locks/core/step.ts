/**
 * A shard of the tenant's locks: `step(table, nowMs, command, out)`. It is
 * deterministic; what it decides about locks is in `shared/policy`, and shared
 * with goals.
 */
import type { Failure } from "../../../shared/errors.ts";
import {
  acquire,
  type Acquired,
  applyLock,
  expire,
  type Granted,
  grantedBy,
  held,
  letGo,
  type LockAsk,
  type LockChange,
  type LockRelease,
  serve,
} from "../../../shared/policy/lock-steps.ts";
import { holdFor, type LockTable, type Waiting } from "../../../shared/policy/lock-table.ts";
import { err, ok, type Result } from "../../../shared/result.ts";

export type Command = { readonly kind: "acquire"; readonly ask: LockAsk } | { readonly kind: "release"; readonly release: LockRelease };

/** The end of a wait. */
export interface Settled {
  readonly request: Waiting;
  readonly outcome: Result<Granted, Failure>;
}

export interface Out {
  /** Facts to commit, in order. */
  readonly changes: LockChange[];
  /** Waits that have ended, to be told after the commit. */
  readonly settled: Settled[];
}

export type Reply = Acquired | Result<null, Failure>;

export function step(table: LockTable, nowMs: number, command: Command, out: Out): Reply {
  const decide = decider(table, out);
  if (command.kind === "acquire") return acquire(table, nowMs, command.ask, decide);
  const { name } = command.release;
  const place = command.release.fence === null ? table.locks.get(name)?.waiting.get(command.release.holder ?? "") : undefined;
  const reply = letGo(table, command.release, decide);
  if (place !== undefined) out.settled.push({ request: place, outcome: err(held(table, name, nowMs)) });
  serveAll(table, nowMs, [name], out);
  return reply;
}

/** What time alone brings about. Before the commands of a turn. */
export function tick(table: LockTable, nowMs: number, out: Out): void {
  const { freed, ended } = expire(table, nowMs, decider(table, out));
  for (const request of ended) out.settled.push({ request, outcome: err(held(table, request.wants[0]!.name, nowMs)) });
  serveAll(table, nowMs, freed, out);
}

const decider =
  (table: LockTable, { changes }: Out) =>
  (change: LockChange) => {
    applyLock(table, change);
    changes.push(change);
  };

function serveAll(table: LockTable, nowMs: number, freed: readonly string[], out: Out): void {
  const decide = decider(table, out);
  serve(table, freed, (request, fences) => {
    const { seq, ttlMs, holder, wants } = request;
    decide({ kind: "granted", seq, fences, expiresAtMs: ttlMs === null ? null : nowMs + ttlMs });
    out.settled.push({ request, outcome: ok(grantedBy(holdFor(table.locks.get(wants[0]!.name), holder)!, holder)) });
  });
}
