/**
 * Readers that stop reading, over real sockets: the goal goes on at its own
 * pace, the server keeps no more for them than their sockets hold, and one
 * that reads on later misses nothing.
 */
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { get, type IncomingMessage } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";
import { expect, test } from "vitest";
import type { GoalView } from "../../shared/protocol/goal.ts";
import { call, goalOf, until } from "./api.ts";
import { useStage } from "./stage.ts";

const TASKS = 3_000;
const RESULT_BYTES = 20_000;
const READERS = 20;
const MIB = 1024 * 1024;
const filler = JSON.stringify("x".repeat(RESULT_BYTES));
const stage = useStage((_request, response) => {
  response.setHeader("content-type", "application/json");
  response.end(filler);
});

interface Reader {
  readonly response: IncomingMessage;
  readonly heard: () => string;
}

/** Opens a stream and stops reading after the first piece: its socket fills up. */
async function openAndStall(path: string): Promise<Reader> {
  const headers = { authorization: `Bearer ${stage.drover.token}` };
  const asked = get(stage.drover.url + path, { agent: false, headers });
  const [response] = (await once(asked, "response")) as [IncomingMessage];
  let text = "";
  response.setEncoding("utf8").on("error", () => undefined);
  await new Promise<void>((resolve) => {
    response.on("data", (piece: string) => {
      text += piece;
      resolve();
    });
  });
  response.pause();
  return { response, heard: () => text };
}

async function readOn({ response, heard }: Reader): Promise<string> {
  const ended = once(response, "end");
  response.resume();
  await ended;
  return heard();
}

const tasks = Array.from({ length: TASKS }, (_, n) => ({ key: `k${n}`, call: { upstream: "real", path: `/${n}` } }));

async function run(readersOf: (id: string) => Promise<Reader[]>): Promise<{ id: string; ms: number; readers: Reader[] }> {
  const { id } = await call<GoalView>(stage.drover, "POST", "/v1/goals", {});
  const readers = await readersOf(id);
  const startedAt = performance.now();
  await call(stage.drover, "POST", `/v1/goals/${id}/tasks`, { tasks });
  await until("all are done", async () => (await goalOf(stage.drover, id)).counts.succeeded === TASKS);
  const ms = performance.now() - startedAt;
  return { id, ms, readers };
}

/** Resident memory of workerd in bytes. */
function memory(): number {
  const status = readFileSync(`/proc/${stage.drover.workerdPid()}/status`, "utf8");
  return Number(/VmRSS:\s+(\d+) kB/.exec(status)![1]) * 1024;
}

test("readers that stall neither delay a goal nor gather its results in memory, and miss nothing when they read on", async () => {
  await run(async () => []);
  const alone = await run(async () => []);
  const before = memory();
  const { id, ms, readers } = await run((goalId) => {
    const streams = [`/v1/goals/${goalId}/events`, `/v1/goals/${goalId}/events?tasks=true`];
    return Promise.all(Array.from({ length: READERS }, (_, n) => openAndStall(streams[n % 2]!)));
  });
  const results = await Promise.all(Array.from({ length: READERS }, () => openAndStall(`/v1/goals/${id}/results?follow=true`)));
  await sleep(500);
  // What they have not read is 60 MB each.
  expect(memory() - before).toBeLessThan(300 * MIB);
  expect(ms).toBeLessThan(alone.ms * 3 + 1_000);

  const [first, ...others] = results;
  for (const { response } of [...others, ...readers.slice(2)]) response.destroy();
  await call(stage.drover, "POST", `/v1/goals/${id}/seal`);
  const [lines, quiet, chatty] = await Promise.all([readOn(first!), readOn(readers[0]!), readOn(readers[1]!)]);
  const keys = [...lines.matchAll(/"key":"(k\d+)"/g)].map(([, key]) => key);
  expect([keys.length, new Set(keys).size]).toEqual([TASKS, TASKS]);
  expect(lines).toContain('{"end":{"status":"succeeded"');
  expect(new Set([...chatty.matchAll(/"key":"(k\d+)"/g)].map(([, key]) => key)).size).toBe(TASKS);
  for (const events of [quiet, chatty]) expect(events).toMatch(/event: snapshot\n[\s\S]*event: end\n/);
  // However long it took: at most ten a second, and none for want of a reader.
  expect([...quiet.matchAll(/^event: progress$/gm)].length).toBeLessThan(30 + ms / 100);
});
