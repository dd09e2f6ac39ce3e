/** The sandbox alone in a workerd, and the function that it runs beside Drover: the pool's own speed is what a goal is measured against. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { build, stop } from "esbuild";
import { freePort, workerdPath } from "./stage.ts";
import { pause } from "./stats.ts";

const ROOT = fileURLToPath(new URL("../", import.meta.url));

/** Bundled it has 97 KB. It does a little of everything, calls once, and would tell if it had run before. */
const HANDLER = `
import _ from "lodash";
import { addDays, differenceInCalendarDays, format, formatDistance, parseISO } from "date-fns";

const START = parseISO("2026-01-01");
let runs = 0;

export default async ({ n }, ctx) => {
  runs++;
  const { status, body } = await ctx.call("real", { path: "/d1/" + n });
  const due = addDays(START, n % 365);
  const groups = _.groupBy(_.range(20), (i) => (i * n) % 3);
  return { n, due: format(due, "yyyy-MM-dd"), days: differenceInCalendarDays(due, START), in: formatDistance(due, START), sizes: _.mapValues(groups, "length"), isAnswered: status === 200 && body.ok, runs };
};
`;

/** What the function answers to `n`, worked out without it. */
export function isRight(n: number, answer: unknown): boolean {
  const { due, days, sizes, isAnswered, runs, ...rest } = answer as Record<string, unknown>;
  const atMs = Date.UTC(2026, 0, 1 + (n % 365));
  const counted: Record<string, number> = {};
  for (let i = 0; i < 20; i++) counted[(i * n) % 3] = (counted[(i * n) % 3] ?? 0) + 1;
  const isCounted = JSON.stringify(sizes) === JSON.stringify(counted);
  const isDue = due === new Date(atMs).toISOString().slice(0, 10) && days === n % 365;
  return rest["n"] === n && isDue && isCounted && isAnswered === true && runs === 1;
}

/** Runs the function so many times, `lanes` at a time, with one call to the upstream each. */
const WORKER = `
import { buildImage } from "./workers/sandbox/snapshot/build.ts";
import { Sandbox } from "./workers/sandbox/snapshot/pool.ts";

const LIMITS = { cpuMs: 1000, memoryBytes: 16 * 1024 * 1024 };
const sandbox = new Sandbox();

export default {
  async fetch(request) {
    const { pathname, searchParams } = new URL(request.url);
    if (pathname === "/load") {
      const built = await buildImage(await request.text(), LIMITS);
      if (!built.ok) return new Response(built.error.detail, { status: 400 });
      await sandbox.load("v", built.value);
      return new Response(String(built.value.snapshotBytes));
    }
    const [n, lanes, upstream] = [Number(searchParams.get("n")), Number(searchParams.get("lanes")), searchParams.get("upstream")];
    const calls = async (op, args) => {
      const { request: { path } } = JSON.parse(args);
      const response = await fetch(upstream + path);
      return '{"status":' + response.status + ',"headers":{},"body":' + (await response.text()) + "}";
    };
    const outputs = Array(n);
    let next = 0;
    const lane = async () => {
      while (next < n) {
        const i = next++;
        const about = JSON.stringify({ goal: { id: "goal" }, task: { id: "task_" + i, attempt: 1 } });
        const ended = await sandbox.invoke("v", { input: '{"n":' + i + "}", about, limits: LIMITS, calls, signal: new AbortController().signal });
        outputs[i] = ended.outcome === "returned" ? ended.output : JSON.stringify(ended);
      }
    };
    await Promise.all(Array.from({ length: lanes }, lane));
    return new Response("[" + outputs.join() + "]");
  },
};
`;

const config = (port: number): string => `using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = ( services = [ (name = "main", worker = .pool), (name = "internet", network = (allow = ["public", "private", "local"])) ],
  sockets = [ (name = "http", address = "127.0.0.1:${port}", http = (), service = "main") ] );
const pool :Workerd.Worker = ( modules = [ (name = "worker.mjs", esModule = embed "worker.mjs"), (name = "engine.wasm", wasm = embed "engine.wasm") ],
  compatibilityDate = "2026-11-01" );
`;

export interface Pool {
  /** Milliseconds of so many runs, whose answers were all right. */
  run(n: number, lanes: number, upstream: string): Promise<number>;
  end(): Promise<void>;
}

/** The function as `PUT /v1/functions` takes it. */
export async function bundled(): Promise<string> {
  const options = { bundle: true, format: "esm", target: "es2022", minify: true, write: false } as const;
  const { outputFiles } = await build({ ...options, stdin: { contents: HANDLER, resolveDir: ROOT } });
  await stop();
  return outputFiles[0]!.text;
}

export async function startPool(bundle: string): Promise<Pool> {
  const folder = mkdtempSync(join(tmpdir(), "drover-pool-"));
  const options = {
    bundle: true,
    format: "esm",
    target: "es2024",
    minify: true,
    loader: { ".wasm": "copy" },
    assetNames: "[name]",
  } as const;
  await build({ ...options, stdin: { contents: WORKER, resolveDir: ROOT }, outfile: join(folder, "worker.mjs"), logLevel: "warning" });
  await stop();
  const port = await freePort();
  writeFileSync(join(folder, "config.capnp"), config(port));
  const child = spawn(workerdPath(), ["serve", join(folder, "config.capnp")], { stdio: ["ignore", "ignore", "inherit"] });
  const url = `http://127.0.0.1:${port}`;
  for (let tries = 0; ; tries++) {
    const isUp = await fetch(`${url}/load`, { method: "POST", body: bundle }).then(
      async (answer) => answer.ok || Promise.reject(new Error(await answer.text())),
      () => false,
    );
    if (isUp) break;
    if (tries > 100) throw new Error("the pool does not start");
    await pause(50);
  }
  return {
    async run(n, lanes, upstream) {
      const query = new URLSearchParams({ n: String(n), lanes: String(lanes), upstream });
      const startedAt = performance.now();
      const answers = (await (await fetch(`${url}/run?${query.toString()}`)).json()) as unknown[];
      const tookMs = performance.now() - startedAt;
      const wrong = answers.findIndex((answer, i) => !isRight(i, answer));
      if (wrong >= 0) throw new Error(`the answer to ${wrong} is ${JSON.stringify(answers[wrong])}`);
      return tookMs;
    },
    async end() {
      child.kill();
      await once(child, "exit");
      rmSync(folder, { recursive: true, force: true });
    },
  };
}
