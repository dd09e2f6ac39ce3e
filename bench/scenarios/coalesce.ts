/**
 * `coalesce`: 5,000 equal GETs at once, one a connection, through Drover's
 * proxy, upstream of 200 ms. Beside it the same herd through a bare Worker that
 * shares one call and does nothing else, and through Varnish, where there is
 * one, against the same upstream; in turns within a round.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { chmodSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { burst } from "../clients.ts";
import { declare } from "../goals.ts";
import { type Finding, figure } from "../report.ts";
import { freePort, type Stage } from "../stage.ts";
import { pause, percentileOf } from "../stats.ts";

const HERD = 5_000;
const HERD_FAST = 500;
const DELAY_MS = 200;
const P99_VARNISH_TARGET = 1.5;
const P99_FLOOR_TARGET = 1.25;
const START_TRIES = 100;

interface Round {
  readonly calls: number;
  /** Answers that are none, or not 200. */
  readonly failed: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
}

interface Varnish {
  readonly url: string;
  end(): Promise<void>;
}

/** Varnish as its package sets it up, but for where it listens and keeps; null where there is none. */
async function startVarnish(upstream: string): Promise<Varnish | null> {
  const port = await freePort();
  const folder = mkdtempSync(join(tmpdir(), "drover-varnish-"));
  // Started by root it works as a user of its own.
  chmodSync(folder, 0o755);
  const { host } = new URL(upstream);
  const where = ["-a", `127.0.0.1:${port}`, "-b", host, "-n", folder, "-s", "malloc,64m"];
  const child = spawn("varnishd", ["-F", ...where], { stdio: "ignore" });
  // A program that is not there has no process, and says so by this event alone.
  child.once("error", () => undefined);
  const isGone = (): boolean => child.pid === undefined || child.exitCode !== null || child.signalCode !== null;
  const url = `http://127.0.0.1:${port}`;
  const end = async (): Promise<void> => {
    if (!isGone()) {
      child.kill();
      await once(child, "exit");
    }
    rmSync(folder, { recursive: true, force: true });
  };
  for (let tries = 0; tries < START_TRIES && !isGone(); tries++) {
    const isUp = await fetch(`${url}/d0/up`).then(
      ({ ok }) => ok,
      () => false,
    );
    if (isUp) return { url, end };
    await pause(50);
  }
  await end();
  return null;
}

/** Calls at the upstream since it was last asked. */
async function callsAt(upstream: string): Promise<number> {
  return ((await (await fetch(`${upstream}/stats`)).json()) as { calls: number }).calls;
}

async function herd(url: string, count: number, upstream: string, headers: Readonly<Record<string, string>>): Promise<Round> {
  await callsAt(upstream);
  const { statuses, tookMs } = await burst(
    Array.from({ length: count }, () => url),
    headers,
  );
  const [p50Ms, p99Ms] = [percentileOf(tookMs, 0.5), percentileOf(tookMs, 0.99)];
  return { calls: await callsAt(upstream), failed: count - (statuses.get(200) ?? 0), p50Ms, p99Ms };
}

/** With a smaller herd where there is no time. */
export function coalesceOf(isFast: boolean): (stage: Stage, rounds: number) => Promise<Finding[]> {
  return async (stage, rounds) => {
    const { upstream, floor } = stage;
    const { url, token } = stage.drover();
    const count = isFast ? HERD_FAST : HERD;
    await declare(stage.drover(), "coalesce", { origin: upstream });
    const varnish = await startVarnish(upstream);
    const ours: Round[] = [];
    const bare: Round[] = [];
    const theirs: Round[] = [];
    try {
      // A path of its own a round: Varnish keeps for a while what does not say how long.
      for (let round = 0; round < rounds; round++) {
        const path = `/d${DELAY_MS}/herd-${round}`;
        const headers = { authorization: `Bearer ${token}` };
        ours.push(await herd(`${url}/v1/proxy/coalesce${path}`, count, upstream, headers));
        bare.push(await herd(`${floor.url}/share?call=${encodeURIComponent(upstream + path)}`, count, upstream, headers));
        if (varnish !== null) theirs.push(await herd(varnish.url + path, count, upstream, {}));
      }
    } finally {
      await varnish?.end();
    }
    return findings(`${count} equal GETs at once`, ours, bare, theirs);
  };
}

function findings(name: string, ours: readonly Round[], bare: readonly Round[], theirs: readonly Round[]): Finding[] {
  const column = (rows: readonly Round[], key: keyof Round): number[] => rows.map((row) => row[key]);
  const ratios = (upper: readonly Round[], lower: readonly Round[]): number[] =>
    upper.map(({ p99Ms }, round) => p99Ms / lower[round]!.p99Ms);
  const rowsOf = (who: string, rows: readonly Round[], callsMax?: number, failedMax?: number): Finding[] => [
    figure("coalesce", `${who}: calls at the upstream`, "", column(rows, "calls"), callsMax),
    figure("coalesce", `${who}: not answered 200`, "", column(rows, "failed"), failedMax),
    figure("coalesce", `${who}: p50`, "ms", column(rows, "p50Ms")),
    figure("coalesce", `${who}: p99`, "ms", column(rows, "p99Ms")),
  ];
  const own = [
    ...rowsOf(name, ours, 1, 0),
    ...rowsOf("the same through a bare Worker", bare),
    figure("coalesce", "p99 through Drover over p99 through a bare Worker", "x", ratios(ours, bare), P99_FLOOR_TARGET),
  ];
  if (theirs.length === 0) {
    const skipped = "varnishd is not installed, or does not start; apt-get install varnish brings it";
    return [...own, { scenario: "coalesce", name: "the same through Varnish", skipped }];
  }
  return [
    ...own,
    ...rowsOf("the same through Varnish", theirs),
    figure("coalesce", "p99 through a bare Worker over p99 through Varnish", "x", ratios(bare, theirs)),
    figure("coalesce", "p99 through Drover over p99 through Varnish", "x", ratios(ours, theirs), P99_VARNISH_TARGET),
  ];
}
