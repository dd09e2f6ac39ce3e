/** What must hold of locks, judged from what was committed and from who may believe that it holds what. */
import type { LockChange } from "../../../shared/policy/lock-steps.ts";
import type { LockTable } from "../../../shared/policy/lock-table.ts";
import { Violation } from "../violation.ts";

interface Trust {
  readonly holder: string;
  readonly fence: number;
  readonly isShared: boolean;
  untilMs: number;
}

export class LockChecker {
  /** Who may act as a holder now, by lock. */
  readonly #trusted = new Map<string, Map<string, Trust>>();
  readonly #highest = new Map<string, number>();
  #nextSeq = 1;
  /** By the number of a request: its lock and its holder. */
  readonly #asked = new Map<number, { readonly name: string; readonly holder: string }>();
  readonly #served = new Map<string, number>();
  grants = 0;

  /** Somebody may take itself for a holder until then. */
  trust(name: string, { holder, fence, isShared, untilMs }: Trust, nowMs: number): void {
    const all = this.#trusted.get(name) ?? new Map<string, Trust>();
    this.#trusted.set(name, all);
    for (const other of all.values()) {
      if (other.untilMs <= nowMs) all.delete(other.holder);
      else if (other.holder !== holder && other.fence !== fence && !(isShared && other.isShared)) {
        throw new Violation(
          `a lock has one exclusive holder: "${name}" is held by ${other.holder} (${other.fence}) and ${holder} (${fence})`,
        );
      }
    }
    const isNew = all.get(holder)?.fence !== fence;
    const highest = this.#highest.get(name) ?? 0;
    if (isNew && !isShared && fence < highest) throw new Violation(`fences rise: "${name}" had ${highest}, and ${holder} got ${fence}`);
    this.#highest.set(name, Math.max(highest, fence));
    all.set(holder, { holder, fence, isShared, untilMs });
  }

  distrust(name: string, holder: string): void {
    this.#trusted.get(name)?.delete(holder);
  }

  /** A change of the shard that is durable. */
  committed(change: LockChange, table: LockTable): void {
    if (change.kind === "asked") {
      const { holder, wants } = change.request;
      this.#asked.set(this.#nextSeq++, { name: wants[0]!.name, holder });
    }
    if (change.kind === "gone") this.#asked.delete(change.seq);
    if (change.kind !== "granted") return;
    this.grants++;
    const request = this.#asked.get(change.seq);
    if (request === undefined) throw new Violation(`nobody gets a lock who waits no more: request ${change.seq}`);
    this.#asked.delete(change.seq);
    const { name } = request;
    if (change.seq < (this.#served.get(name) ?? 0))
      throw new Violation(`locks are given in the order of arrival: "${name}", request ${change.seq}`);
    for (const [seq, other] of this.#asked) {
      if (other.name === name && seq < change.seq) throw new Violation(`nobody overtakes: "${name}", ${change.seq} before ${seq}`);
    }
    this.#served.set(name, change.seq);
    const modes = [...(table.locks.get(name)?.holds.values() ?? [])].map(({ mode }) => mode);
    if (modes.length > 1 && modes.includes("exclusive"))
      throw new Violation(`an exclusive holder is alone: "${name}" has ${modes.join(", ")}`);
  }

  /** A wait has ended without the lock, and its caller is told so. */
  gaveUp(seq: number): void {
    const request = this.#asked.get(seq);
    if (request !== undefined) throw new Violation(`whoever is told that its wait is over waits no more: ${request.holder}`);
  }
}
