/**
 * The goal as a client of the tenant's locks. It asks for its tasks, one lock
 * after another, and only for as many of those that want the same one as could
 * have it together, so that thousands of tasks are one place in the shard's
 * queue. A grant is a lease: it is renewed in its first third, and counts, on
 * this goal's clock, from when it was asked for. What is said to a shard is
 * said again until it answers; what is lost expires there.
 */
import { ASK_RETRY_MS, LEASE_USE, LOCK_PLACES_MAX, LOCKS_PER_MESSAGE_MAX, TENANT_LOCK_TTL_MS } from "../../../shared/limits.ts";
import type { LockMessage, LockNews } from "../../../shared/policy/lock-steps.ts";
import { isPaused } from "./kin.ts";
import { codeOf, FAILED, IDEMPOTENT, RUNNING, SUBGOAL } from "./codes.ts";
import { finish } from "./lifecycle.ts";
import { type Dropped, NEVER, shardFor, talkWith, type TenantLocks } from "./lock-state.ts";
import { record, refuse } from "./lock-turn.ts";
import { holderOf, nextClaim } from "./locks.ts";
import type { Recorder } from "./recorder.ts";
import { type GoalState, liveCount } from "./state.ts";

type TenantAsk = LockMessage["asks"][number];

const RENEW_AFTER_MS = Math.floor(TENANT_LOCK_TTL_MS / 3);

/** Writes the messages that are due. Once a turn, after what it decided. */
export function tellShards(rec: Recorder): void {
  const { tenant } = rec.state.locks;
  if (tenant.talks.size === 0 && tenant.news.size === 0) return;
  const news = Map.groupBy(tenant.news, shardFor);
  for (const shard of new Set([...tenant.talks.keys(), ...news.keys()])) {
    const talk = talkWith(tenant, shard);
    if (talk.isAsking || rec.nowMs < talk.restUntilMs) continue;
    // From time to time all is said, which renews what is held; in between only what is new.
    const isWhole = talk.uses > 0 && rec.nowMs >= talk.sentAtMs + RENEW_AFTER_MS;
    const names = news.get(shard) ?? [];
    if (!isWhole && names.length === 0) continue;
    for (const name of names) tenant.news.delete(name);
    rec.out.lockMessages.push(messageFor(rec, shard, isWhole ? null : names));
    talk.isAsking = true;
    if (isWhole) talk.sentAtMs = rec.nowMs;
  }
}

/** `names` are the locks to speak of; null for all. */
function messageFor({ state, nowMs }: Recorder, shard: number, names: readonly string[] | null): LockMessage {
  const { tenant } = state.locks;
  const asks: TenantAsk[] = [];
  // A goal that is paused keeps what it has, and asks for no more.
  const wanted = isPaused(state) ? [] : (names ?? [...tenant.lanes.keys()].filter((name) => shardFor(name) === shard));
  for (const name of wanted) if (asks.length < LOCKS_PER_MESSAGE_MAX) asks.push(...asksFor(state, name));
  const renews: LockMessage["renews"][number][] = [];
  if (names === null) {
    for (const [task, holds] of tenant.claims) {
      holds.forEach(({ name, fence }, place) => {
        if (shardFor(name) === shard) renews.push({ task, place, name, fence });
      });
    }
  }
  const releases = tenant.dropped.filter((one) => shardFor(one.name) === shard && !isTakenBack(tenant, one));
  return { goalId: state.goal!.id, shard, sentAtMs: nowMs, asks, renews, releases };
}

/**
 * Whether the task wants again, or has, what it left when it knew of no grant:
 * to say now that it left would take that from it. A goal that was loaded from
 * disk has forgotten which of these it has said.
 */
function isTakenBack({ lanes, claims }: TenantLocks, { task, name, fence }: Dropped): boolean {
  if (fence !== 0) return false;
  return lanes.get(name)?.has(task) === true || (claims.get(task)?.some((hold) => hold.name === name) ?? false);
}

/** The tasks that could have the lock together, were it free: the first alone, or the first of those that share it. */
function asksFor(state: GoalState, name: string): TenantAsk[] {
  const asks: TenantAsk[] = [];
  for (const task of state.locks.tenant.lanes.get(name) ?? []) {
    const want = nextClaim(state, task)!;
    if (asks.length > 0 && want.mode === "exclusive") break;
    asks.push({ ...want, task, holder: holderOf(state, task) });
    if (want.mode === "exclusive" || asks.length >= LOCK_PLACES_MAX) break;
  }
  return asks;
}

/** Takes a shard's answer; null where there was none. */
export function takeNews(rec: Recorder, message: LockMessage, news: LockNews | null): void {
  const { state, nowMs } = rec;
  const { tenant } = state.locks;
  const talk = talkWith(tenant, message.shard);
  talk.isAsking = false;
  if (news === null) {
    talk.restUntilMs = nowMs + ASK_RETRY_MS;
    talk.sentAtMs = 0;
    for (const { name } of [...message.asks, ...message.releases]) tenant.news.add(name);
    return;
  }
  const known = new Set(message.releases);
  tenant.dropped = tenant.dropped.filter((one) => !known.has(one));
  const untilMs = message.sentAtMs + TENANT_LOCK_TTL_MS * LEASE_USE;
  const lost = new Set(news.lost);
  const kept = message.renews.filter(({ task, place, fence }) => !lost.has(fence) && tenant.claims.get(task)?.[place]?.fence === fence);
  if (kept.length > 0) record(rec, { kind: "locks.renewed", untilMs, rows: kept.flatMap(({ task, place }) => [task, place]) });
  for (const { task, name, fence } of news.granted) takeGrant(rec, task, name, fence, untilMs);
  for (const { task, place, fence } of message.renews) {
    if (lost.has(fence) && tenant.claims.get(task)?.[place]?.fence === fence) loseLock(rec, task);
  }
  for (const task of news.refused) if (state.locks.tenant.lanes.get(nameWanted(state, task) ?? "")?.has(task)) refuse(rec, task);
}

function nameWanted(state: GoalState, task: number): string | undefined {
  return state.locks.declared.has(task) ? nextClaim(state, task)?.name : undefined;
}

function takeGrant(rec: Recorder, task: number, name: string, fence: number, untilMs: number): void {
  const { state } = rec;
  const { tenant } = state.locks;
  if (tenant.lanes.get(name)?.has(task) === true && untilMs > rec.nowMs)
    return record(rec, { kind: "locks.secured", task, fence, untilMs });
  const has = tenant.claims.get(task)?.some((hold) => hold.name === name) ?? false;
  if (has) return;
  // Nobody wants it any more, or it came too late to be sure of.
  tenant.dropped.push({ task, name, holder: holderOf(state, task), fence });
  tenant.news.add(name);
}

/** A shard says that locks may have become free for this goal. */
export function hearOfLocks({ state }: Recorder, names: readonly string[]): void {
  for (const name of names) if (state.locks.tenant.lanes.has(name)) state.locks.tenant.news.add(name);
}

/**
 * The task has lost a lock, so nothing of what it does under it may count: its
 * attempt is aborted and fenced off, and it begins anew with its locks. Where
 * that cannot be, somebody has to decide, or it fails.
 */
function loseLock(rec: Recorder, task: number): void {
  const { tasks } = rec.state;
  const status = tasks.status[task]!;
  const family = rec.state.families.get(task);
  // Its children work under the lock too, and end with it.
  const isParent = family !== undefined && liveCount(family.counts) > 0;
  const isSubgoal = status === RUNNING && (tasks.flags[task]! & SUBGOAL) !== 0;
  if (isParent || isSubgoal) return finish(rec, { task, status: FAILED, code: codeOf("lock_lost") });
  if (status === RUNNING) {
    rec.abort(task);
    rec.loseLocks(task);
    if ((tasks.flags[task]! & IDEMPOTENT) !== 0) rec.lose(task, 0);
    else rec.doubt(task, -1, 0, 0);
  } else rec.loseLocks(task);
}

/** Leases that have run out by this goal's clock. Before results are taken: they come too late. */
export function expireLeases(rec: Recorder): void {
  const { tenant } = rec.state.locks;
  if (rec.nowMs < tenant.dueAtMs) return;
  const over: number[] = [];
  let next = NEVER;
  for (const [task, holds] of tenant.claims) {
    const untilMs = Math.min(...holds.map((hold) => hold.untilMs));
    if (untilMs <= rec.nowMs) over.push(task);
    else next = Math.min(next, untilMs);
  }
  tenant.dueAtMs = next;
  for (const task of over) loseLock(rec, task);
}

/** When the goal must do something about the tenant's locks; `NEVER` for never. */
export function tenantLocksAt(state: GoalState): number {
  const { tenant } = state.locks;
  // The bound outlives the holds that it was for, and an ended goal looks at none again.
  let at = tenant.claims.size === 0 ? NEVER : tenant.dueAtMs;
  for (const { isAsking, sentAtMs, restUntilMs, uses } of tenant.talks.values()) {
    if (!isAsking && uses > 0) at = Math.min(at, Math.max(sentAtMs + RENEW_AFTER_MS, restUntilMs));
  }
  for (const name of tenant.news) {
    const talk = tenant.talks.get(shardFor(name));
    if (talk?.isAsking !== true) at = Math.min(at, talk?.restUntilMs ?? 0);
  }
  return at;
}

/** The goal goes on: it asks again for what its tasks wait for. */
export function resumeLanes({ locks: { tenant } }: GoalState): void {
  for (const name of tenant.lanes.keys()) tenant.news.add(name);
}
