/** A part of `stragglers`: what hedging makes of calls that are passed through, of which one in a hundred takes a second; in turns. */
import { Agent, get } from "node:http";
import type { Drover } from "../../client/cli/server/child.ts";
import { callsAt, declare } from "../goals.ts";
import { type Figure, figure } from "../report.ts";
import type { Stage } from "../stage.ts";
import { percentileOf } from "../stats.ts";

const CALLS = 2_000;
const LANES = 8;
const HEDGE = { quantile: 0.95, budgetPercent: 5 };
/** Beyond the share of calls that are slow. */
const QUANTILE = 0.995;

/** Milliseconds of one call, from its request to the answer's end. */
function timedCall(url: string, token: string, agent: Agent): Promise<number> {
  const startedAt = performance.now();
  return new Promise((resolve, reject) => {
    get(url, { agent, headers: { authorization: `Bearer ${token}` } }, (response) => {
      if (response.statusCode !== 200) reject(new Error(`${url} answered ${response.statusCode}`));
      response.resume().on("end", () => resolve(performance.now() - startedAt));
    }).on("error", reject);
  });
}

/** So many calls, no two of them equal, `LANES` at a time. */
async function callAll({ url, token }: Drover, upstream: string): Promise<number[]> {
  const agent = new Agent({ keepAlive: true });
  const tookMs: number[] = [];
  let next = 0;
  const lane = async (): Promise<void> => {
    while (next < CALLS) tookMs.push(await timedCall(`${url}/v1/proxy/${upstream}/d20s1000/q${next++}`, token, agent));
  };
  await Promise.all(Array.from({ length: LANES }, lane));
  agent.destroy();
  return tookMs;
}

export async function passedStragglers(stage: Stage, rounds: number): Promise<Figure[]> {
  const drover = stage.drover();
  await declare(drover, "passed-plain", { origin: stage.upstream });
  await declare(drover, "passed-hedged", { origin: stage.upstream, hedge: HEDGE });
  const [plain, hedged, extra]: number[][] = [[], [], []];
  for (let round = -1; round < rounds; round++) {
    const plainMs = percentileOf(await callAll(drover, "passed-plain"), QUANTILE);
    await callsAt(stage);
    const hedgedMs = percentileOf(await callAll(drover, "passed-hedged"), QUANTILE);
    const calls = await callsAt(stage);
    if (round < 0) continue;
    plain!.push(plainMs);
    hedged!.push(hedgedMs);
    extra!.push((100 * (calls - CALLS)) / CALLS);
  }
  return [
    figure("stragglers", "passed through, 1 % take 1 s, not hedged: p99.5", "ms", plain!),
    figure("stragglers", "passed through, 1 % take 1 s, hedged: p99.5", "ms", hedged!),
    figure("stragglers", "passed through, hedged: calls beyond one each", "%", extra!, 6),
  ];
}
