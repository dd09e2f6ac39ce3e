/**
 * One workerd under Miniflare, reached on its own socket. If it exits it comes
 * back on the same port and data, with a pause that grows; after too many exits
 * in a row the server gives up loudly.
 */
import type { ChildProcess } from "node:child_process";
import { subscribe } from "node:diagnostics_channel";
import { once } from "node:events";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Miniflare, MiniflareOptions, V4WorkerOptions } from "miniflare";
import { pauseAfter } from "./exits.ts";
import { Refusal } from "./refusal.ts";
import { isNews, v8Flags, workerdBinary } from "./workerd.ts";

const WRAPPER = fileURLToPath(new URL("workerd.sh", import.meta.url));
const SIGNALS = ["SIGTERM", "SIGINT", "SIGHUP"] as const;

export interface RuntimeOptions {
  readonly miniflare: typeof import("miniflare");
  readonly worker: V4WorkerOptions;
  readonly folder: string;
  readonly instance: string;
  readonly host: string;
  readonly port: number;
  readonly descriptors: number;
  readonly say: (line: string) => void;
  /** Called whenever a workerd has exited that was not to. */
  readonly onExit: () => void;
  /** Called whenever a workerd has started and listens. */
  readonly onStart: (workerdPid: number, port: number) => void;
  /** Called when workerd cannot be kept running. */
  readonly onGiveUp: () => void;
}

export interface Runtime {
  readonly port: number;
  /** Ends a workerd that does not answer; it comes back as after any exit. */
  endHung(): void;
  stop(): Promise<void>;
}

/** Tells of every workerd that this process starts; Miniflare itself doesn't say. */
function watchWorkerd(seen: (child: ChildProcess) => void): void {
  subscribe("child_process", (message) => {
    const child = (message as { process: ChildProcess }).process;
    child.once("spawn", () => {
      if (child.spawnfile === WRAPPER) seen(child);
    });
  });
}

function prepareEnvironment(options: RuntimeOptions): void {
  Object.assign(process.env, {
    DROVER_WORKERD: workerdBinary(),
    MINIFLARE_WORKERD_PATH: WRAPPER,
    MINIFLARE_WORKERD_V8_FLAGS: v8Flags().join(" "),
    DROVER_DATA: options.folder,
    DROVER_INSTANCE: options.instance,
    DROVER_DESCRIPTORS: String(options.descriptors),
    DROVER_PAUSE_SECONDS: "0",
    CLOUDFLARE_CF_FETCH_ENABLED: "false",
  });
}

/** Miniflare exits on a signal by itself; the server ends in its own order instead. */
function keepSignals<T>(make: () => T): T {
  const before = new Map(SIGNALS.map((name) => [name, process.listeners(name)]));
  const made = make();
  for (const name of SIGNALS) {
    for (const listener of process.listeners(name)) {
      if (!before.get(name)!.includes(listener)) process.removeListener(name, listener);
    }
  }
  return made;
}

function reason(error: unknown, options: RuntimeOptions): Error {
  const text = error instanceof Error ? error.message : String(error);
  if (!/address (?:is )?already in use/i.test(text)) return error instanceof Error ? error : new Error(text);
  return new Refusal(
    `${options.host}:${options.port} is in use by another program. Choose another port with --port N; 0 picks a free one.`,
  );
}

/** A Miniflare with the workerd that it runs now. */
class WatchedRuntime implements Runtime {
  readonly #options: RuntimeOptions;
  readonly #settings: (port: number) => MiniflareOptions;
  readonly #miniflare: Miniflare;
  #workerd: ChildProcess | undefined;
  #port: number;
  #stopping = false;
  #exits = 0;
  #startedAtMs = 0;

  constructor(options: RuntimeOptions, settings: (port: number) => MiniflareOptions, make: typeof Miniflare) {
    this.#options = options;
    this.#settings = settings;
    this.#port = options.port;
    watchWorkerd((child) => {
      this.#workerd = child;
      this.#startedAtMs = Date.now();
      child.once("exit", (code, signal) => this.#exited(code, signal));
    });
    this.#miniflare = keepSignals(() => new make(settings(options.port)));
  }

  get port(): number {
    return this.#port;
  }

  async listening(): Promise<void> {
    try {
      await this.#miniflare.ready;
      this.#port = Number((await this.#miniflare.unsafeGetDirectURL()).port);
    } catch (error) {
      await this.stop().catch(() => {});
      throw reason(error, this.#options);
    }
    this.#options.onStart(this.#workerd!.pid!, this.#port);
  }

  endHung(): void {
    this.#options.say(
      `workerd (process ${this.#workerd?.pid}) has not answered for a minute, and is ended: a function may be in an endless loop.`,
    );
    this.#workerd?.kill("SIGKILL");
  }

  async stop(): Promise<void> {
    this.#stopping = true;
    const last = this.#workerd;
    const ended = last && last.exitCode === null && last.signalCode === null ? once(last, "exit") : null;
    await this.#miniflare.dispose();
    await ended;
  }

  #exited(code: number | null, signal: NodeJS.Signals | null): void {
    const { say, folder, onExit, onGiveUp } = this.#options;
    if (this.#stopping) return;
    onExit();
    const { exits, pauseMs } = pauseAfter(this.#exits, Date.now() - this.#startedAtMs);
    this.#exits = exits;
    const how = signal === null ? `with code ${code}` : `by ${signal}`;
    if (pauseMs === null) {
      say(`workerd ended ${how}, ${this.#exits} times in a row. Giving up; what was acknowledged is safe in ${folder}.`);
      return onGiveUp();
    }
    const pause = pauseMs / 1_000;
    say(`workerd (process ${this.#workerd?.pid}) ended ${how}. Starting it again${pause > 0 ? ` in ${pause} s` : ""}.`);
    // Miniflare starts the next one itself; the wrapper waits this long first.
    process.env["DROVER_PAUSE_SECONDS"] = String(pause);
    setImmediate(() => void this.#recover(this.#exits));
  }

  async #recover(exit: number): Promise<void> {
    try {
      await this.#miniflare.ready;
    } catch {
      // It ended before it listened, and Miniflare does not try that twice. A later exit has its own recovery.
      if (this.#stopping || exit !== this.#exits) return;
      await this.#miniflare.setOptions(this.#settings(this.#port)).catch(() => {});
    }
    if (this.#stopping || exit !== this.#exits || this.#workerd === undefined) return;
    this.#options.onStart(this.#workerd.pid!, this.#port);
    this.#options.say(`workerd is back (process ${this.#workerd.pid}).`);
  }
}

/** Starts workerd and answers when it listens. Throws a `Refusal` if the port is taken. */
export async function startRuntime(options: RuntimeOptions): Promise<Runtime> {
  prepareEnvironment(options);
  const { Miniflare, convertV4MiniflareOptions } = options.miniflare;
  const settings = (port: number): MiniflareOptions =>
    convertV4MiniflareOptions({
      workers: [{ ...options.worker, unsafeDirectSockets: [{ host: options.host, port }] }],
      host: "127.0.0.1",
      port: 0,
      resourcePersistencePath: join(options.folder, "state"),
      logRequests: false,
      handleStructuredLogs({ level, message }) {
        if (isNews(message)) options.say(`worker ${level}: ${message}`);
      },
    });
  const runtime = new WatchedRuntime(options, settings, Miniflare);
  await runtime.listening();
  return runtime;
}
