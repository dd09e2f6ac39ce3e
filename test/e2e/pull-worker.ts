/**
 * A worker outside, as a program of its own: claims reviews of a goal, takes a
 * moment for each, settles them and goes with the goal. It tells its parent what
 * it claimed, and what it did, before it says so to the server.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { send, type Server } from "./api.ts";

export interface Claim {
  readonly taskId: string;
  readonly attempt: number;
  readonly fence: number;
  readonly input: { readonly n: number };
}

export interface Told {
  readonly what: "claimed" | "did" | "settled";
  readonly claims: readonly Claim[];
  readonly statuses?: readonly string[];
}

const LEASE_MS = 1_000;
const MAX = 10;
const WORK_MS = 5;

const tell = (told: Told): Promise<void> => new Promise((resolve) => process.send!(told, () => resolve()));

async function work(server: Server, goalId: string): Promise<void> {
  const at = `/v1/goals/${goalId}/claims`;
  for (;;) {
    const answer = await send(server, "POST", at, JSON.stringify({ queue: "review", max: MAX, leaseMs: LEASE_MS, waitMs: 10_000 }));
    if (answer.status === 409) return;
    const { claims } = JSON.parse(answer.text) as { claims: readonly Claim[] };
    await tell({ what: "claimed", claims });
    const settlements: object[] = [];
    for (const { taskId, attempt, input } of claims) {
      await sleep(WORK_MS);
      settlements.push({ taskId, attempt, result: { n: input.n, by: process.pid } });
    }
    await tell({ what: "did", claims });
    if (claims.length === 0) continue;
    const settled = await send(server, "POST", `${at}/settle`, JSON.stringify({ settlements }));
    const lines = (JSON.parse(settled.text) as { settlements: readonly { status: string }[] }).settlements;
    await tell({ what: "settled", claims, statuses: lines.map(({ status }) => status) });
  }
}

const [url, token, goalId] = process.argv.slice(2) as [string, string, string];
await work({ url, token }, goalId);
process.disconnect();
