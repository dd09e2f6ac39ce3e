/** A shard of the tenant's locks on a disk that keeps what was committed, in virtual time. It crashes, and its answers get lost. */
import { type Command, type Out, type Reply, type Settled, step, tick } from "../../../durable-objects/locks/core/step.ts";
import { applyLock, type LockChange } from "../../../shared/policy/lock-steps.ts";
import { imageOfLocks, type LockImage, locksFrom, type LockTable, newLockTable } from "../../../shared/policy/lock-table.ts";
import type { Clock } from "../clock.ts";
import type { Random } from "../random.ts";
import { Violation } from "../violation.ts";

export interface ShardAround {
  readonly clock: Clock;
  readonly random: Random;
  readonly crashes: () => number;
  /** Hears every change that is durable, in order. */
  readonly committed: (change: LockChange, table: LockTable) => void;
  /** Hears the end of each wait, after the commit; whether that reaches anybody is another matter. */
  readonly settled: (settled: Settled) => void;
}

export class ShardSim {
  readonly #around: ShardAround;
  #snapshot: string | null = null;
  #journal: string[] = [];
  #table: LockTable = newLockTable();
  #life = 0;

  constructor(around: ShardAround) {
    this.#around = around;
  }

  get table(): LockTable {
    return this.#table;
  }

  /** Runs a command; null where the shard dies before anybody hears of it, whether or not it was kept. */
  run(command: Command | null): Reply | null {
    const { clock, random, crashes, settled } = this.#around;
    const out: Out = { changes: [], settled: [] };
    tick(this.#table, clock.nowMs, out);
    const reply = command === null ? null : step(this.#table, clock.nowMs, command, out);
    if (out.changes.length > 0 && random.chance(crashes())) return this.#reload();
    this.#commit(out.changes);
    if (random.chance(crashes())) return this.#reload();
    for (const one of out.settled) settled(one);
    this.#wakeLater();
    return reply;
  }

  #commit(changes: readonly LockChange[]): void {
    const { random, committed } = this.#around;
    if (changes.length > 0) this.#journal.push(JSON.stringify(changes));
    for (const change of changes) committed(change, this.#table);
    if (!random.chance(0.05)) return;
    this.#snapshot = JSON.stringify(imageOfLocks(this.#table));
    this.#journal = [];
  }

  #reload(): null {
    const kept = this.#kept();
    this.#life++;
    this.#table = kept;
    this.#wakeLater();
    return null;
  }

  #kept(): LockTable {
    const table = this.#snapshot === null ? newLockTable() : locksFrom(JSON.parse(this.#snapshot) as LockImage);
    for (const text of this.#journal) for (const change of JSON.parse(text) as LockChange[]) applyLock(table, change);
    return table;
  }

  /** Memory holds exactly what disk does. */
  compare(): void {
    const [memory, disk] = [this.#table, this.#kept()].map((table) => JSON.stringify(imageOfLocks(table)));
    if (memory !== disk) throw new Violation(`a shard rebuilt from disk equals the one in memory: ${disk} ${memory}`);
  }

  #wakeLater(): void {
    const { clock } = this.#around;
    const life = this.#life;
    const atMs = this.#table.dueAtMs;
    if (atMs === Number.MAX_SAFE_INTEGER) return;
    clock.at(Math.max(atMs, clock.nowMs + 1), () => {
      if (life === this.#life && this.#table.dueAtMs <= clock.nowMs) this.run(null);
    });
  }
}
