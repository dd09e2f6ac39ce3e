/**
 * Executors in processes of their own, so that a goal can use every core: each
 * a workerd that holds no data and listens on a socket in a folder that only
 * its owner may enter. Whatever happens to them, or keeps them from starting,
 * the server's own process goes on without them.
 */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { closeSync, mkdirSync, mkdtempSync, openSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import type { V4WorkerOptions } from "miniflare";
import { executorsFolder } from "./data-folder.ts";
import { Executor } from "./executor.ts";
import { capnpOf, SOCKET } from "./executor-config.ts";
import { isNews, v8Flags, workerdBinary } from "./workerd.ts";
import type { WorkerModules } from "./worker.ts";

const WRAPPER = fileURLToPath(new URL("executor.sh", import.meta.url));
/** The path of a socket takes no more on macOS. */
const SOCKET_PATH_BYTES_MAX = 103;
const REMOVE = { recursive: true, force: true, maxRetries: 5, retryDelay: 20 } as const;

export interface ExecutorsOptions {
  readonly count: number;
  /** Null where there are to be none. */
  readonly worker: WorkerModules | null;
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
  stop(): Promise<void>;
}

const nothing = (): void => undefined;
const NONE: Executors = { sockets: [], release: nothing, restart: nothing, retire: nothing, stop: () => Promise.resolve() };

/** The pipe that breaks when nobody lives any more for whom they could work. Named, so that workerd.sh can open it. */
class Alive {
  readonly #path: string;
  #held: number | null = null;

  constructor(path: string) {
    this.#path = path;
    execFileSync("mkfifo", ["-m", "600", path]);
    process.env["DROVER_ALIVE"] = path;
    this.hold();
  }

  hold(): void {
    try {
      this.#held ??= openSync(this.#path, "r+");
    } catch {
      // Somebody has removed it, and each executor says so when it is to be started.
    }
  }

  release(): void {
    if (this.#held !== null) closeSync(this.#held);
    this.#held = null;
  }

  /** Calls with an end to read from. It is held meanwhile, because opening that end would wait for a holder. */
  reading<T>(use: (descriptor: number) => T): T {
    const held = openSync(this.#path, "r+");
    const descriptor = openSync(this.#path, "r");
    try {
      return use(descriptor);
    } finally {
      closeSync(descriptor);
      closeSync(held);
    }
  }
}

/** What an earlier server left there is of no use. */
function emptyFolder(data: string): string {
  const folder = executorsFolder(data);
  rmSync(folder, REMOVE);
  mkdirSync(folder, { mode: 0o700 });
  return folder;
}

/** Beside the rest, unless that path is too long for a socket. */
function socketsFolder(folder: string): string {
  const isLong = Buffer.byteLength(join(folder, "00")) > SOCKET_PATH_BYTES_MAX;
  return isLong ? mkdtempSync(join(tmpdir(), "drover-")) : folder;
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

function started(worker: WorkerModules, { count, folder: data, descriptors, say }: ExecutorsOptions): Executors {
  const folder = emptyFolder(data);
  const sockets = socketsFolder(folder);
  const config = write(folder, worker);
  const alive = new Alive(join(folder, "alive"));
  const workerd = workerdBinary();
  const start = (socket: string): ChildProcess => {
    const command = [workerd, "serve", "--experimental", config, `--socket-addr=${SOCKET}=unix:${socket}`];
    const own = { DROVER_PID: join(folder, `${basename(socket)}.pid`), DROVER_DESCRIPTORS: String(descriptors) };
    const env = { ...process.env, ...own };
    // A group of its own: Ctrl+C is for the server, which ends them in its own order.
    const child = alive.reading((end) => spawn(WRAPPER, command, { stdio: ["ignore", "pipe", "pipe", end], env, detached: true }));
    for (const stream of [child.stdout, child.stderr]) {
      if (stream !== null) createInterface({ input: stream }).on("line", (line) => void (isNews(line) && say(`executor: ${line}`)));
    }
    return child;
  };
  const executors = Array.from({ length: count }, (_, i) => new Executor(`executor ${i}`, join(sockets, String(i)), start, say));
  return {
    sockets: executors.map(({ socket }) => socket),
    release: () => alive.release(),
    restart() {
      alive.hold();
      for (const executor of executors) executor.restart();
    },
    retire() {
      for (const executor of executors) executor.retire();
    },
    async stop() {
      await Promise.all(executors.map((executor) => executor.stop()));
      alive.release();
      for (const each of [folder, sockets]) rmSync(each, REMOVE);
    },
  };
}

/** Starts so many, and does not wait for them. */
export function startExecutors(options: ExecutorsOptions): Executors {
  delete process.env["DROVER_ALIVE"];
  if (options.worker === null) return NONE;
  try {
    return started(options.worker, options);
  } catch (error) {
    options.say(`executors cannot have processes of their own, and run in the server's: ${(error as Error).message}`);
    return NONE;
  }
}

/** The Worker, which finds its executors by these bindings. */
export function withExecutors(worker: V4WorkerOptions, { sockets }: Executors): V4WorkerOptions {
  const bindings = sockets.map((socket, i) => [`EXECUTOR_PROCESS_${i}`, { external: { address: `unix:${socket}`, http: {} } }] as const);
  return { ...worker, serviceBindings: { ...worker.serviceBindings, ...Object.fromEntries(bindings) } };
}
