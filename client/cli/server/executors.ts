/**
 * Executors in processes of their own, so that a goal can use every core: each
 * a workerd that holds no data and listens on a socket in a folder that only
 * its owner may enter. One that exits is started again; whatever happens to
 * them, the server's own process goes on without them.
 */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { closeSync, mkdirSync, mkdtempSync, openSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import type { V4WorkerOptions } from "miniflare";
import { capnpOf, SOCKET } from "./executor-config.ts";
import { executorsFolder } from "./data-folder.ts";
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
  /** The data folder. */
  readonly folder: string;
  readonly descriptors: number;
  readonly say: (line: string) => void;
}

export interface Executors {
  /** Where each of them listens. */
  readonly sockets: readonly string[];
  /** What they work for has started, and holds their pipe. */
  release(): void;
  /** It has ended, and what they do is for nobody: starts all of them anew. */
  restart(): void;
  /** It is about to end, and they with it: none is started again. */
  retire(): void;
  stop(): void;
}

const nothing = (): void => undefined;
const NONE: Executors = { sockets: [], release: nothing, restart: nothing, retire: nothing, stop: nothing };

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

  restart(): void {
    this.#isAsked = true;
    this.#child?.kill("SIGTERM");
  }

  retire(): void {
    this.#isRetired = true;
    this.#endWatch();
    clearTimeout(this.#timer);
  }

  stop(): void {
    this.retire();
    this.#child?.kill("SIGTERM");
  }

  #run(): void {
    const startedAtMs = Date.now();
    rmSync(this.socket, { force: true });
    const child = this.#start(this.socket);
    this.#child = child;
    child.once("error", (error) => this.#say(`${this.#name} cannot be started: ${error.message}`));
    child.once("exit", (code, signal) => {
      if (!this.#isRetired) this.#exited(Date.now() - startedAtMs, signal ?? `code ${code}`);
    });
  }

  #exited(ranMs: number, how: string): void {
    if (this.#isAsked) {
      this.#isAsked = false;
      return this.#run();
    }
    const { exits, pauseMs } = pauseAfter(this.#exits, ranMs);
    this.#exits = exits;
    if (pauseMs === null) return this.#say(`${this.#name} ended with ${how}, ${exits} times in a row. The server goes on without it.`);
    this.#say(`${this.#name} ended with ${how}. Starting it again.`);
    this.#timer = setTimeout(() => this.#run(), pauseMs);
  }
}

/** What an earlier server left there is of no use. */
function emptyFolder(data: string): string {
  const folder = executorsFolder(data);
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { mode: 0o700 });
  return folder;
}

/** Beside the rest, unless that path is too long for a socket. */
function socketsFolder(folder: string): string {
  return join(folder, "00").length > SOCKET_PATH_MAX ? mkdtempSync(join(tmpdir(), "drover-")) : folder;
}

/** Writes what they serve, and answers with the path of its description. */
function write(folder: string, worker: WorkerModules): string {
  for (const { path, contents } of worker.modules) {
    mkdirSync(dirname(join(folder, path)), { recursive: true });
    writeFileSync(join(folder, path), contents);
  }
  const config = join(folder, "config.capnp");
  writeFileSync(config, capnpOf(worker, v8Flags()));
  return config;
}

/** Starts so many, and does not wait for them. */
export function startExecutors({ count, worker, folder: data, descriptors, say }: ExecutorsOptions): Executors {
  if (count === 0) return NONE;
  const folder = emptyFolder(data);
  const sockets = socketsFolder(folder);
  const config = write(folder, worker);
  const alive = join(folder, "alive");
  execFileSync("mkfifo", ["-m", "600", alive]);
  process.env["DROVER_ALIVE"] = alive;
  let held: number | null = openSync(alive, "r+");
  const release = (): void => {
    if (held !== null) closeSync(held);
    held = null;
  };
  const workerd = workerdBinary();
  const start = (socket: string): ChildProcess => {
    const command = [workerd, "serve", "--experimental", config, `--socket-addr=${SOCKET}=unix:${socket}`];
    const own = { DROVER_PID: join(folder, `${basename(socket)}.pid`), DROVER_DESCRIPTORS: String(descriptors) };
    const child = spawn(WRAPPER, command, { stdio: ["ignore", "pipe", "pipe"], env: { ...process.env, ...own } });
    for (const stream of [child.stdout, child.stderr]) {
      createInterface({ input: stream }).on("line", (line) => void (isNews(line) && say(`executor: ${line}`)));
    }
    return child;
  };
  const executors = Array.from({ length: count }, (_, i) => new Executor(`executor ${i}`, join(sockets, String(i)), start, say));
  return {
    sockets: executors.map(({ socket }) => socket),
    release,
    restart() {
      held ??= openSync(alive, "r+");
      for (const executor of executors) executor.restart();
    },
    retire() {
      for (const executor of executors) executor.retire();
    },
    stop() {
      for (const executor of executors) executor.stop();
      release();
      for (const each of [folder, sockets]) rmSync(each, { recursive: true, force: true });
    },
  };
}

/** The Worker, which finds its executors by these bindings. */
export function withExecutors(worker: V4WorkerOptions, { sockets }: Executors): V4WorkerOptions {
  const bindings = sockets.map((socket, i) => [`EXECUTOR_PROCESS_${i}`, { external: { address: `unix:${socket}`, http: {} } }] as const);
  return { ...worker, serviceBindings: { ...worker.serviceBindings, ...Object.fromEntries(bindings) } };
}
