/**
 * Executors in processes of their own, so that a goal can use every core: each
 * a workerd that holds no data and listens on a socket in a folder that only
 * its owner may enter. One that exits is started again; whatever happens to
 * them, the server's own process goes on without them.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import type { V4WorkerOptions } from "miniflare";
import { capnpOf, SOCKET } from "./executor-config.ts";
import { pauseAfter } from "./exits.ts";
import { watchForHang } from "./watchdog.ts";
import { isNews, v8Flags, workerdBinary } from "./workerd.ts";
import type { WorkerModules } from "./worker.ts";

const WRAPPER = fileURLToPath(new URL("executor.sh", import.meta.url));
/** The path of a socket takes no more on macOS. */
const SOCKET_PATH_MAX = 103;

export interface ExecutorsOptions {
  readonly count: number;
  readonly worker: WorkerModules;
  readonly descriptors: number;
  readonly say: (line: string) => void;
}

export interface Executors {
  /** Where each of them listens. */
  readonly sockets: readonly string[];
  /** Starts all of them anew: the goals that they worked for have ended with the server's workerd. */
  restart(): void;
  stop(): void;
}

const NONE: Executors = { sockets: [], restart: () => undefined, stop: () => undefined };

/** One of them, through all its lives. */
class Executor {
  readonly socket: string;
  readonly #name: string;
  readonly #start: (socket: string) => ChildProcess;
  readonly #say: (line: string) => void;
  readonly #endWatch: () => void;
  #child: ChildProcess | undefined;
  #timer: NodeJS.Timeout | undefined;
  #exits = 0;
  #isStopped = false;

  constructor(name: string, socket: string, start: (socket: string) => ChildProcess, say: (line: string) => void) {
    this.socket = socket;
    this.#name = name;
    this.#start = start;
    this.#say = say;
    this.#run();
    this.#endWatch = watchForHang({ socketPath: socket }, () => {
      say(`${name} (process ${this.#child?.pid}) has not answered for a minute, and is ended: a function may be in an endless loop.`);
      this.#child?.kill("SIGKILL");
    });
  }

  restart(): void {
    this.#exits = 0;
    this.#child?.kill("SIGKILL");
  }

  stop(): void {
    this.#isStopped = true;
    this.#endWatch();
    clearTimeout(this.#timer);
    this.#child?.kill("SIGKILL");
  }

  #run(): void {
    const startedAtMs = Date.now();
    rmSync(this.socket, { force: true });
    const child = this.#start(this.socket);
    this.#child = child;
    child.once("error", (error) => this.#say(`${this.#name} cannot be started: ${error.message}`));
    child.once("exit", (code, signal) => {
      // Tells executor.sh that there is nothing left to end.
      (child.stdio[3] as NodeJS.WritableStream | null)?.end("ended\n");
      if (!this.#isStopped) this.#exited(startedAtMs, signal ?? `code ${code}`);
    });
  }

  #exited(startedAtMs: number, how: string): void {
    const { exits, pauseMs } = pauseAfter(this.#exits, Date.now() - startedAtMs);
    this.#exits = exits;
    if (pauseMs === null) return this.#say(`${this.#name} ended with ${how}, ${exits} times in a row. The server goes on without it.`);
    this.#timer = setTimeout(() => this.#run(), pauseMs);
  }
}

/** Starts so many, and does not wait for them. */
export function startExecutors({ count, worker, descriptors, say }: ExecutorsOptions): Executors {
  if (count === 0) return NONE;
  const folder = mkdtempSync(join(tmpdir(), "drover-"));
  if (join(folder, String(count)).length > SOCKET_PATH_MAX) {
    say(
      `${tmpdir()} is too long a path for sockets: everything runs in one process. Name a shorter one with TMPDIR, or say --executors 0.`,
    );
    rmSync(folder, { recursive: true });
    return NONE;
  }
  for (const { path, contents } of worker.modules) {
    mkdirSync(dirname(join(folder, path)), { recursive: true });
    writeFileSync(join(folder, path), contents);
  }
  writeFileSync(join(folder, "config.capnp"), capnpOf(worker, v8Flags()));
  const workerd = workerdBinary();
  const start = (socket: string): ChildProcess => {
    const serve = ["serve", "--experimental", join(folder, "config.capnp"), `--socket-addr=${SOCKET}=unix:${socket}`];
    const env = { ...process.env, DROVER_DESCRIPTORS: String(descriptors) };
    const child = spawn(WRAPPER, [workerd, ...serve], { stdio: ["ignore", "pipe", "pipe", "pipe"], env });
    for (const stream of [child.stdout!, child.stderr!]) {
      createInterface({ input: stream }).on("line", (line) => void (isNews(line) && say(`executor: ${line}`)));
    }
    return child;
  };
  const executors = Array.from({ length: count }, (_, i) => new Executor(`executor ${i}`, join(folder, String(i)), start, say));
  return {
    sockets: executors.map(({ socket }) => socket),
    restart: () => executors.forEach((executor) => executor.restart()),
    stop() {
      executors.forEach((executor) => executor.stop());
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

/** The Worker, which finds its executors by these bindings. */
export function withExecutors(worker: V4WorkerOptions, { sockets }: Executors): V4WorkerOptions {
  const bindings = sockets.map((socket, i) => [`EXECUTOR_PROCESS_${i}`, { external: { address: `unix:${socket}`, http: {} } }] as const);
  return { ...worker, serviceBindings: { ...worker.serviceBindings, ...Object.fromEntries(bindings) } };
}
