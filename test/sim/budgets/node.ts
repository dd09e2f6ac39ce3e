/**
 * A goal of the budget's world: the real core, a journal that is rebuilt after
 * every crash, and one commit a turn. Calls go to an upstream that always
 * takes them, so that the budget alone holds them up.
 */
import { apply } from "../../../durable-objects/goal/core/apply.ts";
import { setBoundsAbove } from "../../../durable-objects/goal/core/budget.ts";
import type { Change } from "../../../durable-objects/goal/core/change.ts";
import { type Out, Recorder } from "../../../durable-objects/goal/core/recorder.ts";
import { toSnapshot } from "../../../durable-objects/goal/core/snapshot.ts";
import { type GoalState, newState } from "../../../durable-objects/goal/core/state.ts";
import { type Command, type Reply, step } from "../../../durable-objects/goal/core/step.ts";
import { goalIdFrom } from "../../../shared/ids.ts";
import type { Grant } from "../../../shared/protocol/admission.ts";
import type { NamedAmounts } from "../../../shared/protocol/budget.ts";
import type { TaskSpec } from "../../../shared/protocol/task.ts";
import type { Upstream } from "../../../shared/protocol/upstream.ts";
import { must } from "../violation.ts";

const LIFE = "0123456789abcdef";
const FOREVER_MS = 1e15;

export const UPSTREAM: Upstream = {
  name: "api",
  origins: ["http://localhost:1"],
  maxConcurrency: 6,
  ratePerSecond: null,
  tokensPerMinute: null,
  reserve: { tokens: 10, costMicros: 0 },
  usage: { tokens: "/tokens", costMicros: null },
  timeoutMs: 500,
  idempotency: "none",
  retry: { maxAttempts: 3 },
  headers: {},
};

/** What survives a crash. */
interface Disk {
  readonly journal: string[];
  readonly offers: Map<number, string>;
  readonly replies: Map<string, string>;
  /** Children whose accounts are closed. */
  readonly closed: Set<string>;
}

export interface Asked {
  readonly command: Command;
  /** The caller's key; null where it does not repeat itself. */
  readonly key: string | null;
}

/** What a turn did once it was durable. */
export interface Done<T> {
  readonly value: T;
  readonly out: Out;
}

export class Node {
  readonly name: string;
  readonly disk: Disk = { journal: [], offers: new Map(), replies: new Map(), closed: new Set() };
  state: GoalState = { ...newState(), life: LIFE };
  #isRecovered = true;
  #grants = 0;

  constructor(name: string) {
    this.name = name;
  }

  create(nowMs: number, budget: NamedAmounts, isBounded: readonly boolean[]): void {
    const id = goalIdFrom(nowMs, new TextEncoder().encode(this.name.padEnd(16, "-")).slice(0, 16));
    const spec = { name: "", labels: {}, deadlineMs: null, retentionMs: 1e9, completion: {}, sealed: false, weight: 1, budget };
    const tasks = { specs: [], failures: new Map(), contentKeys: new Map() };
    this.turn(nowMs, 0, (rec) => {
      step(rec.state, nowMs, { kind: "create", id, spec, registry: { version: 1, upstreams: [UPSTREAM] }, tasks }, rec.out);
      setBoundsAbove(rec, isBounded);
    });
  }

  /** The state as a new incarnation would have it. */
  rebuilt(): GoalState {
    const state = { ...newState(), life: LIFE };
    const readOffer = (offer: number): readonly unknown[] => JSON.parse(this.disk.offers.get(offer)!) as unknown[];
    for (const row of this.disk.journal) for (const change of JSON.parse(row) as Change[]) apply(state, change, readOffer);
    return state;
  }

  crash(): void {
    this.state = this.rebuilt();
    this.#isRecovered = false;
  }

  compare(): void {
    const text = (state: GoalState): string => JSON.stringify(toSnapshot(state).meta);
    must(text(this.rebuilt()) === text(this.state), "the state on disk is the state in memory", () => this.name);
  }

  /** Runs `work`, sends what can be afforded, and commits. Null where the commit failed: the node has died. */
  turn<T>(nowMs: number, seed: number, work: (rec: Recorder) => T, commitFails = false): Done<T> | null {
    const out: Out = {
      changes: [],
      sends: [],
      aborts: [],
      reports: [],
      keep: () => ({ row: 1, index: 0 }),
      callOf: () => ({ upstream: "api", path: "/" }),
      values: [],
      lines: [],
      lockMessages: [],
      flightMessages: [],
      warms: [],
      orders: [],
      report: null,
      destroy: false,
    };
    const replies = new Map(this.disk.replies);
    const closed = new Set(this.disk.closed);
    const offers: [number, string][] = [];
    this.#pending = { replies, closed, offers };
    if (!this.#isRecovered) step(this.state, nowMs, { kind: "recover" }, out);
    this.#isRecovered = true;
    if (this.state.goal !== null) step(this.state, nowMs, { kind: "tick" }, out);
    const value = work(new Recorder(this.state, nowMs, out));
    this.#permit(nowMs, out);
    step(this.state, nowMs, { kind: "dispatch", seed }, out);
    if (commitFails) {
      this.crash();
      return null;
    }
    this.disk.journal.push(JSON.stringify(out.changes));
    for (const [offer, text] of offers) this.disk.offers.set(offer, text);
    for (const [key, text] of replies) this.disk.replies.set(key, text);
    for (const key of closed) this.disk.closed.add(key);
    return { value, out };
  }

  #pending: { replies: Map<string, string>; closed: Set<string>; offers: [number, string][] } = {
    replies: new Map(),
    closed: new Set(),
    offers: [],
  };

  /** A caller's command inside a turn, with the reply that its key has already. */
  answer(rec: Recorder, { command, key }: Asked): string {
    const { replies, offers } = this.#pending;
    const earlier = key === null ? undefined : replies.get(key);
    if (earlier !== undefined) return earlier;
    const offer = this.state.nextOffer;
    const reply: Reply = step(this.state, rec.nowMs, command, rec.out);
    if (this.state.nextOffer > offer) offers.push([offer, JSON.stringify((command as { specs: readonly TaskSpec[] }).specs)]);
    const text = JSON.stringify(reply.ok ? { reservation: reply.value.reservation ?? null } : { error: reply.error.code });
    if (key !== null && reply.ok) replies.set(key, text);
    return text;
  }

  /** The child is closed with this commit. */
  noteClosed(child: string): void {
    this.#pending.closed.add(child);
  }

  /** A governor that gives whatever is asked for, so that the budget is all that binds. */
  #permit(nowMs: number, out: Out): void {
    if (this.state.goal === null) return;
    const seq = this.state.admissions[0]?.lease.seq ?? 0;
    const always = { epoch: 1, starts: null, ttlMs: FOREVER_MS, gateMs: 0, isOpen: false, origins: null, callsPerSecond: 0 };
    const grant: Grant = { ...always, number: ++this.#grants, seq, calls: 6 };
    step(this.state, nowMs, { kind: "grant", upstream: "api", life: LIFE, grant }, out);
  }
}
