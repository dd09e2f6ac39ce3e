/** Thousands of connections at once: each is served or refused with a reason, and the server lives on with everything. */
import { expect, test } from "vitest";
import { startTimeOf } from "../../client/cli/server/processes.ts";
import type { GoalView } from "../../shared/protocol/goal.ts";
import { call, goalOf, send, until } from "./api.ts";
import { rawRequest } from "./raw.ts";
import { useStage } from "./stage.ts";
import { answerAfter } from "./upstream.ts";

const HERD = 2_000;
const stage = useStage(answerAfter(0));

/** One request on a connection of its own. Answers with its status, 0 where the connection was refused. */
async function oneShot(request: string): Promise<number> {
  const { socket, status } = rawRequest(stage.drover.url, request);
  return status.finally(() => socket.end());
}

function requestOf(method: string, path: string, body: string): string {
  const head = [`${method} ${path} HTTP/1.1`, "Host: drover", `Authorization: Bearer ${stage.drover.token}`];
  return `${head.join("\r\n")}\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`;
}

function tally(statuses: readonly number[]): Map<number, number> {
  const counts = new Map<number, number>();
  for (const status of statuses) counts.set(status, (counts.get(status) ?? 0) + 1);
  return counts;
}

test("two thousand connections at once are served or refused, and the server is the same afterwards", async () => {
  const workerd = stage.drover.workerdPid();
  const statuses = await Promise.all(Array.from({ length: HERD }, () => oneShot(requestOf("GET", "/healthz", ""))));
  const counts = tally(statuses);
  expect((counts.get(200) ?? 0) + (counts.get(503) ?? 0)).toBe(HERD);
  expect(counts.get(200)).toBeGreaterThan(200);
  expect(startTimeOf(workerd)).not.toBeNull();
  expect((await send(stage.drover, "GET", "/healthz")).status).toBe(200);
});

test("of two thousand single tasks at once exactly those are kept that were acknowledged", async () => {
  const { id } = await call<GoalView>(stage.drover, "POST", "/v1/goals", {});
  const workerd = stage.drover.workerdPid();
  const body = JSON.stringify({ tasks: [{ call: { upstream: "real", path: "/herd" } }] });
  const statuses = await Promise.all(Array.from({ length: HERD }, () => oneShot(requestOf("POST", `/v1/goals/${id}/tasks`, body))));
  const counts = tally(statuses);
  const taken = counts.get(202) ?? 0;
  expect(taken + (counts.get(503) ?? 0)).toBe(HERD);
  expect(taken).toBeGreaterThan(200);
  expect(stage.drover.workerdPid()).toBe(workerd);
  const goal = await goalOf(stage.drover, id);
  expect(goal.counts.total).toBe(taken);
  // One commit holds many of them: far fewer rows than requests.
  expect(goal.storage.rowsWritten).toBeLessThan(taken * 2);
  await until("all have run", async () => (await goalOf(stage.drover, id)).counts.succeeded === taken);
});
