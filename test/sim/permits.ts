/**
 * Watches what a goal does with permits: each call within a grant that it has
 * taken, each failure judged by the circuit and the retry budget, each report
 * true. Grants, reports and result lines are what it knows; the rest it counts
 * by itself.
 */
import type { GoalState } from "../../durable-objects/goal/core/state.ts";
import { LEASE_USE, RETRY_BUDGET_MAX, RETRY_BUDGET_SHARE, RETRY_BUDGET_START, RETRY_CAP_MS, RETRY_SPREAD_MS } from "../../shared/limits.ts";
import type { Grant, Report } from "../../shared/protocol/admission.ts";
import type { TaskStatus } from "../../shared/protocol/goal.ts";
import { type LineHead, parseLineHead } from "../../shared/protocol/line.ts";
import { type BackupChecker, mayRunAgain } from "./hedges/backups.ts";
import type { Model } from "./model.ts";
import type { Turn } from "./shell.ts";
import { must } from "./violation.ts";

/** The latest grant that was taken, and what was done with it. */
interface Held {
  readonly grant: Grant;
  readonly takenAtMs: number;
  readonly untilMs: number;
  /** The registry that it may rest on. */
  readonly version: number;
  /** Calls that may still be started. */
  starts: number;
}

/** One life of the goal at one upstream. */
interface Client {
  readonly sent: Map<number, { readonly atMs: number; readonly version: number }>;
  seq: number;
  held: Held | null;
  /** Permits of calls that failed, and those of them that the latest report told of. */
  spoiled: number;
  spoiledSaid: number;
  budget: number;
  nextRetryAtMs: number;
  /** Calls that met something, and how many of them were reported. */
  met: number;
  reported: number;
  /** Calls that were to be aborted, and may still be open. */
  closing: number;
}

/** A line that settled its task in this turn. */
interface Settled {
  readonly head: LineHead;
  readonly client: Client;
  readonly isOpen: boolean;
  readonly verdict: "answered" | "refused" | "unavailable" | "nothing";
  /** It was the failure of one of two tries, and decided nothing. */
  readonly isUndecided: boolean;
}

const BACKOFF = 3;
const CUT_OFF = 499;
const UNSENDABLE = 400;
const GIVEN_BACK = 498;

/** What a call's end says of the upstream, written a second time. */
function verdictOf({ outcome, status }: LineHead): Settled["verdict"] {
  if (outcome === "timeout") return "refused";
  if (outcome === "broken") return status === CUT_OFF ? "nothing" : "unavailable";
  if (outcome === "not_sent") return status === UNSENDABLE || status === GIVEN_BACK ? "nothing" : "unavailable";
  if (outcome === "too_large") return "answered";
  if (status === 429 || status === 503) return "refused";
  return status === 502 || status === 504 ? "unavailable" : "answered";
}

/** Whether it is a failure that another attempt may follow. What was given back was no attempt. */
function mayRepeat({ outcome, status }: LineHead, isIdempotent: boolean): boolean {
  if (outcome === "not_sent") return status !== GIVEN_BACK;
  if (outcome === "timeout" || outcome === "broken") return isIdempotent;
  if (outcome === "too_large" || status < 400) return false;
  return [408, 425, 429].includes(status) || (isIdempotent && status >= 500);
}

export class PermitChecker {
  readonly #model: Model;
  #clients = new Map<string, Client>();
  #life = "";
  /** Failures that count, by task. */
  readonly #failures = new Map<number, number>();
  /** Whether every line of this life so far was judged as the goal judged it. */
  #isSure = true;
  /** Lines of this life that the goal dropped, and that were counted here. */
  #takenAlong = 0;

  readonly #backups: BackupChecker;

  constructor(model: Model, backups: BackupChecker) {
    this.#model = model;
    this.#backups = backups;
  }

  /** `sent` has each task's last attempt before this turn; `late` says how many lines the goal has dropped in it. */
  turn(turn: Turn, before: readonly TaskStatus[], statuses: readonly TaskStatus[], sent: ReadonlyMap<number, number>, late: number): void {
    const { state, nowMs } = turn;
    const isFirst = state.life !== this.#life;
    if (isFirst) {
      this.#life = state.life;
      this.#clients = new Map();
      this.#isSure = true;
      this.#takenAlong = 0;
    }
    const settled = this.#settled(turn, before, sent, isFirst);
    const isOfRun = (line: string): boolean => this.#model.tasks.get(parseLineHead(line).task)?.spec.run !== undefined;
    // A line may take a call along whose own line comes after it.
    const uncounted = turn.settled.filter((line) => !isOfRun(line)).length - settled.length;
    if (uncounted !== late) this.#isSure = false;
    this.#takenAlong += Math.max(0, late - uncounted);
    this.#grants(turn, statuses);
    this.#closing(turn);
    for (const each of settled) if (!each.isUndecided) this.#failure(each, state, statuses, nowMs);
    this.#sends(turn);
    for (const report of turn.reports) this.#report(report, state, nowMs);
  }

  #client(name: string): Client {
    let client = this.#clients.get(name);
    if (client === undefined) {
      client = {
        sent: new Map(),
        seq: 0,
        held: null,
        spoiled: 0,
        spoiledSaid: 0,
        budget: RETRY_BUDGET_START,
        nextRetryAtMs: 0,
        met: 0,
        reported: 0,
        closing: 0,
      };
      this.#clients.set(name, client);
    }
    return client;
  }

  /** The lines that counted: of the current attempt of a task that ran. A new incarnation takes back what may be repeated first. */
  #settled({ settled }: Turn, before: readonly TaskStatus[], sent: ReadonlyMap<number, number>, isFirst: boolean): Settled[] {
    const seen = new Set<number>();
    const counted: Settled[] = [];
    for (const [place, head] of settled.map(parseLineHead).entries()) {
      const line = this.#backups.lineAt(place);
      const known = this.#model.tasks.get(head.task);
      const isCurrent = before[head.task] === "running" && head.attempt === sent.get(head.task) && !seen.has(head.task);
      if (known === undefined || known.spec.run !== undefined || !isCurrent || (isFirst && known.isIdempotent) || line === "again")
        continue;
      if (line === "whole") seen.add(head.task);
      const client = this.#client(known.upstream!);
      const verdict = verdictOf(head);
      if (verdict !== "nothing") client.met++;
      if (verdict === "refused" || verdict === "unavailable") client.spoiled++;
      // The try that was beaten met something too.
      const other = head.beaten?.status ?? 0;
      if (other > 0) client.met++;
      if ([429, 502, 503, 504].includes(other)) client.spoiled++;
      counted.push({ head, client, verdict, isOpen: client.held?.grant.isOpen ?? false, isUndecided: line === "undecided" });
    }
    return counted;
  }

  #grants({ executed, state, nowMs }: Turn, statuses: readonly TaskStatus[]): void {
    for (const { command } of executed) {
      if (command.kind !== "grant" || command.life !== this.#life) continue;
      const { grant, upstream } = command;
      const client = this.#client(upstream);
      const { held } = client;
      const isLater =
        held === null || grant.epoch > held.grant.epoch || (grant.epoch === held.grant.epoch && grant.number > held.grant.number);
      // What answers an earlier report is void: its governor counts it no more.
      if (!isLater || grant.seq !== client.seq) continue;
      const { atMs, version } = client.sent.get(grant.seq)!;
      client.held = { grant, takenAtMs: nowMs, untilMs: atMs + grant.ttlMs * LEASE_USE, version, starts: grant.starts ?? Infinity };
      client.spoiled -= client.spoiledSaid;
      client.spoiledSaid = 0;
      if (held === null || !held.grant.isOpen || grant.isOpen) continue;
      const number = state.upstreamNumbers.get(upstream)!;
      const stuck = statuses.findIndex(
        (status, task) => status === "waiting" && state.tasks.reason[task] === BACKOFF && state.tasks.upstream[task] === number,
      );
      must(stuck < 0, "when an upstream is back nothing waits for the end of its backoff", () => `task ${stuck}`);
    }
  }

  /** Calls that are aborted count as open until they are closed. */
  #closing({ state, aborts, executed }: Turn): void {
    const nameOf = (upstream: number): string => state.upstreams[upstream]!.name;
    for (const [, task] of aborts) this.#client(nameOf(state.tasks.upstream[task]!)).closing++;
    for (const { command } of executed) if (command.kind === "closed") this.#client(nameOf(command.upstream)).closing -= command.count;
    for (const [name, { closing }] of this.#clients) {
      const kept = state.admissions[state.upstreamNumbers.get(name)!]?.closing ?? 0;
      must(kept === closing, "aborted calls count as open until they are closed", () => `${kept} for ${closing} at ${name}`);
    }
  }

  /** What becomes of a failure: not held against the task while the upstream is down, otherwise counted, and retried within the budget. */
  #failure({ head, client, verdict, isOpen }: Settled, state: GoalState, statuses: readonly TaskStatus[], nowMs: number): void {
    const { tasks } = state;
    const { task } = head;
    const answers = (verdict === "answered" ? 1 : 0) + (head.beaten?.status === 500 ? 1 : 0);
    client.budget = Math.min(RETRY_BUDGET_MAX, client.budget + answers * RETRY_BUDGET_SHARE);
    const before = this.#failures.get(task) ?? 0;
    if (mayRepeat(head, this.#model.tasks.get(task)!.isIdempotent) && (!isOpen || verdict === "answered")) {
      if (before + 1 < tasks.maxAttempts[task]!) {
        this.#failures.set(task, before + 1);
        this.#retry(client, tasks.dueAtMs[task]!, statuses[task] === "waiting" && tasks.reason[task] === BACKOFF, nowMs);
      } else must(!this.#isSure || statuses[task] === "failed", "the last failure ends the task", () => `task ${task}`);
    }
    const counted = this.#failures.get(task) ?? 0;
    const kept = tasks.failures[task]!;
    must(!this.#isSure || kept === counted, "a failure counts unless the upstream is down", () => `task ${task}: ${kept} for ${counted}`);
    // What was not judged alike is not held against later turns.
    this.#failures.set(task, kept);
  }

  #retry(client: Client, dueAtMs: number, isWaiting: boolean, nowMs: number): void {
    if (client.budget >= 1) {
      client.budget--;
      return;
    }
    client.nextRetryAtMs = Math.max(client.nextRetryAtMs, nowMs) + RETRY_SPREAD_MS;
    const leastMs = Math.min(client.nextRetryAtMs, nowMs + RETRY_CAP_MS);
    const isSpread = !isWaiting || !this.#isSure || dueAtMs >= leastMs;
    must(isSpread, "retries beyond the budget are spread", () => `due ${leastMs - dueAtMs} ms too early`);
  }

  #sends({ state, sends, nowMs }: Turn): void {
    for (const { upstream, origin, tasks, hedges } of sends) {
      const { name, config, lanes, running } = state.upstreams[upstream]!;
      if (name.startsWith("run:")) continue;
      const { held, closing, spoiled } = this.#client(name);
      must(held !== null, "nothing starts without a permit", () => name);
      const { grant } = held;
      held.starts -= tasks.length + (hedges?.left ?? 0);
      const calls = grant.calls - spoiled;
      must(nowMs < held.untilMs, "nothing starts after the end of its lease", () => `${name}, ${nowMs - held.untilMs} ms`);
      must(
        lanes + closing <= calls + this.#takenAlong,
        "no more calls than permits",
        () => `${lanes} and ${closing} for ${calls} at ${name}`,
      );
      const max = config!.maxConcurrency;
      must(max === null || running <= max, "the window is maxConcurrency", () => `${running} for ${max!} at ${name}`);
      must(held.starts >= 0, "no more starts than were granted", () => `${-held.starts} too many at ${name}`);
      must(nowMs >= held.takenAtMs + grant.gateMs, "a gate that the governor closed is kept", () => name);
      must(origin < config!.origins.length, "only an origin that there is is called", () => `${origin} of ${name}`);
      const may = grant.origins?.filter((place) => place < config!.origins.length) ?? [];
      must(may.length === 0 || may.includes(origin), "an origin that rests is not called", () => `${origin} of ${name}`);
    }
  }

  /** Whether the permits at an upstream rest on the latest registry. */
  isUpToDate(name: string, version: number): boolean {
    return this.#clients.get(name)?.held?.version === version;
  }

  #report(report: Report, state: GoalState, nowMs: number): void {
    const { name } = report.upstream;
    const client = this.#client(name);
    const { grant } = client.held ?? { grant: null };
    must(report.life === this.#life && report.seq === client.seq + 1, "reports are numbered", () => `${report.seq} to ${name}`);
    client.seq = report.seq;
    client.spoiledSaid = client.spoiled;
    client.sent.set(report.seq, { atMs: nowMs, version: report.version });
    const isLatest = report.epoch === (grant?.epoch ?? 0) && report.taken === (grant?.number ?? 0);
    must(isLatest, "a report names the latest grant", () => `${report.epoch}.${report.taken} to ${name}`);
    must(report.held <= (grant?.calls ?? 0), "nobody holds more than was granted", () => `${report.held} of ${name}`);
    const unused = client.held?.starts ?? 0;
    must(report.unusedStarts === (unused === Infinity ? 0 : unused), "unused starts are given back", () => `${unused} at ${name}`);
    if (client.held !== null && unused !== Infinity) client.held.starts = 0;
    const { lanes, wanted, config } = state.upstreams[state.upstreamNumbers.get(name)!]!;
    const isOpen = report.inUse === lanes + client.closing;
    must(isOpen, "a report says what is open", () => `${report.inUse} for ${lanes} and ${client.closing} at ${name}`);
    const isWorking = state.goal!.phase === "active" && !state.goal!.paused && !state.budget.isExhausted && config !== null;
    const wants = isWorking ? [...wanted] : [0, 0, 0];
    // Some of what runs may be wanted a second time.
    const again = isWorking ? Math.min(mayRunAgain(state, this.#model, name), report.wants[2] - wants[2]!) : 0;
    wants[2] = wants[2]! + Math.max(0, again);
    must(
      String(report.wants) === String(wants),
      "a report says what is wanted",
      () => `${String(report.wants)} for ${String(wants)} at ${name}`,
    );
    for (const { reached, refused, unavailable } of report.sample.origins) client.reported += reached + refused + unavailable;
    const isWhole = !this.#isSure || client.reported === client.met;
    must(isWhole, "reports carry what every call met, once", () => `${client.reported} for ${client.met} at ${name}`);
  }
}
