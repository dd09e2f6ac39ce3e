/**
 * Where an upstream has a hard bound, a call must not outlive its permit:
 * somebody else may have it by then. The permit is renewed while the call is
 * open; a gate that cannot be asked renews nothing, and the call is cut off.
 */
import type { PassRpc } from "../../../shared/rpc.ts";

/** A permit that is about to end is asked for at most this often. */
const RENEW_INTERVAL_MS_MIN = 10;
/** No call begins on less than this without asking. */
const FRESH_MS = 250;
/** A timer that is so late shows that this process is behind. */
const TIMER_LATE_MS = 50;

export class Leash {
  readonly #pass: PassRpc;
  readonly #permitMs: number;
  readonly #cut: () => void;
  #untilMs: number;
  #renewTimer: number | null = null;
  #endTimer: number | null = null;
  #isOff = false;

  /** The gate said `permitMs` in answer to what was asked at `askedAtMs`, so the permit lasts for so long from then at least. */
  constructor(pass: PassRpc, askedAtMs: number, permitMs: number, cut: () => void) {
    this.#pass = pass;
    this.#permitMs = permitMs;
    this.#cut = cut;
    this.#untilMs = askedAtMs + permitMs;
  }

  /**
   * Whether the permit is good now; from then on it is watched, and `cut` is
   * called when it ends. After a wait nobody knows how old the permit is, so
   * the gate is asked.
   */
  async take(): Promise<boolean> {
    if (this.#untilMs - Date.now() < Math.max(FRESH_MS, this.#permitMs / 2)) await this.#renew();
    if (this.#untilMs <= Date.now()) return false;
    this.#arm();
    return true;
  }

  /** The call has ended. */
  release(): void {
    this.#isOff = true;
    clearTimeout(this.#renewTimer);
    clearTimeout(this.#endTimer);
  }

  #arm(): void {
    const leftMs = this.#untilMs - Date.now();
    clearTimeout(this.#renewTimer);
    clearTimeout(this.#endTimer);
    this.#endTimer = setTimeout(() => void this.#end(), Math.max(0, leftMs));
    this.#renewTimer = setTimeout(() => void this.#goOn(), Math.max(RENEW_INTERVAL_MS_MIN, leftMs / 2));
  }

  async #end(): Promise<void> {
    // Where a timer is late, so is what renews: the whole process has been busy, governors too.
    if (Date.now() > this.#untilMs + TIMER_LATE_MS) await this.#renew();
    if (this.#isOff) return;
    if (this.#untilMs > Date.now()) return this.#arm();
    this.release();
    this.#cut();
  }

  async #goOn(): Promise<void> {
    await this.#renew();
    if (!this.#isOff) this.#arm();
  }

  async #renew(): Promise<void> {
    // What the gate says counts from when it was asked, which is earlier than when it said it.
    const askedAtMs = Date.now();
    try {
      const leftMs = await this.#pass.renew();
      this.#untilMs = Math.max(this.#untilMs, askedAtMs + leftMs);
    } catch {
      // The gate has gone, and with it the permit; the timer ends the call in time.
    }
  }
}
