/**
 * `tokens`: what it costs to prove a token of four caveats, and to find one
 * that was proven, in workerd; and the CPU time of a request with such a token,
 * and with one that was never seen, beside the same request with the root token.
 */
import { Agent, get } from "node:http";
import { webcrypto } from "node:crypto";
import { decodeToken, hmacOf, narrowToken } from "../../shared/token.ts";
import type { Caveat } from "../../shared/token/caveats.ts";
import { type Finding, figure } from "../report.ts";
import type { Stage } from "../stage.ts";
import { shuffled } from "../stats.ts";
import { cpuMs } from "../cpu.ts";
import { startVerifier, type Task } from "../tokens.ts";

const VERIFICATIONS = 10_000;
const LOOKUPS = 400_000;
const REQUESTS = 4_000;
const REQUESTS_FAST = 1_000;
const CONNECTIONS = 8;

const hmac = hmacOf(webcrypto.subtle as never);

async function post(url: string, token: string, body: object): Promise<Record<string, string>> {
  const headers = { authorization: `Bearer ${token}`, "content-type": "application/json" };
  const response = await fetch(url, { method: "POST", headers, body: JSON.stringify(body) });
  if (!response.ok) throw new Error(await response.text());
  return (await response.json()) as Record<string, string>;
}

const FOUR = (goalId: string): Caveat[] => [
  { type: "goal", goalId },
  { type: "scopes", allow: ["read", "submit"] },
  { type: "upstreams", allow: ["search", "llm-*"] },
  { type: "methods", allow: ["GET", "POST"] },
];

/** As many tokens as there are requests, each a caveat longer and its own. */
async function fresh(token: string, count: number): Promise<string[]> {
  const decoded = decodeToken(token);
  if (!decoded.ok) throw new Error(decoded.error);
  const untilMs = Date.now() + 3_600_000;
  return Promise.all(Array.from({ length: count }, (_, i) => narrowToken(hmac, decoded.value, [{ type: "expires", atMs: untilMs + i }])));
}

/** Asks for the URL once with each token. */
async function askAll(url: string, tokens: readonly string[]): Promise<void> {
  const agent = new Agent({ keepAlive: true, maxSockets: CONNECTIONS });
  const one = (token: string): Promise<void> =>
    new Promise((resolve, reject) => {
      get(url, { agent, headers: { authorization: `Bearer ${token}` } }, (response) => {
        const { statusCode } = response;
        response.resume().on("end", () => (statusCode === 200 ? resolve() : reject(new Error(`answered ${statusCode}`))));
      }).on("error", reject);
    });
  let next = 0;
  const lane = async (): Promise<void> => {
    while (next < tokens.length) await one(tokens[next++]!);
  };
  await Promise.all(Array.from({ length: CONNECTIONS }, lane));
  agent.destroy();
}

export function tokensOf(isFast: boolean): (stage: Stage, rounds: number) => Promise<Finding[]> {
  const requests = isFast ? REQUESTS_FAST : REQUESTS;
  return async (stage, rounds) => {
    const { url, token: root, workerdPid } = stage.drover();
    const { id } = (await post(`${url}/v1/goals`, root, {})) as { id: string };
    const { token } = (await post(`${url}/v1/tokens`, root, { caveats: FOUR(id) })) as { token: string };
    const verifier = await startVerifier(root, token);
    const each = async (task: Task, than: Task, n: number): Promise<number> =>
      ((await verifier.ms(task, n)) - (await verifier.ms(than, than === task ? 0 : n))) / n;
    const proofs: number[] = [];
    const lookups: number[] = [];
    const chains: number[] = [];
    const cpu: Record<string, number[]> = { root: [], known: [], fresh: [] };
    for (let round = 0; round <= rounds; round++) {
      const chainMs = await each("chain", "chain", VERIFICATIONS);
      const [proofMs, lookupMs] = [await each("verify", "verify", VERIFICATIONS), await each("cached", "texts", LOOKUPS)];
      const ways = {
        root: Array<string>(requests).fill(root),
        known: Array<string>(requests).fill(token),
        fresh: await fresh(token, requests),
      };
      const used: Record<string, number> = {};
      for (const [name, tokens] of shuffled(Object.entries(ways))) {
        const before = cpuMs(workerdPid());
        await askAll(`${url}/v1/goals/${id}`, tokens);
        used[name] = ((cpuMs(workerdPid()) - before) * 1_000) / requests;
      }
      // The first round warms up.
      if (round === 0) continue;
      proofs.push(proofMs * 1_000);
      chains.push(chainMs * 1_000);
      lookups.push(lookupMs * 1_000);
      for (const name in cpu) cpu[name]!.push(used[name]!);
    }
    await verifier.end();
    const ratio = (name: string): number[] => cpu[name]!.map((us, i) => us / cpu["root"]![i]!);
    return [
      figure("tokens", "proof of a chain of four caveats", "µs", proofs, 50),
      figure("tokens", "five HMAC with WebCrypto alone", "µs", chains),
      figure("tokens", "lookup of a token that was proven", "µs", lookups, 1),
      figure("tokens", "CPU of a request with the root token", "µs", cpu["root"]!),
      figure("tokens", "CPU of a request with a token of four caveats", "µs", cpu["known"]!),
      figure("tokens", "… to that with the root token", "×", ratio("known")),
      figure("tokens", "CPU of a request with a token never seen before", "µs", cpu["fresh"]!),
      figure("tokens", "… to that with the root token", "×", ratio("fresh")),
    ];
  };
}
