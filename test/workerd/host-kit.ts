/** Batches of functions' runs without functions: the test asks what a handler would, of a real gate and a real goal. */
import { runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import type { FunctionVersion } from "../../shared/protocol/function.ts";
import type { GoalAskRpc, HandRequest, HandRpc, HandsRpc, RunBatch, RunItem } from "../../shared/rpc-functions.ts";
import { taskIdOf, type GoalId } from "../../shared/ids.ts";
import { Cutoff } from "../../workers/kit/cutoff.ts";
import { hostOf } from "../../workers/executor/host/host.ts";
import type { FunctionHost } from "../../workers/executor/host/types.ts";
import { tcpReach } from "../../workers/executor/reach.ts";
import type { HostCalls } from "../../workers/sandbox/types.ts";
import { TRACE_ID } from "./executor-kit.ts";
import { send } from "./proxy-kit.ts";

export const VERSION: FunctionVersion = {
  name: "test",
  version: "0".repeat(64),
  engine: "snapshot",
  limits: { cpuMs: 100, memoryBytes: 1_000_000 },
  bundleBytes: 0,
  snapshotBytes: 0,
  initMs: 0,
  createdAtMs: 0,
};

export interface Budget {
  readonly spent: { readonly calls?: number; readonly tokens?: number; readonly costMicros?: number };
  readonly reserved: { readonly calls?: number; readonly tokens?: number };
}

export async function goalWith(spec: object = {}): Promise<string> {
  const made = await send("POST", "/v1/goals", { body: JSON.stringify(spec), headers: { "content-type": "application/json" } });
  if (!made.ok) throw new Error(await made.text());
  return (await made.json<{ id: string }>()).id;
}

export const budgetOf = async (goalId: string): Promise<Budget> => (await send("GET", `/v1/goals/${goalId}/budget`)).json();

export function itemsOf(goalId: string, count: number, more: Partial<RunItem> = {}): RunItem[] {
  return Array.from({ length: count }, (_, task) => ({
    task,
    taskId: taskIdOf(goalId as GoalId, task),
    attempt: 1,
    timeoutMs: 20_000,
    input: "null",
    ...more,
  }));
}

export const gateOf = (goalId: string): HandsRpc => env.GATE.get(env.GATE.idFromName(`proxy-${goalId}`)) as unknown as HandsRpc;
const askOf = (goalId: string): GoalAskRpc => env.GOAL.get(env.GOAL.idFromName(goalId));

/** A batch under way, and how many messages it has sent to its gate. */
export interface Batch {
  readonly host: FunctionHost;
  readonly items: readonly RunItem[];
  readonly run: readonly Asker[];
  messages: number;
}

/** Asks as a handler does, and counts. */
export interface Asker {
  ask<T = Answered>(op: string, args: object): Promise<T>;
  call(request: object, upstream?: string): Promise<Answered>;
}

export interface Answered {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly encoding?: string;
  readonly body: unknown;
}

/** A batch of runs whose upstream is `upstream`. */
export function batchIn(goalId: string, upstream: string, count: number, more: Partial<RunItem> = {}): Batch {
  const items = itemsOf(goalId, count, more);
  const batch: RunBatch = { goalId, traceId: TRACE_ID, function: VERSION, items };
  const gate: HandsRpc = {
    async hand(request: HandRequest) {
      made.messages++;
      const hand = await gateOf(goalId).hand(request);
      return {
        exchange: (asks) => {
          made.messages++;
          return hand.exchange(asks);
        },
        close: (asks) => {
          made.messages++;
          return hand.close(asks);
        },
        find: (origin) => hand.find(origin),
        [Symbol.dispose]: () => (hand as Partial<Disposable>)[Symbol.dispose]?.(),
      } as HandRpc;
    },
  };
  const host = hostOf(batch, { gate: () => gate, gateName: `proxy-${goalId}`, goal: () => askOf(goalId), reach: tcpReach });
  const run = items.map((item) => askerOf(host.callsOf(item, new Cutoff()), upstream));
  const made: Batch = {
    host,
    items,
    run,
    messages: 0,
  };
  return made;
}

function askerOf(calls: HostCalls, upstream: string): Asker {
  let seq = 0;
  const ask = async <T>(op: string, args: object): Promise<T> => JSON.parse(await calls(op, JSON.stringify(args), ++seq)) as T;
  return { ask, call: (request, name = upstream) => ask("call", { upstream: name, request }) };
}

/** Runs `work` in an executor object, which is then lost with all that it had open. */
export async function inLostExecutor(work: () => Promise<void>): Promise<void> {
  const stub = env.EXECUTOR_POOL.get(env.EXECUTOR_POOL.newUniqueId());
  const lost = runInDurableObject(stub, async (_executor, ctx) => {
    await work();
    ctx.abort("the executor is lost");
  });
  await lost.catch(() => undefined);
}

/** The gate of the goal is lost, and all that it had in memory. */
export async function loseGate(goalId: string): Promise<void> {
  const stub = env.GATE.get(env.GATE.idFromName(`proxy-${goalId}`));
  await runInDurableObject(stub, (_gate, ctx) => ctx.abort("the gate is lost")).catch(() => undefined);
}

/** The goal's object is lost, and comes back from its disk. */
export async function loseGoal(goalId: string): Promise<void> {
  const stub = env.GOAL.get(env.GOAL.idFromName(goalId));
  await runInDurableObject(stub, (_goal, ctx) => ctx.abort("the goal is lost")).catch(() => undefined);
}

/** How each of the promises ended: its value, or the code of its error. */
export async function endsOf<T>(promises: readonly Promise<T>[]): Promise<(T | string)[]> {
  const settled = await Promise.allSettled(promises);
  return settled.map((one) => (one.status === "fulfilled" ? one.value : ((one.reason as { code?: string }).code ?? String(one.reason))));
}
