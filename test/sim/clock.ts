/** Virtual time: events in the order of their time, and of their making where times are equal. Nothing else moves the clock. */
interface Event {
  readonly atMs: number;
  readonly run: () => void;
}

export class Clock {
  nowMs: number;
  #order: Event[][] = [];
  #times: number[] = [];
  readonly #slots = new Map<number, Event[]>();

  constructor(nowMs: number) {
    this.nowMs = nowMs;
  }

  /** Runs `run` when the time has come; never before what is going on now. */
  at(atMs: number, run: () => void): void {
    const time = Math.max(this.nowMs, Math.ceil(atMs));
    let slot = this.#slots.get(time);
    if (slot === undefined) {
      this.#slots.set(time, (slot = []));
      let at = this.#times.length;
      while (at > 0 && this.#times[at - 1]! < time) at--;
      this.#times.splice(at, 0, time);
      this.#order.splice(at, 0, slot);
    }
    slot.push({ atMs: time, run });
  }

  after(ms: number, run: () => void): void {
    this.at(this.nowMs + ms, run);
  }

  /** Runs the next event; false where there is none. */
  step(): boolean {
    const slot = this.#order.at(-1);
    if (slot === undefined) return false;
    const event = slot.shift()!;
    this.nowMs = event.atMs;
    if (slot.length === 0) {
      this.#order.pop();
      this.#slots.delete(this.#times.pop()!);
    }
    event.run();
    return true;
  }
}
