/**
 * The governor's one decision function. A report comes in, a grant goes back;
 * `out` has what to keep before anything is said, and whom to tell of more.
 * Time and chance come in with the call.
 */
import { GOVERNOR_IDLE_MS, LEASE_TTL_MS_MAX, LEASE_TTL_MS_MIN, PUSH_INTERVAL_MS } from "../../../shared/limits.ts";
import { noteLatencies } from "../../../shared/policy/latencies.ts";
import type { Grant, Report, Sample } from "../../../shared/protocol/admission.ts";
import { capacityOf, grantTo, mayHaveMore, reshare } from "./grant.ts";
import { hedgeAfterMs } from "./hedging.ts";
import { note, setOrigins, wakeOrigins } from "./health.ts";
import { closeWindow, cut, fitLimit, observe } from "./limiter.ts";
import { giveBackRate, isRated, meterTokens } from "./rate.ts";
import { boundOf, boundOfAll, type Client, type Governor, type Kept, toldTo, turnOf, wantedBy } from "./state.ts";

/** A weight for the newest window's throughput. */
const THROUGHPUT_GAIN = 0.3;
const TTL_CALLS = 4;
/** After an outage the limit starts at this part of what it was. */
const RECOVERY = 0.5;

export type Command =
  | { readonly kind: "report"; readonly report: Report; readonly chance: number }
  /** Time has passed. */
  | { readonly kind: "tick" };

export interface Push {
  readonly client: string;
  readonly life: string;
  readonly grant: Grant;
}

export interface Out {
  /** To be durable before anything below is said. */
  keep: Kept | null;
  readonly pushes: Push[];
}

export function step(governor: Governor, nowMs: number, command: Command, out: Out): Grant | null {
  expire(governor, nowMs);
  wakeOrigins(governor.health, nowMs);
  const grant = command.kind === "report" ? report(governor, nowMs, command.report, command.chance) : null;
  if (command.kind === "tick") reshare(governor, nowMs);
  push(governor, nowMs, command.kind === "report" ? command.report.life : null, out);
  keep(governor, nowMs, out);
  return grant;
}

/** Leases that were not renewed are over: their clients act on them no more. */
function expire({ clients }: Governor, nowMs: number): void {
  for (const [life, { expiresAtMs }] of clients) if (expiresAtMs <= nowMs) clients.delete(life);
}

function report(governor: Governor, nowMs: number, said: Report, chance: number): Grant {
  governor.messages++;
  if (said.version > governor.version) configure(governor, said);
  const known = governor.clients.get(said.life);
  // An older report has been overtaken: what it says is no longer so.
  if (known !== undefined && said.seq <= known.seq) return grantTo(governor, known, 0, nowMs);
  const client = known ?? admit(governor, said);
  // Calls that ended one after the other were not open at once.
  const most = Math.max(boundOf(client), said.inUse);
  hear(governor, client, said, nowMs);
  learn(governor, said.sample, Math.min(said.sample.answered, most - said.inUse), nowMs, chance);
  reshare(governor, nowMs);
  governor.hedgeAfterMs = hedgeAfterMs(governor, nowMs);
  return grantTo(governor, client, known === undefined || said.epoch !== governor.epoch ? said.held : 0, nowMs);
}

function configure(governor: Governor, { upstream, version }: Report): void {
  const before = governor.upstream;
  governor.upstream = upstream;
  governor.version = version;
  fitLimit(governor.limiter, upstream.maxConcurrency);
  if (before?.origins.join() !== upstream.origins.join()) setOrigins(governor.health, upstream.origins.length);
}

function admit(governor: Governor, said: Report): Client {
  const client: Client = {
    name: said.client,
    life: said.life,
    weight: said.weight,
    seq: 0,
    inUse: 0,
    wants: [0, 0, 0],
    given: [],
    starts: 0,
    turn: 0,
    expiresAtMs: 0,
    ttlMs: 0,
    heardAtMs: 0,
    toldAtMs: 0,
    share: 0,
    target: 0,
    credit: 0,
  };
  for (const [life, other] of governor.clients) {
    if (other.name !== said.client) continue;
    // An earlier life of the client asks for nothing more. Its calls may still be open: where the bound is hard, its lease runs out first.
    other.wants = [0, 0, 0];
    if (governor.upstream?.maxConcurrency === null) governor.clients.delete(life);
  }
  governor.clients.set(said.life, client);
  return client;
}

function hear(governor: Governor, client: Client, said: Report, nowMs: number): void {
  client.seq = said.seq;
  client.weight = said.weight;
  client.inUse = said.inUse;
  client.wants = said.wants;
  client.heardAtMs = nowMs;
  client.ttlMs = governor.ttlMs;
  // Its calls may still run on an earlier, longer lease.
  client.expiresAtMs = Math.max(client.expiresAtMs, nowMs + client.ttlMs);
  if (said.epoch === governor.epoch) {
    const isLatestTaken = client.given.at(-1)?.number === said.taken;
    // What it has not taken by now it never will.
    giveBackRate(governor, isLatestTaken ? Math.min(client.starts, said.unusedStarts) : client.starts, client.toldAtMs);
    // Of what it has taken it keeps no more than it says.
    client.given = said.held > 0 ? [{ number: said.taken, calls: said.held }] : [];
  }
  client.starts = 0;
}

/** What the calls met says of the upstream. `ended`: as many of them may have been open beside those that are. */
function learn(governor: Governor, sample: Sample, ended: number, nowMs: number, chance: number): void {
  const { limiter, health } = governor;
  const max = governor.upstream?.maxConcurrency ?? null;
  let inUse = ended;
  for (const client of governor.clients.values()) inUse += client.inUse;
  governor.calls += sample.answered;
  noteLatencies(governor, sample.latencies);
  meterTokens(governor, sample, nowMs);
  observe(limiter, sample.answered, sample.sumMs, Math.min(inUse, limiter.limit));
  const limitThen = limiter.limit;
  const turned = note(health, sample.origins, limiter.meanMs, nowMs);
  if (turned === "opened") {
    health.limitThen = limitThen;
    health.boundThen = boundOfAll(governor);
  }
  if (turned === "closed") {
    limiter.limit = health.limitThen * RECOVERY;
    limiter.isSlowStart = true;
    fitLimit(limiter, max);
  }
  const refused = sample.origins.reduce((sum, origin) => sum + origin.refused, 0);
  governor.calls += sample.origins.reduce((sum, origin) => sum + origin.refused + origin.unavailable, 0);
  if (refused > 0 && !health.isOpen) cut(limiter, max, nowMs);
  if (sample.retryAfterMs > 0) governor.gateUntilMs = Math.max(governor.gateUntilMs, nowMs + sample.retryAfterMs);
  closeOne(governor, max, nowMs, chance);
}

function closeOne(governor: Governor, max: number | null, nowMs: number, chance: number): void {
  const { limiter } = governor;
  const { answered, startedAtMs } = limiter;
  if (!closeWindow(limiter, max, nowMs, chance)) return;
  governor.ttlMs = Math.max(LEASE_TTL_MS_MIN, Math.min(LEASE_TTL_MS_MAX, TTL_CALLS * limiter.meanMs));
  let wanted = 0;
  for (const client of governor.clients.values()) wanted += wantedBy(client);
  const perSecond = (answered * 1_000) / (nowMs - startedAtMs);
  const isFull = wanted > capacityOf(governor);
  // An upstream that was not kept busy shows less than it can do.
  if (!isFull) return;
  const { callsPerSecond } = governor;
  governor.callsPerSecond = callsPerSecond === 0 ? perSecond : callsPerSecond + THROUGHPUT_GAIN * (perSecond - callsPerSecond);
}

/** Tells clients of more that will not ask for it soon. */
function push(governor: Governor, nowMs: number, asker: string | null, out: Out): void {
  let free = capacityOf(governor) - boundOfAll(governor);
  if (free <= 0 && !isRated(governor) && !governor.health.isOpen) return;
  for (const client of waiting(governor)) {
    if (client.life === asker || nowMs < client.toldAtMs + PUSH_INTERVAL_MS) continue;
    if (!mayHaveMore(governor, client, free, nowMs)) continue;
    const before = boundOf(client);
    const grant = grantTo(governor, client, 0, nowMs);
    free -= Math.max(0, boundOf(client) - before);
    governor.messages++;
    out.pushes.push({ client: client.name, life: client.life, grant });
  }
}

/** Clients that want more than they have open or were told of, those first whose turn it is. */
function waiting(governor: Governor): Client[] {
  const list: Client[] = [];
  for (const client of governor.clients.values()) {
    if (wantedBy(client) > Math.min(client.inUse, toldTo(client))) list.push(client);
  }
  if (list.length < 2) return list;
  return list.sort((a, b) => turnOf(governor, a) - turnOf(governor, b) || b.credit - a.credit);
}

/** Writes down that permits are out before the first, and that none is after the last. */
function keep(governor: Governor, nowMs: number, out: Out): void {
  const isBusy = boundOfAll(governor) > 0 || nowMs < governor.learnUntilMs;
  if (isBusy) governor.idleSinceMs = nowMs;
  const goesIdle = governor.isBusy && !isBusy && nowMs >= governor.idleSinceMs + GOVERNOR_IDLE_MS;
  const isLonger = governor.isBusy && governor.ttlMs > governor.keptTtlMs;
  if (goesIdle) governor.isBusy = false;
  else if (isBusy && (!governor.isBusy || isLonger)) {
    governor.isBusy = true;
    // Written in steps, so that a slow drift costs few rows.
    const ttlMs = isLonger ? 2 * governor.ttlMs : governor.ttlMs;
    // One that learns has to go on learning after another restart.
    governor.keptTtlMs = Math.min(LEASE_TTL_MS_MAX, Math.max(ttlMs, governor.learnUntilMs - nowMs));
  } else return;
  const { epoch, boot, keptTtlMs: ttlMs, limiter } = governor;
  out.keep = { epoch, isBusy: governor.isBusy, boot, ttlMs, limit: limiter.limit, baselineMs: limiter.baselineMs };
}

/** When time alone will change something; null for never. */
export function wakeAt(governor: Governor, nowMs: number): number | null {
  const isIdle = boundOfAll(governor) === 0 && nowMs >= governor.learnUntilMs;
  let at = governor.isBusy && isIdle ? governor.idleSinceMs + GOVERNOR_IDLE_MS : Number.POSITIVE_INFINITY;
  for (const { expiresAtMs } of governor.clients.values()) at = Math.min(at, expiresAtMs);
  if (nowMs < governor.learnUntilMs) at = Math.min(at, governor.learnUntilMs);
  // Permits come back by reports; what reports do not bring is looked for.
  if (waiting(governor).length > 0) at = Math.min(at, nowMs + PUSH_INTERVAL_MS * 4);
  if (!Number.isFinite(at)) return null;
  return Math.max(at, nowMs + 1);
}
