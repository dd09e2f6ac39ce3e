/** One process of an executor, through all its lives: started again when it exits, and ended when it hangs. */
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { rmSync } from "node:fs";
import { pauseAfter } from "./exits.ts";
import { watchForHang } from "./watchdog.ts";

/** The wrapper ends workerd at once; this is for a machine that is very busy. */
const STOP_MS_MAX = 2_000;

export class Executor {
  readonly socket: string;
  readonly #name: string;
  readonly #start: (socket: string) => ChildProcess;
  readonly #say: (line: string) => void;
  readonly #endWatch: () => void;
  /** Null between two lives. */
  #child: ChildProcess | null = null;
  #timer: NodeJS.Timeout | undefined;
  #exits = 0;
  #isAsked = false;
  #isRetired = false;

  constructor(name: string, socket: string, start: (socket: string) => ChildProcess, say: (line: string) => void) {
    this.socket = socket;
    this.#name = name;
    this.#start = start;
    this.#say = say;
    this.#run();
    this.#endWatch = watchForHang({ socketPath: socket }, () => {
      say(`${name} has not answered for a minute, and is ended: a function may be in an endless loop.`);
      this.#child?.kill("SIGTERM");
    });
  }

  /** Begins anew, also where it was given up. */
  restart(): void {
    this.#exits = 0;
    if (this.#child === null) return this.#run();
    this.#isAsked = true;
    this.#child.kill("SIGTERM");
  }

  retire(): void {
    this.#isRetired = true;
    this.#endWatch();
    clearTimeout(this.#timer);
  }

  async stop(): Promise<void> {
    this.retire();
    const child = this.#child;
    if (child === null) return;
    const exited = once(child, "exit", { signal: AbortSignal.timeout(STOP_MS_MAX) }).catch(() => undefined);
    child.kill("SIGTERM");
    await exited;
  }

  #run(): void {
    clearTimeout(this.#timer);
    this.#isAsked = false;
    const startedAtMs = Date.now();
    const ended = (how: string): void => {
      // A program that cannot be started has no exit, and no second end.
      if (this.#child !== child) return;
      this.#child = null;
      if (!this.#isRetired) this.#ended(Date.now() - startedAtMs, how);
    };
    let child: ChildProcess;
    try {
      rmSync(this.socket, { force: true });
      child = this.#start(this.socket);
    } catch (error) {
      return this.#ended(0, (error as Error).message);
    }
    this.#child = child;
    child.once("error", (error) => ended(error.message));
    child.once("exit", (code, signal) => ended(signal ?? `code ${code}`));
  }

  #ended(ranMs: number, how: string): void {
    if (this.#isAsked) return this.#run();
    const { exits, pauseMs } = pauseAfter(this.#exits, ranMs);
    this.#exits = exits;
    if (pauseMs === null) return this.#say(`${this.#name} ended (${how}), ${exits} times in a row. The server goes on without it.`);
    this.#say(`${this.#name} ended (${how}). Starting it again.`);
    this.#timer = setTimeout(() => this.#run(), pauseMs);
  }
}
