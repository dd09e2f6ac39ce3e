/** What a client may have now: its target, as far as others have let go of it. */
import { LIMIT_MIN, PROBE_INTERVAL_MS } from "../../../shared/limits.ts";
import type { Grant } from "../../../shared/protocol/admission.ts";
import { failuresInARow, nextProbe, usable } from "./health.ts";
import { isRated, rateRoom, spendRate } from "./rate.ts";
import { shareOut } from "./share.ts";
import { boundOf, boundOfAll, type Client, type Governor, toldTo, turnOf, wantedBy } from "./state.ts";

/** How much of the limit is in use when it is wanted: permits are on their way now and then. */
const EFFICIENCY = 0.85;
/** With so much of the limit wanted or out, there is plenty. No more, because what rests is missing to a burst or a second try. */
const AMPLE = 0.125;

/** Calls that may be open at the upstream now, by what is known of it. */
export function capacityOf({ limiter, health, upstream }: Governor): number {
  if (health.isOpen) return 0;
  const most = Math.floor(limiter.limit);
  // Each failure in a row takes one call away, so that few are wasted on an upstream that has gone.
  const capacity = Math.max(1, most - failuresInARow(health));
  return Math.min(capacity, upstream?.maxConcurrency ?? capacity);
}

/** Brings every client's target up to date. */
export function reshare(governor: Governor, nowMs: number): void {
  shareOut([...governor.clients.values()], capacityOf(governor), Math.max(0, nowMs - governor.sharedAtMs), governor.limiter.meanMs);
  governor.sharedAtMs = nowMs;
}

/** Whether the client would be told of more calls, or of leave to start them. */
export function mayHaveMore(governor: Governor, client: Client, free: number, nowMs: number): boolean {
  const { learnUntilMs, gateUntilMs, health } = governor;
  if (nowMs < learnUntilMs || nowMs < gateUntilMs) return false;
  if (rateRoom(governor, nowMs) < 1) return false;
  if (health.isOpen) return mayProbe(governor, client, nowMs);
  const now = toldTo(client);
  if (client.target > now && (free > 0 || boundOf(client) > now)) return true;
  return isRated(governor) && client.starts === 0 && now > client.inUse && wantedBy(client) > client.inUse;
}

function mayProbe(governor: Governor, client: Client, nowMs: number): boolean {
  const { health, upstream } = governor;
  if (nowMs < health.probedAtMs + PROBE_INTERVAL_MS || wantedBy(client) <= client.inUse) return false;
  const open = boundOfAll(governor) - boundOf(client) + client.inUse;
  return open < Math.min(health.boundThen + LIMIT_MIN, upstream?.maxConcurrency ?? Number.POSITIVE_INFINITY);
}

/** Makes the client's next grant, and notes what it may do with it. `held` is what it holds of an epoch that is forgotten. */
export function grantTo(governor: Governor, client: Client, held: number, nowMs: number): Grant {
  const { health } = governor;
  const isLearning = nowMs < governor.learnUntilMs;
  let calls = isLearning ? callsLearnt(governor, client, held) : callsFor(governor, client);
  let starts = health.isOpen ? 0 : startsFor(governor, client, calls, nowMs);
  let origins = usable(health);
  if (health.isOpen) {
    calls = Math.min(client.inUse, LIMIT_MIN);
    if (mayHaveMore(governor, client, 0, nowMs)) {
      calls = client.inUse + 1;
      starts = 1;
      spendRate(governor, 1, nowMs);
      origins = [nextProbe(health, nowMs)];
    }
  }
  const number = ++governor.number;
  client.given.push({ number, calls });
  client.toldAtMs = nowMs;
  const isCounted = isRated(governor) || health.isOpen;
  client.starts = isCounted && !health.isOpen ? starts : 0;
  return {
    epoch: governor.epoch,
    number,
    seq: client.seq,
    calls,
    starts: isCounted ? starts : null,
    ttlMs: client.ttlMs,
    gateMs: Math.max(0, governor.gateUntilMs - nowMs),
    isOpen: health.isOpen,
    origins,
    callsPerSecond: expectation(governor, client.weight, client),
    ...(isAmple(governor) && { isAmple: true }),
    hedgeAfterMs: governor.hedgeAfterMs,
  };
}

/** Whether what all want is so little that nobody misses a permit that rests. Where starts are counted, none does. */
function isAmple(governor: Governor): boolean {
  if (governor.health.isOpen || isRated(governor)) return false;
  let wanted = 0;
  for (const client of governor.clients.values()) wanted += Math.max(wantedBy(client), boundOf(client));
  return wanted <= AMPLE * capacityOf(governor);
}

/** Whoever has told what it holds goes on with that, as far as all of it together is allowed. */
function callsLearnt(governor: Governor, client: Client, held: number): number {
  return Math.min(client.given.at(-1)?.calls ?? held, mostFor(governor, client));
}

/** What `maxConcurrency` leaves to the client beside all that others may have open. */
function mostFor(governor: Governor, client: Client): number {
  const max = governor.upstream?.maxConcurrency ?? Number.POSITIVE_INFINITY;
  return Math.max(0, max - (boundOfAll(governor) - boundOf(client)));
}

function callsFor(governor: Governor, client: Client): number {
  const bound = boundOf(client);
  const free = Math.max(0, capacityOf(governor) - boundOfAll(governor));
  // While more is open than a lowered limit allows, a call that ends is not followed by another.
  return Math.min(client.target, bound + free, mostFor(governor, client));
}

/** A part of the rate's room by weight; the odd start goes to whoever has waited longest. */
function startsFor(governor: Governor, client: Client, calls: number, nowMs: number): number {
  const room = rateRoom(governor, nowMs);
  const useful = Math.min(wantedBy(client), calls) - client.inUse;
  if (!isRated(governor) || room < 1 || useful <= 0 || nowMs < governor.gateUntilMs) return 0;
  const turn = turnOf(governor, client);
  let weights = client.weight;
  // While a governor learns it tells nobody of anything: who asks is served.
  let isFirst = true;
  for (const other of governor.clients.values()) {
    if (other === client || Math.min(wantedBy(other), toldTo(other)) <= other.inUse) continue;
    weights += other.weight;
    if (other.starts === 0 && turnOf(governor, other) < turn && nowMs >= governor.learnUntilMs) isFirst = false;
  }
  const part = (room * client.weight) / weights;
  const starts = Math.min(useful, room, isFirst ? Math.ceil(part) : Math.floor(part));
  if (starts === 0) return 0;
  spendRate(governor, starts, nowMs);
  governor.turn = turn;
  client.turn = turn + starts / client.weight;
  return starts;
}

/** What part of what the upstream does in a second falls to somebody of this weight who has work now. */
export function expectation(governor: Governor, weight: number, self: Client | null): number {
  let weights = weight;
  for (const other of governor.clients.values()) if (other !== self && wantedBy(other) > 0) weights += other.weight;
  return (perSecondOf(governor) * weight) / weights;
}

/** Calls a second: as measured while it was full, else by Little's law. */
function perSecondOf(governor: Governor): number {
  if (governor.callsPerSecond > 0) return governor.callsPerSecond;
  const { meanMs } = governor.limiter;
  return meanMs === 0 ? 0 : (EFFICIENCY * governor.limiter.limit * 1_000) / meanMs;
}
