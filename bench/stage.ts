/** What a benchmark needs around it: an upstream, the floor, and Drover, each in processes of their own. */
import { fork, spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { type Drover, startDrover } from "../client/cli/server/child.ts";
import { workerdBinary } from "../client/cli/server/workerd.ts";
import { countRows } from "./rows.ts";
import { pause } from "./stats.ts";

const START_TRIES = 100;
const START_PAUSE_MS = 50;

const here = (path: string): string => fileURLToPath(new URL(path, import.meta.url));

/** How the floor hands a body to its object. */
export type Transport = "text" | "bytes";

export interface Floor {
  readonly url: string;
  /** Keeps a body durably. */
  keep(as: Transport, body: string, object: string): Promise<void>;
  /** The next of `tasks` inputs, at most `max` of them, after one durable write. */
  handOut<T>(object: string, max: number, tasks: number): Promise<T>;
  /** Makes the calls, `lanes` at a time. */
  fetchAll(paths: readonly string[], upstream: string, lanes: number): Promise<void>;
}

export interface Stage {
  readonly upstream: string;
  readonly floor: Floor;
  drover(): Drover;
  /** Stops Drover and starts it on the same data. */
  restart(): Promise<void>;
  /** Rows in all objects of Drover, counted in their files by another SQLite. Stops Drover meanwhile. */
  rowsOnDisk(): Promise<number>;
  end(): Promise<void>;
}

export async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  server.close();
  return typeof address === "object" && address !== null ? address.port : 0;
}

function capnp(port: number, folder: string): string {
  return `using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [ (name = "main", worker = .floor), (name = "disk", disk = (path = "${folder}/data", writable = true)),
    (name = "internet", network = (allow = ["public", "private", "local"])) ],
  sockets = [ (name = "http", address = "127.0.0.1:${port}", http = (), service = "main") ] );
const floor :Workerd.Worker = ( modules = [ (name = "worker.mjs", esModule = embed "worker.mjs") ], compatibilityDate = "2026-10-13",
  durableObjectNamespaces = [ (className = "Blob", uniqueKey = "blob", enableSql = true) ],
  durableObjectStorage = (localDisk = "disk"), bindings = [ (name = "BLOB", durableObjectNamespace = "Blob") ] );
`;
}

async function answered(url: string, init?: RequestInit): Promise<string> {
  const response = await fetch(url, init);
  const text = await response.text();
  if (!response.ok) throw new Error(`${url} answered ${response.status}`);
  return text;
}

/** Waits for a server that has just been started: `ask` rejects until it answers. */
export async function untilUp(name: string, ask: () => Promise<unknown>): Promise<void> {
  for (let tries = 0; tries <= START_TRIES; tries++) {
    const isUp = await ask().then(
      () => true,
      () => false,
    );
    if (isUp) return;
    await pause(START_PAUSE_MS);
  }
  throw new Error(`${name} does not start`);
}

async function startFloor(folder: string): Promise<{ floor: Floor; child: ChildProcess }> {
  const port = await freePort();
  mkdirSync(join(folder, "data"), { recursive: true });
  copyFileSync(here("floor/worker.mjs"), join(folder, "worker.mjs"));
  writeFileSync(join(folder, "config.capnp"), capnp(port, folder));
  const child = spawn(workerdBinary(), ["serve", join(folder, "config.capnp")], { stdio: ["ignore", "ignore", "inherit"] });
  const url = `http://127.0.0.1:${port}`;
  await untilUp("the floor", () => answered(`${url}/keep-text?object=first`, { method: "POST", body: "x" }));
  const floor: Floor = {
    url,
    keep: async (as, body, object) => void (await answered(`${url}/keep-${as}?object=${object}`, { method: "POST", body })),
    handOut: async <T>(object: string, max: number, tasks: number) =>
      JSON.parse(await answered(`${url}/hand-out?object=${object}&max=${max}&tasks=${tasks}`, { method: "POST" })) as T,
    fetchAll: async (paths, upstream, lanes) =>
      void (await answered(`${url}/fetch?upstream=${encodeURIComponent(upstream)}&lanes=${lanes}`, {
        method: "POST",
        body: JSON.stringify(paths),
      })),
  };
  return { floor, child };
}

async function startUpstream(): Promise<{ upstream: string; child: ChildProcess }> {
  const child = fork(here("upstream.ts"), { stdio: ["ignore", "inherit", "inherit", "ipc"] });
  const [port] = (await once(child, "message")) as [number];
  return { upstream: `http://127.0.0.1:${port}`, child };
}

/** Starts everything; `end` stops it and takes its data away. Drover has as many processes for executors as `npm start` gives it, or so many. */
export async function setStage(executors?: number): Promise<Stage> {
  const folder = mkdtempSync(join(tmpdir(), "drover-bench-"));
  const [up, low] = await Promise.all([startUpstream(), startFloor(join(folder, "floor"))]);
  const dataDir = join(folder, "drover");
  let drover = await startDrover({ dataDir, executors });
  return {
    upstream: up.upstream,
    floor: low.floor,
    drover: () => drover,
    async restart() {
      await drover.stop();
      drover = await startDrover({ dataDir, executors });
    },
    async rowsOnDisk() {
      await drover.stop();
      const rows = countRows(join(dataDir, "state/do"));
      drover = await startDrover({ dataDir, executors });
      return rows;
    },
    async end() {
      await drover.stop();
      up.child.kill();
      low.child.kill();
      await once(low.child, "exit");
      rmSync(folder, { recursive: true, force: true });
    },
  };
}
