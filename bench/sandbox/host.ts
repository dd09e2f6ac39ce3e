/** Starts a workerd with the sandbox alone in it. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { build, stop } from "esbuild";
import { workerdBinary } from "../../client/cli/server/workerd.ts";
import { freePort, untilUp } from "../stage.ts";

const WORKER = fileURLToPath(new URL("worker.ts", import.meta.url));

const config = (port: number): string => `using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = ( services = [ (name = "main", worker = .sandbox), (name = "internet", network = (allow = ["public", "private", "local"])) ],
  sockets = [ (name = "http", address = "127.0.0.1:${port}", http = (), service = "main") ] );
const sandbox :Workerd.Worker = ( modules = [ (name = "worker.mjs", esModule = embed "worker.mjs"), (name = "engine.wasm", wasm = embed "engine.wasm") ],
  compatibilityDate = "2026-10-13", bindings = [ (name = "LOADER", workerLoader = ()) ] );
`;

export interface SandboxAlone {
  /** The process of workerd. */
  readonly pid: number;
  /** POSTs to the worker; throws what it says where it fails. */
  ask(path: string, query?: Readonly<Record<string, string | number>>, body?: string | Uint8Array<ArrayBuffer>): Promise<Response>;
  end(): Promise<void>;
}

/** Bundles the worker. Starts may follow, each a process of its own; `end` ends those that still run. */
export async function bundleSandbox(): Promise<{ start(): Promise<SandboxAlone>; end(): void }> {
  const folder = mkdtempSync(join(tmpdir(), "drover-sandbox-"));
  const options = {
    bundle: true,
    format: "esm",
    target: "es2024",
    minify: true,
    loader: { ".wasm": "copy" },
    assetNames: "[name]",
  } as const;
  await build({ ...options, entryPoints: [WORKER], outfile: join(folder, "worker.mjs"), logLevel: "warning" });
  await stop();
  const children: ChildProcess[] = [];
  const end = (): void => {
    for (const child of children) child.kill();
    rmSync(folder, { recursive: true, force: true });
  };
  return { start: () => startIn(folder, children), end };
}

async function startIn(folder: string, children: ChildProcess[]): Promise<SandboxAlone> {
  const port = await freePort();
  writeFileSync(join(folder, `${port}.capnp`), config(port));
  const child = spawn(workerdBinary(), ["serve", "--experimental", join(folder, `${port}.capnp`)], {
    stdio: ["ignore", "ignore", "inherit"],
  });
  children.push(child);
  const ask: SandboxAlone["ask"] = async (path, query = {}, body = "") => {
    const search = new URLSearchParams(Object.entries(query).map(([name, value]) => [name, String(value)]));
    const answer = await fetch(`http://127.0.0.1:${port}${path}?${search.toString()}`, { method: "POST", body });
    if (!answer.ok) throw new Error(`${path} answered ${answer.status}: ${await answer.text()}`);
    return answer;
  };
  await untilUp("the sandbox alone", () => ask("/"));
  return {
    pid: child.pid!,
    ask,
    async end() {
      child.kill();
      await once(child, "exit");
    },
  };
}
