/** Wakes everybody who waits for the goal to move. One promise serves all of them. */
export class Signal {
  #wake: () => void = () => undefined;
  #next: Promise<void> = Promise.resolve();
  #isWaitedFor = false;

  /** Resolves at the next `fire`. */
  changed(): Promise<void> {
    if (!this.#isWaitedFor) {
      this.#isWaitedFor = true;
      this.#next = new Promise((resolve) => (this.#wake = resolve));
    }
    return this.#next;
  }

  fire(): void {
    if (!this.#isWaitedFor) return;
    this.#isWaitedFor = false;
    this.#wake();
  }
}

/** Resolves with whether `promise` came before the time was up. */
export async function within(promise: Promise<void>, ms: number): Promise<boolean> {
  if (ms <= 0) return false;
  let timer: number | null = null;
  const late = new Promise<boolean>((resolve) => {
    timer = setTimeout(() => resolve(false), ms);
  });
  try {
    return await Promise.race([promise.then(() => true), late]);
  } finally {
    clearTimeout(timer);
  }
}
