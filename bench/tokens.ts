/** The edge's own code that verifies tokens, alone in a workerd, asked to do it so many times a request. What counts is CPU time of the process: a Worker's own clock may stand still, and other programs take time too. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { build, stop } from "esbuild";
import { cpuMs } from "./cpu.ts";
import { workerdBinary } from "../client/cli/server/workerd.ts";
import { freePort, untilUp } from "./stage.ts";

const ROOT = fileURLToPath(new URL("../", import.meta.url));

const WORKER = `
import { Proven, verifyToken } from "./workers/edge/tokens/verify.ts";
import { hmac, keyRing } from "./workers/edge/tokens/keys.ts";

export default {
  async fetch(request) {
    const { pathname, searchParams } = new URL(request.url);
    const ring = keyRing({ ROOT_TOKEN: searchParams.get("root") });
    const token = searchParams.get("token");
    const n = Number(searchParams.get("n"));
    let right = 0;
    if (pathname === "/verify") for (let i = 0; i < n; i++) if ((await verifyToken(ring, token, "default")).ok) right++;
    if (pathname === "/chain") {
      // Five links, as a root and four caveats have.
      const data = new Uint8Array(90);
      for (let i = 0; i < n; i++) {
        let key = new Uint8Array(32);
        for (let link = 0; link < 5; link++) key = await hmac(key, data);
        right += key.length / 32;
      }
    }
    if (pathname === "/cached" || pathname === "/texts") {
      const { value } = await verifyToken(ring, token, "default");
      const proven = new Proven();
      for (let i = 0; i < 10000; i++) proven.keep(ring, token.slice(0, -6) + String(i).padStart(6, "0"), value);
      proven.keep(ring, token, value);
      // Each lookup meets a text that was never hashed before, as a header's is.
      const all = token.repeat(1000);
      for (let i = 0; i < n; i++) {
        const at = (i % 1000) * token.length;
        const text = all.slice(at, at + token.length);
        if (pathname === "/texts" ? text.length === token.length : proven.find(ring, text) !== null) right++;
      }
    }
    return new Response(String(right));
  },
};
`;

const config = (port: number): string => `using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = ( services = [ (name = "main", worker = .verifier) ],
  sockets = [ (name = "http", address = "127.0.0.1:${port}", http = (), service = "main") ] );
const verifier :Workerd.Worker = ( modules = [ (name = "worker.mjs", esModule = embed "worker.mjs") ], compatibilityDate = "2026-10-13" );
`;

export type Task = "verify" | "chain" | "cached" | "texts";

export interface Verifier {
  /** CPU time, in milliseconds, of one request that does the task `n` times. */
  ms(task: Task, n: number): Promise<number>;
  end(): Promise<void>;
}

export async function startVerifier(root: string, token: string): Promise<Verifier> {
  const folder = mkdtempSync(join(tmpdir(), "drover-verifier-"));
  const bundled = { stdin: { contents: WORKER, resolveDir: ROOT }, bundle: true, format: "esm", target: "es2024", minify: true } as const;
  await build({ ...bundled, outfile: join(folder, "worker.mjs"), logLevel: "warning" });
  await stop();
  const port = await freePort();
  writeFileSync(join(folder, "config.capnp"), config(port));
  const child = spawn(workerdBinary(), ["serve", join(folder, "config.capnp")], { stdio: ["ignore", "ignore", "inherit"] });
  const ask = async (task: string, n: number): Promise<number> => {
    const query = new URLSearchParams({ root, token, n: String(n) });
    const before = cpuMs(child.pid!);
    const response = await fetch(`http://127.0.0.1:${port}/${task}?${query.toString()}`);
    const right = Number(await response.text());
    const tookMs = cpuMs(child.pid!) - before;
    if (right !== n) throw new Error(`${right} of ${n} were right`);
    return tookMs;
  };
  await untilUp("the verifier", () => ask("verify", 1));
  return {
    ms: ask,
    async end() {
      child.kill();
      await once(child, "exit");
      rmSync(folder, { recursive: true, force: true });
    },
  };
}
