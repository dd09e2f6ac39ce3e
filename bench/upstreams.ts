/** Upstreams that a scenario starts, tells what to be, kills and brings back at the same address. `model.ts` is their program. */
import { fork, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";

const PROGRAM = fileURLToPath(new URL("model.ts", import.meta.url));

export interface Order {
  /** Answers 503 at once. */
  readonly isDown?: boolean;
  /** Calls that `/limited/…` serves at once. */
  readonly servers?: number;
  readonly seed?: number;
  /** How long a call takes whose path does not say it. */
  readonly delayMs?: number;
  /** Dies as SIGKILL kills it, once it has told. */
  readonly die?: boolean;
}

/** What came to an upstream since it last told. */
export interface Window {
  readonly ms: number;
  readonly calls: number;
  readonly answered: number;
  readonly refused: number;
  /** Now, and at most; from a request's begin to its response's close. */
  readonly open: number;
  readonly mostOpen: number;
  /** Of answered calls, as the upstream saw them. */
  readonly p50Ms: number;
  readonly p99Ms: number;
  /** Answered calls by the `Drover-Goal` that they carry. */
  readonly byGoal: Readonly<Record<string, number>>;
}

export interface Upstream {
  readonly origin: string;
  /** Changes what it is; tells what came before that. */
  tell(order?: Order): Promise<Window>;
  /** Kills it: connections break, and new ones are refused. Tells what came until then. */
  kill(): Promise<Window>;
  revive(): Promise<void>;
  end(): Promise<void>;
}

async function launch(port: number): Promise<{ child: ChildProcess; port: number }> {
  const child = fork(PROGRAM, [String(port)], { stdio: ["ignore", "inherit", "inherit", "ipc"] });
  const [bound] = (await once(child, "message")) as [number];
  return { child, port: bound };
}

export async function startUpstream(): Promise<Upstream> {
  const first = await launch(0);
  const { port } = first;
  let { child } = first;
  const tell = async (order: Order = {}): Promise<Window> => {
    const answer = once(child, "message");
    child.send(order);
    return ((await answer) as [Window])[0];
  };
  return {
    origin: `http://127.0.0.1:${port}`,
    tell,
    async kill() {
      const exited = once(child, "exit");
      const window = await tell({ die: true });
      await exited;
      return window;
    },
    async revive() {
      ({ child } = await launch(port));
    },
    async end() {
      if (child.exitCode !== null || child.signalCode !== null) return;
      child.kill();
      await once(child, "exit");
    },
  };
}

/** Runs `work` with an upstream, and stops that afterwards. */
export async function withUpstream<T>(work: (upstream: Upstream) => Promise<T>): Promise<T> {
  const upstream = await startUpstream();
  try {
    return await work(upstream);
  } finally {
    await upstream.end();
  }
}
