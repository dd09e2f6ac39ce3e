/**
 * The goal as a client of governors: what it may send, what it reports, and
 * what its calls met. None of it is durable. A new incarnation begins without
 * permits, and its governors still count those of the last one.
 */
import { RETRY_BUDGET_MAX, RETRY_BUDGET_SHARE, RETRY_BUDGET_START, RETRY_CAP_MS, RETRY_SPREAD_MS } from "../../../shared/limits.ts";
import { HEDGES_START } from "../../../shared/limits-hedging.ts";
import { askDueAtMs, asked, type Lease, newLease, take, totalOf, unanswered } from "../../../shared/policy/lease.ts";
import { type Verdict, verdictOfCall } from "../../../shared/policy/outcome.ts";
import { count, drain, type Ended, newSampler, type Sampler } from "../../../shared/policy/sample.ts";
import type { LineHead } from "../../../shared/protocol/line.ts";
import type { Demand, Grant } from "../../../shared/protocol/admission.ts";
import type { Upstream } from "../../../shared/protocol/upstream.ts";
import { FOR_BACKOFF, WAITING } from "./codes.ts";
import { isPaused } from "./kin.ts";
import type { Recorder } from "./recorder.ts";
import { type GoalState, isAtEnd, upstreamNamed } from "./state.ts";

const NOTHING: Demand = [0, 0, 0];

export interface Admission {
  readonly lease: Lease;
  readonly sampler: Sampler;
  /** Retries that may be made at once; and when the next one beyond them may. */
  retries: number;
  nextRetryAtMs: number;
  /** Calls that are being aborted, and may still be open. */
  closing: number;
  /** Calls that may be hedged: the bucket that calls fill as they start. */
  hedges: number;
  /** Stragglers that lack a permit to be run again; and when they were last looked for. */
  stragglers: number;
  lookedAtMs: number;
  /** The upstream as it was last known. */
  config: Upstream | null;
}

export function admissionOf(state: GoalState, upstream: number): Admission {
  let admission = state.admissions[upstream];
  if (admission === undefined) {
    admission = {
      lease: newLease(state.life),
      sampler: newSampler(),
      retries: RETRY_BUDGET_START,
      nextRetryAtMs: 0,
      closing: 0,
      hedges: HEDGES_START,
      stragglers: 0,
      lookedAtMs: 0,
      config: null,
    };
    state.admissions[upstream] = admission;
  }
  return admission;
}

/** Calls that may be open at the upstream. */
export function inUseAt(state: GoalState, upstream: number): number {
  return state.upstreams[upstream]!.lanes + (state.admissions[upstream]?.closing ?? 0);
}

/** Calls that the goal would have open at the upstream. */
export function demandOf(state: GoalState, upstream: number): Demand {
  const there = state.upstreams[upstream]!;
  const { config, wanted } = there;
  if (state.goal?.phase !== "active" || isPaused(state) || state.budget.isExhausted || config === null) return NOTHING;
  const again = isAtEnd(there) ? (state.admissions[upstream]?.stragglers ?? 0) : 0;
  return [wanted[0]!, wanted[1]!, wanted[2]! + again];
}

/** Notes what the end of a call says of its upstream. Before the call leaves its batch. */
export function observe(rec: Recorder, head: LineHead, verdict: Verdict): void {
  const { task, startedAtMs, endedAtMs, retryAfterMs, tokens: used, beaten } = head;
  const { tasks, batches, backups } = rec.state;
  const admission = admissionOf(rec.state, tasks.upstream[task]!);
  const batch = batches.get(tasks.batch[task]!);
  const first = batch?.origin ?? 0;
  const second = backups.get(task)?.origin ?? batch?.hedges?.origin ?? 0;
  const origin = beaten?.isFirst === true ? second : first;
  meet(admission, { origin, verdict, ms: endedAtMs - startedAtMs, retryAfterMs, tokens: used }, rec.nowMs);
  if (beaten === undefined || beaten.status === 0) return;
  const other = { verdict: verdictOfCall("answered", beaten.status), ms: endedAtMs - beaten.startedAtMs, retryAfterMs: 0, tokens: 0 };
  meet(admission, { origin: beaten.isFirst ? first : second, ...other }, rec.nowMs);
}

function meet(admission: Admission, ended: Ended, nowMs: number): void {
  const { verdict } = ended;
  count(admission.sampler, ended, nowMs);
  admission.lease.results++;
  if (verdict === "refused" || verdict === "unavailable") admission.lease.spoiled++;
  if (verdict === "answered") admission.retries = Math.min(RETRY_BUDGET_MAX, admission.retries + RETRY_BUDGET_SHARE);
}

/** When a retry may be made that would be due at `dueAtMs`: beyond the budget they are spread out. */
export function retryAtMs(admission: Admission, dueAtMs: number, nowMs: number): number {
  if (admission.retries >= 1) {
    admission.retries--;
    return dueAtMs;
  }
  admission.nextRetryAtMs = Math.max(admission.nextRetryAtMs, nowMs) + RETRY_SPREAD_MS;
  return Math.max(dueAtMs, Math.min(admission.nextRetryAtMs, nowMs + RETRY_CAP_MS));
}

/** Takes a governor's grant. Where the upstream is back, nothing waits for the end of its backoff. */
export function takeGrant(rec: Recorder, name: string, life: string, grant: Grant): void {
  const upstream = upstreamNamed(rec.state, name);
  if (upstream < 0 || life !== rec.state.life) return;
  const { lease } = admissionOf(rec.state, upstream);
  const wasOpen = lease.isOpen;
  if (!take(lease, grant, rec.nowMs) || !wasOpen || lease.isOpen) return;
  const { tasks } = rec.state;
  for (let task = 0; task < tasks.n; task++) {
    const isBackingOff = tasks.status[task] === WAITING && tasks.reason[task] === FOR_BACKOFF;
    if (isBackingOff && tasks.upstream[task] === upstream) rec.release(task);
  }
}

/** Calls that were aborted are closed by now. */
export function noteClosed(rec: Recorder, upstream: number, count: number): void {
  const admission = admissionOf(rec.state, upstream);
  admission.closing = Math.max(0, admission.closing - count);
}

export function noteUnanswered(rec: Recorder, name: string): void {
  const upstream = upstreamNamed(rec.state, name);
  if (upstream >= 0) unanswered(admissionOf(rec.state, upstream).lease, rec.nowMs);
}

/** Writes the reports that are due. Once a turn, after what it sends. */
export function ask(rec: Recorder): void {
  const { state, nowMs, out } = rec;
  state.upstreams.forEach(({ config }, number) => {
    const wants = demandOf(state, number);
    const wanted = totalOf(wants);
    if (wanted === 0 && state.admissions[number] === undefined) return;
    const admission = admissionOf(state, number);
    const { lease, sampler } = admission;
    // What runs at an upstream that was deleted still needs its permits.
    admission.config = config ?? admission.config;
    const inUse = inUseAt(state, number);
    const dueAtMs = askDueAtMs(lease, wanted, inUse);
    if (dueAtMs === null || dueAtMs > nowMs || admission.config === null) return;
    out.reports.push({
      client: state.goal!.id,
      life: state.life,
      weight: state.goal!.spec.weight,
      ...asked(lease, wanted, inUse, nowMs),
      epoch: lease.epoch,
      taken: lease.number,
      inUse,
      wants,
      sample: drain(sampler, nowMs),
      upstream: admission.config,
      version: state.registryVersion,
    });
  });
}

/** When the next report is due; null for never. */
export function askAtMs(state: GoalState): number | null {
  let at: number | null = null;
  state.admissions.forEach(({ lease, config }, upstream) => {
    const dueAtMs = config === null ? null : askDueAtMs(lease, totalOf(demandOf(state, upstream)), inUseAt(state, upstream));
    if (dueAtMs !== null) at = Math.min(at ?? dueAtMs, dueAtMs);
  });
  return at;
}
