/**
 * The Durable Object of a shard of the tenant's locks. Commands are gathered;
 * their steps and one commit run in one synchronous turn, and each caller is
 * answered after it: a grant is durable before anybody hears of it. The release
 * of one holder and the grant to the next are one row.
 */
import { DurableObject } from "cloudflare:workers";
import { LOCK_CALM_MS, LOCKS_ALONE_MAX, WATCHDOG_MS } from "../../shared/limits.ts";
import {
  type Granted,
  held,
  type LockMessage,
  type LockNews,
  type LockRelease,
  type LockView,
  viewOf,
} from "../../shared/policy/lock-steps.ts";
import type { LockTable } from "../../shared/policy/lock-table.ts";
import { err, ok } from "../../shared/result.ts";
import type { LockShardRpc, OutsideAsk } from "../../shared/rpc-locks.ts";
import type { Answer, GoalRpc } from "../../shared/rpc.ts";
import { type Command, type Out, type Reply, step, tick } from "./core/step.ts";
import { LockStore } from "./store.ts";

type Line = (answer: Answer<Granted>) => void;

interface Asked {
  readonly command: Command;
  /** Called after the commit. */
  readonly answer: (reply: Reply) => void;
}

export class Locks extends DurableObject<Env> implements LockShardRpc {
  readonly #store: LockStore;
  readonly #table: LockTable;
  /** Who is on the line, by the number of its request. They are lost with the incarnation; their places are not. */
  readonly #lines = new Map<number, Line>();
  #asked: Asked[] = [];
  /** Commands that came before this, which is when it is calm again unless more come. */
  #came = 0;
  #calmAtMs = 0;
  #timer: number | null = null;
  #timerAtMs = Number.MAX_SAFE_INTEGER;
  #alarmAtMs = Number.MAX_SAFE_INTEGER;

  constructor(ctx: DurableObjectState, env: Env) {
    super(ctx, env);
    this.#store = new LockStore(ctx.storage);
    this.#table = this.#store.load();
  }

  acquireLock(ask: OutsideAsk): Promise<Answer<Granted>> {
    return new Promise((resolve) => {
      this.#ask({ kind: "acquire", ask: { ...ask, owner: null } }, (reply) => {
        if (!reply.ok) return resolve(reply);
        const value = reply.value as { granted: Granted } | { seq: number };
        if ("seq" in value) return this.#hold(value.seq, ask.name, resolve);
        return resolve(ok(value.granted));
      });
    });
  }

  releaseLock(release: LockRelease): Promise<Answer<null>> {
    return new Promise((resolve) => {
      this.#ask({ kind: "release", release }, (reply) => resolve(reply.ok ? ok(null) : reply));
    });
  }

  exchangeLocks(message: LockMessage): Promise<LockNews> {
    return new Promise((resolve) => {
      this.#ask({ kind: "exchange", message }, (reply) => resolve((reply as { value: { news: LockNews } }).value.news));
    });
  }

  async lookAtLock(name: string): Promise<Answer<LockView>> {
    return ok(viewOf(this.#table, name));
  }

  override async alarm(): Promise<void> {
    this.#alarmAtMs = Number.MAX_SAFE_INTEGER;
    this.#turn();
  }

  /** A command that comes alone has its turn at once; those of a herd share one. */
  #ask(command: Command, answer: Asked["answer"]): void {
    this.#asked.push({ command, answer });
    const nowMs = Date.now();
    if (nowMs >= this.#calmAtMs) {
      this.#calmAtMs = nowMs + LOCK_CALM_MS;
      this.#came = 0;
    }
    if (++this.#came > LOCKS_ALONE_MAX || this.#asked.length > 1) this.#schedule(0);
    else this.#turn();
  }

  /** The caller stays on the line until its wait ends. Another line of the same holder ends here. */
  #hold(seq: number, name: string, resolve: Line): void {
    this.#lines.get(seq)?.(err(held(this.#table, name, Date.now())));
    this.#lines.set(seq, resolve);
  }

  #schedule(atMs: number): void {
    if (atMs >= this.#timerAtMs) return;
    clearTimeout(this.#timer);
    this.#timerAtMs = atMs;
    this.#timer = setTimeout(() => this.#turn(), Math.max(0, atMs - Date.now()));
  }

  #turn(): void {
    clearTimeout(this.#timer);
    this.#timerAtMs = Number.MAX_SAFE_INTEGER;
    const asked = this.#asked;
    this.#asked = [];
    try {
      this.#commitAll(asked);
    } catch (error) {
      console.error("a turn of locks failed; the object reloads", error);
      this.ctx.abort(`a turn failed: ${String(error)}`);
      throw error;
    }
  }

  #commitAll(asked: readonly Asked[]): void {
    const nowMs = Date.now();
    const out: Out = { changes: [], settled: [] };
    tick(this.#table, nowMs, out);
    const replies = asked.map(({ command }) => step(this.#table, nowMs, command, out));
    if (out.changes.length > 0) this.#store.commit(out.changes);
    asked.forEach(({ answer }, i) => answer(replies[i]!));
    const nudges = new Map<string, string[]>();
    for (const { request, outcome } of out.settled) {
      this.#lines.get(request.seq)?.(outcome);
      this.#lines.delete(request.seq);
      if (typeof request.owner !== "string") continue;
      const names = request.wants.map(({ name }) => name);
      nudges.set(request.owner, (nudges.get(request.owner) ?? []).concat(names));
    }
    for (const [goalId, names] of nudges) this.ctx.waitUntil(this.#nudge(goalId, names));
    this.#store.compact(this.#table);
    this.#arm(nowMs);
  }

  /** A goal whose turn has come asks, and learns what it has. If it does not hear of it, it asks before the grant ends. */
  async #nudge(goalId: string, names: readonly string[]): Promise<void> {
    const goal: Pick<GoalRpc, "locksFree"> = this.env.GOAL.get(this.env.GOAL.idFromName(goalId));
    try {
      await goal.locksFree(names);
    } catch (error) {
      console.warn(`${goalId} was not told of its locks: ${String(error)}`);
    }
  }

  /** One timer for this incarnation, and one alarm for the next; the alarm is only ever moved earlier. */
  #arm(nowMs: number): void {
    const { dueAtMs } = this.#table;
    if (dueAtMs === Number.MAX_SAFE_INTEGER) return;
    // What is nearer is the timer's business: an alarm is a row.
    if (dueAtMs <= nowMs + WATCHDOG_MS) this.#schedule(Math.max(dueAtMs, nowMs + 1));
    const alarmMs = Math.max(nowMs + WATCHDOG_MS, dueAtMs) + 1;
    if (alarmMs >= this.#alarmAtMs) return;
    this.#alarmAtMs = alarmMs;
    void this.ctx.storage.setAlarm(alarmMs);
  }
}
