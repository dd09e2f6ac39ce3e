/** Somebody outside who asks for locks: it waits or not, pauses, renews, releases late or never, and repeats what got lost. */
import type { Command, Reply } from "../../../durable-objects/locks/core/step.ts";
import type { Granted } from "../../../shared/policy/lock-steps.ts";
import type { Clock } from "../clock.ts";
import type { Random } from "../random.ts";
import type { LockChecker } from "./checker.ts";

export interface ContenderAround {
  readonly clock: Clock;
  readonly random: Random;
  readonly names: readonly string[];
  readonly isCalm: () => boolean;
  /** Whether a message gets lost. */
  readonly isLost: () => boolean;
  readonly run: (command: Command) => Reply | null;
  readonly checker: LockChecker;
}

export class Contender {
  readonly #around: ContenderAround;
  readonly #holder: string;
  /** The request on the line: its number there, and what to do with its end. */
  line: { readonly seq: number; readonly end: (granted: Granted | null) => void } | null = null;

  constructor(holder: string, around: ContenderAround) {
    this.#holder = holder;
    this.#around = around;
  }

  /** Asks for something now and then. */
  start(): void {
    const { clock, random, isCalm } = this.#around;
    clock.after(random.between(0, 3_000), () => {
      if (!isCalm()) this.#contend();
    });
  }

  #contend(): void {
    const { random, names } = this.#around;
    const isShared = random.chance(0.4);
    const want = { name: random.pick(names), mode: isShared ? "shared" : "exclusive", permits: 0 } as const;
    const ttlMs = random.between(100, 3_000);
    const waitMs = random.chance(0.2) ? 0 : random.between(50, 5_000);
    const ask = { ...want, holder: this.#holder, ttlMs, waitMs, owner: null };
    this.#say({ kind: "acquire", ask }, (granted) => {
      this.line = null;
      if (granted === null) return this.start();
      this.#hold(want.name, isShared, granted.fence, granted.expiresAtMs!);
    });
  }

  /** It trusts its grant until the time that it was told, and may be paused beyond it. */
  #hold(name: string, isShared: boolean, fence: number, untilMs: number): void {
    const { clock, random, checker } = this.#around;
    const holder = this.#holder;
    if (untilMs > clock.nowMs) checker.trust(name, { holder, fence, isShared, untilMs }, clock.nowMs);
    clock.after(random.between(1, 1_500), () => {
      checker.distrust(name, holder);
      if (random.chance(0.2)) return this.start();
      this.#release(name, fence);
    });
  }

  #release(name: string, fence: number): void {
    const { clock, random, isLost, run } = this.#around;
    const reply = isLost() ? null : run({ kind: "release", release: { name, fence, holder: null } });
    if (reply === null || isLost()) return clock.after(random.between(50, 500), () => this.#release(name, fence));
    this.start();
  }

  /** Asks until it is answered, or until its patience ends. */
  #say(command: Extract<Command, { kind: "acquire" }>, end: (granted: Granted | null) => void): void {
    const { clock, random, isLost, run } = this.#around;
    let isOver = false;
    const once = (granted: Granted | null): void => {
      if (isOver) return;
      isOver = true;
      end(granted);
    };
    const send = (tries: number): void => {
      if (isOver) return;
      const reply = isLost() ? null : run(command);
      if (reply !== null && !isLost()) {
        if (!reply.ok) return once(null);
        const value = reply.value as { granted: Granted } | { seq: number };
        if ("granted" in value) return once(value.granted);
        this.line = { seq: value.seq, end: once };
      }
      if (tries > 20) {
        // It gives up without a word: its place and its grant end by time.
        isOver = true;
        return this.start();
      }
      clock.after(random.between(200, 1_500), () => send(tries + 1));
    };
    send(0);
  }
}
