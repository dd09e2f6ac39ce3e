/**
 * The door of a call that is under way: whoever sends the very same request as
 * one who waits for it, but for what only traces it, waits as well, and nothing
 * of it is read again. Five thousand of them come before the answer does, and
 * what each costs until then, and keeps in memory, is how late the last one is.
 */
import { FLIGHT_FAILURES_MAX } from "../../../shared/limits-flight.ts";
import { endOf } from "../middleware/auth.ts";
import type { Caller } from "../tokens/caller.ts";
import type { Flight } from "./flights.ts";
import { isTrace } from "./key.ts";
import { type Waiting, waitFor } from "./waiting.ts";

const PROXIED = /^https?:\/\/[^/]*\/v1\/proxy\//;
/** What the platform says of a caller, which is read by nobody. */
const PLATFORM = /^cf-[a-z-]+$/;

export interface Door {
  readonly flight: Flight;
  readonly caller: Caller;
  readonly waiting: Waiting;
  /** How long its callers wait for a permit. */
  readonly waitMs: number;
}

/** By what is sent. */
const doors = new Map<string, Door>();

/** Null for a request that is not to be taken for another. */
export function doorKeyOf({ method, url, headers, body }: Request): string | null {
  if ((method !== "GET" && method !== "HEAD") || body !== null) return null;
  let key = `${method} ${url}`;
  // No name or value has a line break in it.
  for (const [name, value] of headers) if (!isTrace(name) && !PLATFORM.test(name)) key += `\n${name}:${value}`;
  return key;
}

export function openDoor(key: string, door: Door): void {
  if (doors.get(key)?.flight === door.flight) return;
  doors.set(key, door);
  door.flight.onForgotten(() => {
    if (doors.get(key) === door) doors.delete(key);
  });
}

/** What a request has behind it that waited at a door in vain. */
interface Before {
  /** Calls that came to nothing meanwhile. */
  readonly failures: number;
  readonly untilMs: number;
}
const before = new WeakMap<Request, Before>();
export const beforeOf = (request: Request): Before | null => before.get(request) ?? null;

export function doorOf(request: Request): Door | null {
  if (doors.size === 0 || !PROXIED.test(request.url)) return null;
  const key = doorKeyOf(request);
  return key === null ? null : (doors.get(key) ?? null);
}

/** The answer to one who came to an open door; null where it has to go the whole way. */
export async function passDoor({ flight, caller, waiting, waitMs }: Door, request: Request, env: Env): Promise<Response | null> {
  const untilMs = Date.now() + waitMs;
  // Nobody looks at the clock here.
  if (!flight.outlasts(untilMs) || (await endOf(env, caller, false)) !== null) return null;
  // What cannot be found out here is asked again, and told, on the whole way.
  const found = await waitFor(flight, waiting, untilMs).catch(() => "gone" as const);
  if (found instanceof Response) return found;
  const failures = { failed: 1, alone: FLIGHT_FAILURES_MAX, late: 0, gone: 0 }[found];
  before.set(request, { failures, untilMs });
  return null;
}
