/**
 * Runs the local server as a child process: what `npm start` does, for the demo,
 * the benchmarks and the tests. The caller ends what it started.
 */
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { executorsFolder } from "./data-folder.ts";

const START = fileURLToPath(new URL("../start.ts", import.meta.url));

export interface DroverOptions {
  readonly dataDir: string;
  /** Default 0: a free one. */
  readonly port?: number | undefined;
  /** Default: as `npm start` has them. */
  readonly executors?: number | undefined;
  readonly env?: Readonly<Record<string, string>> | undefined;
  /** Default: this process's standard error. */
  readonly onStderr?: ((text: string) => void) | undefined;
}

export interface Drover {
  readonly url: string;
  readonly token: string;
  /** Of the Node process; workerd is its child. */
  readonly pid: number;
  readonly exited: Promise<number | null>;
  workerdPid(): number;
  /** Of the executors that have processes of their own. */
  executorPids(): number[];
  /** SIGTERM; resolves to the exit code. */
  stop(): Promise<number | null>;
  /** SIGKILL for the Node process alone, or for workerd and then it. */
  kill(what: "parent" | "all"): Promise<void>;
}

async function readyLine(
  child: ChildProcess,
  exited: Promise<number | null>,
  stderr: () => string,
): Promise<{ url: string; token: string }> {
  const lines = createInterface({ input: child.stdout! });
  const first = once(lines, "line").then(([line]) => String(line));
  const line = await Promise.race([first, exited.then((code) => ({ code }))]);
  if (typeof line === "object") throw new Error(`the server ended with exit code ${line.code}: ${stderr().trim()}`);
  return JSON.parse(line) as { url: string; token: string };
}

/** Starts a server and waits until it is ready. Throws with its standard error if it ends before. */
export async function startDrover(options: DroverOptions): Promise<Drover> {
  const { dataDir, port = 0, executors, env = {}, onStderr } = options;
  const flags = [
    "--json",
    "--port",
    String(port),
    "--data",
    dataDir,
    ...(executors === undefined ? [] : ["--executors", String(executors)]),
  ];
  const child = spawn(process.execPath, [START, ...flags], {
    stdio: ["ignore", "pipe", "pipe", "ipc"],
    env: { ...process.env, ...env },
  });
  let stderr = "";
  child.stderr!.setEncoding("utf8").on("data", (text: string) => {
    stderr = (stderr + text).slice(-16_384);
    (onStderr ?? ((line) => process.stderr.write(line)))(text);
  });
  const exited = once(child, "exit").then(([code]) => code as number | null);
  const { url, token } = await readyLine(child, exited, () => stderr);
  const workerdPid = (): number => (JSON.parse(readFileSync(join(dataDir, "lock"), "utf8")) as { workerdPid: number }).workerdPid;
  const executorPids = (): number[] => {
    const folder = executorsFolder(dataDir);
    if (!existsSync(folder)) return [];
    const files = readdirSync(folder).filter((name) => name.endsWith(".pid"));
    // One that is just being written is empty.
    return files.map((name) => Number(readFileSync(join(folder, name), "utf8"))).filter((pid) => pid > 1);
  };
  return {
    url,
    token,
    pid: child.pid!,
    exited,
    workerdPid,
    executorPids,
    stop() {
      child.kill("SIGTERM");
      return exited;
    },
    async kill(what) {
      const workerd = workerdPid();
      // The parent first, or it would start another workerd.
      child.kill("SIGKILL");
      if (what === "all") process.kill(workerd, "SIGKILL");
      await exited;
    },
  };
}
