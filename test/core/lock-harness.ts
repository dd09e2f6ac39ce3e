/** A shard of locks without a shell: commands in, and what came of them, with every change kept. */
import { type Out, type Reply, step, tick } from "../../durable-objects/locks/core/step.ts";
import { applyLock, type Granted, type LockAsk, type LockChange, serve } from "../../shared/policy/lock-steps.ts";
import { imageOfLocks, type LockImage, locksFrom, newLockTable, type Want } from "../../shared/policy/lock-table.ts";

export const T = 1_000_000;

type Ask = Partial<LockAsk> & { readonly holder: string };

export class Shard {
  table = newLockTable();
  nowMs = T;
  readonly changes: LockChange[] = [];
  /** Ends of waits, in their order: the holder, and its fence or why it has none. */
  readonly told: [holder: string, outcome: number | string][] = [];

  #out(): Out {
    return { changes: [], settled: [] };
  }

  #keep({ changes, settled }: Out): void {
    this.changes.push(...changes);
    for (const { request, outcome } of settled) this.told.push([request.holder, outcome.ok ? outcome.value.fence : outcome.error.code]);
  }

  /** The fence, the code of the failure, or `waits`. */
  acquire(ask: Ask): number | string {
    const reply = this.reply(ask);
    if (!reply.ok) return reply.error.code;
    const value = reply.value as { granted: Granted } | { seq: number };
    return "granted" in value ? value.granted.fence : "waits";
  }

  reply(ask: Ask): Reply {
    const out = this.#out();
    const full: LockAsk = { name: "a", mode: "exclusive", permits: 0, ttlMs: 10_000, waitMs: 60_000, owner: null, ...ask };
    const reply = step(this.table, this.nowMs, { kind: "acquire", ask: full }, out);
    this.#keep(out);
    return reply;
  }

  release(fence: number | null, holder: string | null = null, name = "a"): string {
    const out = this.#out();
    const reply = step(this.table, this.nowMs, { kind: "release", release: { name, fence, holder } }, out);
    this.#keep(out);
    return reply.ok ? "ok" : reply.error.code;
  }

  pass(ms: number): void {
    this.nowMs += ms;
    const out = this.#out();
    tick(this.table, this.nowMs, out);
    this.#keep(out);
  }

  /** Several at once, all or nothing. Whoever can be served is. */
  together(holder: string, wants: readonly Want[]): void {
    const decide = (change: LockChange): void => {
      applyLock(this.table, change);
      this.changes.push(change);
    };
    decide({ kind: "asked", request: { holder, wants, ttlMs: null, deadlineAtMs: null, owner: null } });
    serve(
      this.table,
      wants.map(({ name }) => name),
      ({ seq, holder: who }, fences) => {
        decide({ kind: "granted", seq, fences, expiresAtMs: null });
        this.told.push([who, Math.max(...fences)]);
      },
    );
  }
}

/** What the changes alone give, and what a snapshot gives. */
export function replayed(changes: readonly LockChange[]): LockImage {
  const table = newLockTable();
  for (const change of JSON.parse(JSON.stringify(changes)) as LockChange[]) applyLock(table, change);
  return imageOfLocks(table);
}

export const reloaded = (shard: Shard): LockImage =>
  imageOfLocks(locksFrom(JSON.parse(JSON.stringify(imageOfLocks(shard.table))) as LockImage));

export const exclusive = (name: string): Want => ({ name, mode: "exclusive", permits: 0 });
export const shared = (name: string, permits = 0): Want => ({ name, mode: "shared", permits });
