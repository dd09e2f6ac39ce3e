/** What the executor's tests share: batches against the test upstream, and replies read to their end. */
import { inject } from "vitest";
import { parseLineHead, payloadOf, type LineHead } from "../../shared/protocol/line.ts";
import type { Batch, BatchItem, BatchReply } from "../../shared/rpc-batch.ts";
import { tcpReach } from "../../workers/executor/reach.ts";
import { runBatch, type BatchHost } from "../../workers/executor/run-batch.ts";

declare module "vitest" {
  interface ProvidedContext {
    upstreamUrl: string;
  }
}

export const GOAL_ID = "goal_01arz3ndektsv4rrffq69g5fav";
export const TRACE_ID = "0af7651916cd43dd8448eb211c80319c";
/** Nobody listens on the port of tcpmux. */
export const REFUSING_ORIGIN = "http://127.0.0.1:1";

export type StreamedReply = Exclude<BatchReply, string>;

/** A line taken apart. */
export interface Reported extends LineHead {
  readonly payloadText: string;
  // Payloads have many shapes; a test knows which one it asked for.
  readonly payload: Readonly<Record<string, unknown>>;
}

export function itemOf(task: number, path: string, more: Partial<BatchItem> = {}): BatchItem {
  const taskId = `task_01arz3ndektsv4rrffq69g5fav${String(task).padStart(6, "0")}`;
  return { task, taskId, attempt: 1, method: "GET", path, timeoutMs: 10_000, ...more };
}

export function batchOf(items: readonly BatchItem[], more: Partial<Batch> = {}): Batch {
  return {
    goalId: GOAL_ID,
    traceId: TRACE_ID,
    origin: inject("upstreamUrl"),
    headers: {},
    permitMs: null,
    tokensPointer: null,
    lanes: 6,
    items,
    ...more,
  };
}

/** A host that remembers what it was told. */
export function hostOf(more: Partial<BatchHost> = {}): BatchHost & { readonly settled: string[]; readonly work: Promise<unknown>[] } {
  const settled: string[] = [];
  const work: Promise<unknown>[] = [];
  const settle = async (_goalId: string, lines: string): Promise<void> => void settled.push(lines);
  return { settled, work, settle, waitUntil: (promise) => void work.push(promise), reach: tcpReach, ...more };
}

export function reportsOf(lines: string): Reported[] {
  return lines
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => {
      const payloadText = payloadOf(line);
      return { ...parseLineHead(line), payloadText, payload: JSON.parse(payloadText) as Reported["payload"] };
    });
}

export async function readAll(reply: BatchReply): Promise<string> {
  if (typeof reply === "string") return reply;
  return reply.first + (await new Response(reply.rest).text());
}

/** Runs the items to the end, whichever way the reply comes. */
export async function run(items: readonly BatchItem[], more: Partial<Batch> = {}): Promise<Reported[]> {
  return reportsOf(await readAll(await runBatch(batchOf(items, more), hostOf())));
}

/** Runs one call. */
export async function runOne(path: string, more: Partial<BatchItem> = {}, batch: Partial<Batch> = {}): Promise<Reported> {
  return (await run([itemOf(0, path, more)], batch))[0]!;
}

/** Runs a batch that must outlast the executor's patience. */
export async function runStreamed(batch: Batch, host: BatchHost): Promise<StreamedReply> {
  const reply = await runBatch(batch, host);
  if (typeof reply === "string") throw new Error(`expected a stream, not ${reply}`);
  return reply;
}

export async function countsOf(name: string): Promise<{ total: number; inFlight: number; max: number }> {
  return (await fetch(`${inject("upstreamUrl")}/counts?name=${name}`)).json();
}

/** Lets the upstream answer the tries that it holds under the name. */
export async function letGo(name: string): Promise<void> {
  await (await fetch(`${inject("upstreamUrl")}/let-go?name=${name}`)).body?.cancel();
}

export const delay = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
