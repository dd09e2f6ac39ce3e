/**
 * One timer for many times, because a timer each is a cost. Times mostly rise,
 * so it is seldom moved: it fires at the earliest and looks again.
 */
export class Watch {
  readonly #look: () => void;
  #timer: number | null = null;
  #timerAtMs = Infinity;

  /** `look` is called when a time has come, and asks for those that are left. */
  constructor(look: () => void) {
    this.#look = look;
  }

  /** Looks then, at the latest. In milliseconds since the epoch. */
  by(atMs: number): void {
    if (atMs >= this.#timerAtMs) return;
    clearTimeout(this.#timer);
    this.#timerAtMs = atMs;
    this.#timer = setTimeout(() => {
      this.#timerAtMs = Infinity;
      this.#look();
    }, atMs - Date.now());
  }

  end(): void {
    clearTimeout(this.#timer);
  }
}
