/**
 * Where an upstream has a hard bound, a call must not outlive its permit:
 * somebody else may have it by then. The permit is renewed while the call is
 * open; a gate that cannot be asked renews nothing, and the call is cut off.
 */
import type { PassRpc } from "../../../shared/rpc.ts";

/** A permit that is about to end is asked for at most this often. */
const RENEW_INTERVAL_MS_MIN = 50;

export class Leash {
  readonly #pass: PassRpc;
  readonly #cut: () => void;
  #untilMs: number;
  #renewTimer: number | null = null;
  #endTimer: number | null = null;
  #isOff = false;

  /** `cut` is called once, when the permit has ended. */
  constructor(pass: PassRpc, permitMs: number, cut: () => void) {
    this.#pass = pass;
    this.#cut = cut;
    this.#untilMs = Date.now() + permitMs;
    this.#arm();
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
    this.#endTimer = setTimeout(() => this.#end(), Math.max(0, leftMs));
    this.#renewTimer = setTimeout(() => void this.#renew(), Math.max(RENEW_INTERVAL_MS_MIN, leftMs / 2));
  }

  #end(): void {
    if (this.#isOff) return;
    this.release();
    this.#cut();
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
    if (!this.#isOff) this.#arm();
  }
}
