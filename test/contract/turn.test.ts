/**
 * What waits in line goes on in the request that it is of, however often that
 * has happened: the platform's optimizing compiler forgets whose promise one
 * made with `new Promise` is. Runs in a workerd of its own, because it takes
 * tens of thousands of turns in hundreds of requests until that shows.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { build } from "esbuild";
import { expect, test } from "vitest";
import { freePort, untilUp } from "../../bench/stage.ts";
import { workerdBinary } from "../../client/cli/server/workerd.ts";

/** Lends four things to whoever is next. Each turn asks in whose request it goes on: a promise of that request is settled there at once, and later from elsewhere. */
const WORKER = `
import { Cutoff } from "./workers/kit/cutoff.ts";
import { inTurn } from "./workers/sandbox/turn.ts";
const waiting = [];
let free = 4, turns = 0, strays = 0;
const giveBack = () => queueMicrotask(() => { const next = waiting.shift(); if (next === undefined) free++; else next(1); });
const line = {
  enter(resolve) { if (free > 0) { free--; resolve(1); } else waiting.push(resolve); return () => {}; },
  keep: () => true, look() {},
};
async function takeTurn(marker, cutoff) {
  await inTurn(line, cutoff);
  let isHome = false;
  marker.promise.then(() => { isHome = true; });
  marker.resolve();
  await null; await null;
  turns++;
  if (!isHome) strays++;
  if (turns % 5 === 0) await new Promise((resolve) => setTimeout(resolve, 0));
  giveBack();
}
export default { async fetch() {
  const cutoff = new Cutoff();
  await Promise.all(Array.from({ length: 100 }, () => takeTurn(Promise.withResolvers(), cutoff)));
  return Response.json({ turns, strays });
} };
`;

const config = (port: number): string => `using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = ( services = [ (name = "main", worker = .turns) ],
  sockets = [ (name = "http", address = "127.0.0.1:${port}", http = (), service = "main") ] );
const turns :Workerd.Worker = ( modules = [ (name = "worker.mjs", esModule = embed "worker.mjs") ], compatibilityDate = "2026-10-13" );
`;

test("after 60,000 turns whoever was woken by another request still goes on in his own", { timeout: 120_000 }, async () => {
  const folder = mkdtempSync(join(tmpdir(), "drover-turns-"));
  const port = await freePort();
  const stdin = { contents: WORKER, resolveDir: process.cwd() };
  await build({ bundle: true, format: "esm", target: "es2024", stdin, outfile: join(folder, "worker.mjs"), logLevel: "warning" });
  writeFileSync(join(folder, "config.capnp"), config(port));
  const child = spawn(workerdBinary(), ["serve", join(folder, "config.capnp")], { stdio: "ignore" });
  try {
    const ask = async (): Promise<{ turns: number; strays: number }> =>
      (await fetch(`http://127.0.0.1:${port}/`, { signal: AbortSignal.timeout(10_000) })).json() as Promise<{
        turns: number;
        strays: number;
      }>;
    await untilUp("the worker of turns", ask);
    let last = { turns: 0, strays: 0 };
    const lane = async (): Promise<void> => {
      while (last.turns < 60_000 && last.strays === 0) last = await ask();
    };
    await Promise.all(Array.from({ length: 6 }, lane));
    expect(last.strays).toBe(0);
  } finally {
    child.kill("SIGKILL");
    await once(child, "exit");
    rmSync(folder, { recursive: true, force: true });
  }
});
