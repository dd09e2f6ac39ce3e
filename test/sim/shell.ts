/**
 * One incarnation of the goal's object, in virtual time. It does what the real
 * shell does: commands are gathered for a turn; all steps and one commit run in
 * one synchronous turn; then sends, then replies. One alarm on disk, one timer
 * in memory. A commit that fails ends the incarnation.
 */
import type { Out, Send } from "../../durable-objects/goal/core/recorder.ts";
import type { Refusal } from "../../durable-objects/goal/core/settle.ts";
import { type GoalState, newState } from "../../durable-objects/goal/core/state.ts";
import { askAtMs } from "../../durable-objects/goal/core/admission.ts";
import { type Command, type Reply, step } from "../../durable-objects/goal/core/step.ts";
import { isBusy, wakeAt } from "../../durable-objects/goal/core/wake.ts";
import { WATCHDOG_MS } from "../../shared/limits.ts";
import type { Grant, Report } from "../../shared/protocol/admission.ts";
import type { TaskSpec } from "../../shared/protocol/task.ts";
import type { Bearer } from "../../shared/token/claims.ts";
import type { Clock } from "./clock.ts";
import type { Faults } from "./faults.ts";
import type { Random } from "./random.ts";
import { type Disk, NEVER } from "./storage.ts";

export interface Ask {
  /** Null where the asker does not repeat itself. */
  readonly id: string | null;
  readonly command: Command;
  readonly bearer?: Bearer | undefined;
  readonly answer: (text: string) => void;
}

/** A command that ran in a turn, as the checkers see it. */
export interface Executed {
  readonly id: string | null;
  readonly command: Command;
  readonly bearer: Bearer | undefined;
  readonly reply: Reply;
}

/** What one turn did. */
export interface Turn {
  readonly nowMs: number;
  readonly state: GoalState;
  readonly executed: readonly Executed[];
  readonly sends: readonly Send[];
  readonly aborts: Out["aborts"];
  readonly reports: readonly Report[];
  readonly settled: readonly string[];
  /** Batches that ended, or were lost. */
  readonly closed: readonly { readonly batch: number; readonly refusal: Refusal | undefined }[];
  readonly changes: number;
}

export interface Surroundings {
  readonly clock: Clock;
  readonly disk: Disk;
  readonly random: Random;
  readonly faults: Faults;
  readonly snapshotRows: number;
  /** Tells this incarnation's permits from those of the last one. */
  readonly life: string;
  readonly send: (shell: Shell, send: Send) => void;
  readonly exchange: (shell: Shell, report: Report) => void;
  /** The permits at an upstream were renewed. */
  readonly renew: (shell: Shell, upstream: number) => void;
  readonly abort: (shell: Shell, attempts: Out["aborts"]) => void;
  readonly observe: (turn: Turn) => void;
  readonly crash: (shell: Shell, why: string) => void;
  readonly destroy: () => void;
  /** What goals have to tell one another; left out where there is only one. */
  readonly relate?: (shell: Shell, out: Pick<Out, "orders" | "report" | "funds">) => void;
}

export class Shell {
  readonly state: GoalState;
  isDead = false;
  readonly #around: Surroundings;
  #asks: Ask[] = [];
  #lines: string[] = [];
  #closed: { readonly batch: number; readonly refusal: Refusal | undefined }[] = [];
  #isRecovered = false;
  #timerAtMs = NEVER;
  #alarmAtMs = NEVER;

  constructor(around: Surroundings) {
    this.#around = around;
    this.state = { ...around.disk.load(), life: around.life };
    if (isBusy(this.state)) this.#schedule(around.clock.nowMs);
  }

  ask(ask: Ask): void {
    this.#asks.push(ask);
    this.#schedule(this.#around.clock.nowMs + this.#around.random.between(0, 3));
  }

  take(lines: readonly string[]): void {
    this.#lines.push(...lines);
    this.#schedule(this.#around.clock.nowMs + this.#around.random.between(0, 20));
  }

  close(batch: number, refusal?: Refusal): void {
    this.#closed.push({ batch, refusal });
    this.#schedule(this.#around.clock.nowMs + this.#around.random.between(0, 20));
  }

  grant(upstream: string, life: string, grant: Grant): void {
    const number = (): number => this.state.upstreamNumbers.get(upstream)!;
    this.ask({ id: null, command: { kind: "grant", upstream, life, grant }, answer: () => this.#around.renew(this, number()) });
  }

  /** A call that was aborted is closed. */
  aborted(upstream: number): void {
    this.ask({ id: null, command: { kind: "closed", upstream, count: 1 }, answer: () => undefined });
  }

  unanswered(upstream: string): void {
    this.ask({ id: null, command: { kind: "unanswered", upstream }, answer: () => undefined });
  }

  /** How long the permits at an upstream last; null where it sets no hard bound. */
  permitMs(upstream: number): number | null {
    if (this.state.upstreams[upstream]!.name.startsWith("run:")) return null;
    if (this.state.upstreams[upstream]!.config?.maxConcurrency === null) return null;
    return Math.max(0, (this.state.admissions[upstream]?.lease.untilMs ?? 0) - this.#around.clock.nowMs);
  }

  wake(): void {
    this.#alarmAtMs = NEVER;
    this.#schedule(this.#around.clock.nowMs);
  }

  #schedule(atMs: number): void {
    if (atMs >= this.#timerAtMs) return;
    this.#timerAtMs = atMs;
    this.#around.clock.at(atMs, () => {
      if (!this.isDead && this.#timerAtMs === atMs) this.#turn();
    });
  }

  #turn(): void {
    const { clock, disk, random, faults, observe, crash } = this.#around;
    const nowMs = clock.nowMs;
    this.#timerAtMs = NEVER;
    const row = disk.nextRow;
    const kept: string[] = [];
    const offers: [number, readonly unknown[]][] = [];
    const out: Out = {
      changes: [],
      sends: [],
      aborts: [],
      reports: [],
      values: [],
      lines: [],
      lockMessages: [],
      flightMessages: [],
      warms: [],
      orders: [],
      report: null,
      keep: (line) => ({ row, index: kept.push(line) - 1 }),
      callOf: (offer, place) => {
        const fresh = offers.find(([number]) => number === offer)?.[1];
        return ((fresh ?? (JSON.parse(disk.offers.get(offer)!) as unknown[]))[place] as TaskSpec).call;
      },
      destroy: false,
    };
    const executed: Executed[] = [];
    const replies: [string, string][] = [];
    const closed = [...this.#closed];
    const settled = this.#stepReports(nowMs, out);
    const asks = this.#asks.splice(0);
    const answers = asks.map(({ id, command, bearer }) => {
      const earlier = id === null ? undefined : (disk.replies.get(id) ?? replies.find(([key]) => key === id)?.[1]);
      if (earlier !== undefined) return earlier;
      const offer = this.state.nextOffer;
      const reply = step(this.state, nowMs, command, out, bearer);
      this.#isRecovered ||= command.kind === "create" || command.kind === "obey";
      executed.push({ id, command, bearer, reply });
      if (this.state.nextOffer > offer) offers.push([offer, specsOf(command)]);
      const text = textOf(reply, this.state);
      if (id !== null && reply.ok) replies.push([id, text]);
      return text;
    });
    step(this.state, nowMs, { kind: "dispatch", seed: random.between(0, 2 ** 32 - 1) }, out);
    if (this.state.goal === null) Object.assign(this.state, newState(), { life: this.#around.life });
    else if (out.changes.length > 0 || replies.length > 0) {
      if (random.chance(faults.commitFails)) return crash(this, "commit failed");
      disk.commit({ changes: out.changes, offers, row, lines: kept, replies });
    }
    this.#arm(nowMs);
    observe({
      nowMs,
      state: this.state,
      executed,
      sends: out.sends,
      aborts: out.aborts,
      reports: out.reports,
      settled,
      closed,
      changes: out.changes.length,
    });
    if (random.chance(faults.crashAfterCommit)) return crash(this, "died after a commit");
    this.#release(out, asks, answers);
  }

  /** What time and executors bring, before what callers ask. */
  #stepReports(nowMs: number, out: Out): readonly string[] {
    if (this.state.goal === null) return [];
    if (!this.#isRecovered) step(this.state, nowMs, { kind: "recover" }, out);
    this.#isRecovered = true;
    const lines = this.#lines.splice(0);
    const seed = this.#around.random.between(0, 2 ** 32 - 1);
    if (lines.length > 0) step(this.state, nowMs, { kind: "settle", lines, seed }, out);
    for (const lost of this.#closed.splice(0)) step(this.state, nowMs, { kind: "batch-lost", ...lost }, out);
    step(this.state, nowMs, { kind: "tick" }, out);
    return lines;
  }

  /** Nothing of a turn leaves before its commit. */
  #release(out: Out, asks: readonly Ask[], answers: readonly string[]): void {
    const { disk, send, exchange, abort, destroy, snapshotRows } = this.#around;
    for (const each of out.sends) send(this, each);
    this.#around.relate?.(this, out);
    for (const each of out.reports) exchange(this, each);
    if (out.aborts.length > 0) abort(this, out.aborts);
    asks.forEach(({ answer }, i) => answer(answers[i]!));
    if (disk.journalRows >= snapshotRows) disk.compact(this.state);
    if (out.destroy) destroy();
  }

  #arm(nowMs: number): void {
    const { disk, clock } = this.#around;
    const askMs = askAtMs(this.state);
    if (askMs !== null) this.#schedule(Math.max(Math.ceil(askMs), nowMs + 1));
    const wakeMs = wakeAt(this.state);
    if (wakeMs === null) return;
    const alarmMs = Math.ceil(Math.max(nowMs, isBusy(this.state) ? Math.min(wakeMs, nowMs + WATCHDOG_MS) : wakeMs)) + 1;
    if (wakeMs <= nowMs + WATCHDOG_MS) this.#schedule(Math.max(Math.ceil(wakeMs), clock.nowMs + 1));
    if (alarmMs >= this.#alarmAtMs) return;
    this.#alarmAtMs = alarmMs;
    disk.alarmAtMs = alarmMs;
  }
}

function specsOf(command: Command): readonly unknown[] {
  if (command.kind === "create") return command.tasks.specs;
  if (command.kind === "submit") return command.specs;
  if (command.kind === "settle-claims") return command.spawn.specs;
  if (command.kind === "obey") return command.birth!.tasks.specs;
  throw new Error(`${command.kind} brings no tasks`);
}

/** The answer as it is stored and sent. */
function textOf(reply: Reply, { tasks }: GoalState): string {
  if (!reply.ok) return JSON.stringify({ error: reply.error.code });
  const { receipts, task, reservation, grant, standings, report, word, funds } = reply.value;
  const claims = grant && { ...grant, attempts: grant.tasks.map((claimed) => tasks.attempt[claimed]!) };
  return JSON.stringify({
    tasks: receipts === undefined ? undefined : [...receipts.tasks],
    task,
    reservation,
    grant: claims,
    standings,
    report,
    word,
    funds,
  });
}
