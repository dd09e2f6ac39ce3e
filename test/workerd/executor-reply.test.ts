/** How a batch replies: at once, as a stream, and to nobody. */
import { env, exports } from "cloudflare:workers";
import { expect, test } from "vitest";
import { noteEnded } from "../../shared/ended.ts";
import { BATCH_LANES_MAX, EXECUTOR_BUFFER_BYTES_MAX, EXECUTOR_CHUNK_INTERVAL_MS, EXECUTOR_PATIENCE_MS } from "../../shared/limits.ts";
import { GIVEN_BACK_STATUS, LEASE_ENDED_STATUS } from "../../shared/policy/outcome.ts";
import type { BatchReply, ExecutorRpc } from "../../shared/rpc-batch.ts";
import { runBatch } from "../../workers/executor/run-batch.ts";
import { batchOf, countsOf, delay, hostOf, itemOf, readAll, reportsOf, run, runStreamed } from "./executor-kit.ts";

const tasksOf = (lines: string): number[] =>
  reportsOf(lines)
    .map(({ task }) => task)
    .toSorted((a, b) => a - b);
const upTo = (count: number): number[] => Array.from({ length: count }, (_, i) => i);
const BIG = 400_000;

/** A busy machine can make any batch slow, so a quick one gets a few chances. */
async function quickly(work: () => Promise<BatchReply>): Promise<string> {
  for (let i = 0; i < 10; i++) {
    const reply = await work();
    if (typeof reply === "string") return reply;
    await readAll(reply);
  }
  throw new Error("it never answered with a string");
}

async function eventually(isTrue: () => Promise<boolean>): Promise<void> {
  for (let i = 0; i < 200; i++) {
    if (await isTrue()) return;
    await delay(10);
  }
  throw new Error("it never came true");
}

test("a batch that ends quickly answers with one string, a line for each item", async () => {
  const batch = batchOf(upTo(20).map((i) => itemOf(i, "/delay/0", { attempt: i + 1 })));
  const reports = reportsOf(await quickly(() => runBatch(batch, hostOf()))).toSorted((a, b) => a.task - b.task);
  expect(reports.map(({ task, attempt }) => [task, attempt])).toEqual(upTo(20).map((i) => [i, i + 1]));
  for (const { startedAtMs, endedAtMs } of reports) expect(endedAtMs).toBeGreaterThanOrEqual(startedAtMs);
});

test("an empty batch answers with an empty string", async () => {
  expect(await runBatch(batchOf([]), hostOf())).toBe("");
});

test("a slow call does not hold back its neighbours' lines", async () => {
  const startedAtMs = Date.now();
  const reply = await runStreamed(batchOf([itemOf(0, "/delay/600"), ...upTo(10).map((i) => itemOf(i + 1, "/delay/0"))]), hostOf());
  expect(Date.now() - startedAtMs).toBeLessThan(EXECUTOR_PATIENCE_MS + 300);
  expect(tasksOf(reply.first)).toEqual(upTo(11).slice(1));
  expect(tasksOf(await new Response(reply.rest).text())).toEqual([0]);
});

test("a stream has at most one chunk an interval", async () => {
  const { first, rest } = await runStreamed(
    batchOf(
      upTo(60).map((i) => itemOf(i, `/delay/${60 + i}`)),
      { lanes: 6 },
    ),
    hostOf(),
  );
  const arrivals: number[] = [];
  let text = first;
  const decoder = new TextDecoder();
  for await (const chunk of rest) {
    arrivals.push(Date.now());
    text += decoder.decode(chunk, { stream: true });
  }
  expect(tasksOf(text)).toEqual(upTo(60));
  // The last chunk does not wait: nothing comes after it.
  const gaps = arrivals.length - 2;
  expect(gaps).toBeGreaterThan(3);
  // One that arrives late makes the next seem early; the whole says how many there were.
  expect(arrivals.at(-2)! - arrivals[0]!).toBeGreaterThanOrEqual((gaps - 1) * EXECUTOR_CHUNK_INTERVAL_MS);
});

test("never more than six calls are open, whatever the batch asks for", async () => {
  await run(
    upTo(40).map((i) => itemOf(i, "/delay/20?name=lanes")),
    { lanes: 10 },
  );
  expect((await countsOf("lanes")).max).toBe(BATCH_LANES_MAX);
  await run(
    upTo(10).map((i) => itemOf(i, "/delay/10?name=two-lanes")),
    { lanes: 2 },
  );
  expect((await countsOf("two-lanes")).max).toBe(2);
});

test("an aborted attempt is cut off and never reported; its neighbours are", async () => {
  const items = upTo(9).map((i) => itemOf(i, "/delay/400?name=abort"));
  const reply = await runStreamed(batchOf(items), hostOf());
  // 0 runs and 8 has not begun; another attempt of 1 than the one that runs is not meant.
  reply.control.abort([
    [0, 1],
    [8, 1],
    [1, 2],
  ]);
  await eventually(async () => (await countsOf("abort")).total === 7);
  expect(tasksOf(await readAll(reply))).toEqual([1, 2, 3, 4, 5, 6, 7]);
  expect((await countsOf("abort")).total).toBe(8);
});

test("stop cuts off what runs, starts nothing, and closes the stream", async () => {
  const host = hostOf();
  const reply = await runStreamed(batchOf(upTo(20).map((i) => itemOf(i, i === 0 ? "/delay/0?name=stop" : "/delay/5000?name=stop"))), host);
  const startedAtMs = Date.now();
  reply.control.stop();
  expect(tasksOf(await readAll(reply))).toEqual([0]);
  expect(Date.now() - startedAtMs).toBeLessThan(1_000);
  expect((await countsOf("stop")).total).toBe(7);
  expect(host.settled).toEqual([]);
});

test("once the goal of a batch, or one above it, has ended, nothing more begins, and what has not begun is given back", async () => {
  for (const [name, own, above] of [
    ["ended-own", "goal_own", ["goal_root"]],
    ["ended-above", "goal_leaf", ["goal_end", "goal_middle"]],
  ] as const) {
    const items = upTo(5).map((task) => itemOf(task, `/delay/300?name=${name}`));
    const running = run(items, { lanes: 2, goalId: own, above });
    await eventually(async () => (await countsOf(name)).total === 2);
    noteEnded(name === "ended-own" ? own : "goal_end");
    const reports = (await running).map(({ task, outcome, status }) => [task, outcome, status]);
    expect(reports.toSorted(([a], [b]) => Number(a) - Number(b))).toEqual([
      [0, "answered", 200],
      [1, "answered", 200],
      ...[2, 3, 4].map((task) => [task, "not_sent", GIVEN_BACK_STATUS]),
    ]);
    expect((await countsOf(name)).total).toBe(2);
  }
  const elsewhere = await run([itemOf(0, "/delay/0?name=ended-elsewhere")], { goalId: "goal_other", above: ["goal_root"] });
  expect(elsewhere.map(({ status }) => status)).toEqual([200]);
});

test("when the permits end, what runs is cut off and says why, and what has not begun is given back", async () => {
  const items = upTo(3).map((task) => itemOf(task, "/delay/5000?name=permits-end"));
  const startedAtMs = Date.now();
  const reports = await run(items, { lanes: 2, permitMs: 300 });
  const passedMs = Date.now() - startedAtMs;
  expect(passedMs).toBeGreaterThanOrEqual(290);
  expect(passedMs).toBeLessThan(3_000);
  expect(reports.map(({ task, outcome, status }) => [task, outcome, status])).toEqual([
    [2, "not_sent", GIVEN_BACK_STATUS],
    [0, "broken", LEASE_ENDED_STATUS],
    [1, "broken", LEASE_ENDED_STATUS],
  ]);
  expect((await countsOf("permits-end")).total).toBe(2);
});

test("permits that are renewed in time last on, and a renewal never shortens them", async () => {
  const items = upTo(2).map((task) => itemOf(task, "/delay/700?name=permits-renewed"));
  const { first, rest, control } = await runStreamed(batchOf(items, { permitMs: 400 }), hostOf());
  control.renew(2_000);
  control.renew(1);
  const reports = reportsOf(first + (await new Response(rest).text()));
  expect(reports.map(({ outcome, status }) => [outcome, status])).toEqual([
    ["answered", 200],
    ["answered", 200],
  ]);
});

test("when the goal goes away, nothing more begins and what runs is reported through settle", async () => {
  const host = hostOf();
  const reply = await runStreamed(batchOf(upTo(30).map((i) => itemOf(i, "/delay/1000?name=gone"))), host);
  await reply.rest.cancel("the goal has died");
  await Promise.all(host.work);
  // The list grew while it was waited for.
  await Promise.all(host.work);
  expect(host.settled.length).toBe(1);
  expect(tasksOf(host.settled[0]!)).toEqual(upTo(6));
  expect((await countsOf("gone")).total).toBe(6);
});

test("a chunk that may have been lost with the goal is settled again", async () => {
  const host = hostOf();
  const reply = await runStreamed(batchOf([itemOf(0, "/delay/150"), itemOf(1, "/delay/400")]), host);
  const reader = reply.rest.getReader();
  expect(tasksOf(new TextDecoder().decode((await reader.read()).value))).toEqual([0]);
  await reader.cancel();
  await Promise.all(host.work);
  await Promise.all(host.work);
  expect(tasksOf(host.settled.join(""))).toEqual([0, 1]);
});

test("after stop a canceled stream reports nothing", async () => {
  const host = hostOf();
  const reply = await runStreamed(batchOf([itemOf(0, "/delay/150"), itemOf(1, "/delay/5000")]), host);
  // By now a line waits that nobody has read.
  await delay(200);
  reply.control.stop();
  await reply.rest.cancel();
  await Promise.all(host.work);
  await Promise.all(host.work);
  expect(host.settled).toEqual([]);
});

test("a settle that fails does no harm", async () => {
  const host = hostOf({ settle: () => Promise.reject(new Error("the goal is gone for good")) });
  const reply = await runStreamed(batchOf([itemOf(0, "/delay/200")]), host);
  await reply.rest.cancel();
  await Promise.all(host.work);
  await Promise.all(host.work);
});

test("big results turn the reply into a stream at once, in chunks of bounded size", async () => {
  const items = upTo(12).map((i) => itemOf(i, `/body?type=text/plain&bytes=${BIG}`));
  const reply = await runStreamed(batchOf(items), hostOf());
  let text = reply.first;
  const decoder = new TextDecoder();
  for await (const chunk of reply.rest) {
    expect(chunk.byteLength).toBeLessThanOrEqual(3 * EXECUTOR_BUFFER_BYTES_MAX);
    text += decoder.decode(chunk, { stream: true });
  }
  expect(tasksOf(text)).toEqual(upTo(12));
});

test("characters of more than one byte survive the cut between chunks", async () => {
  const fill = "\u{1F40F}";
  const count = EXECUTOR_BUFFER_BYTES_MAX;
  const query = new URLSearchParams({ type: "text/plain", fill, bytes: String(4 * count) });
  // One digit more moves the cut from between two characters to within one.
  for (const task of [0, 10]) {
    const [report] = await run([itemOf(task, `/body?${query.toString()}`)]);
    expect(report!.payload["body"] === fill.repeat(count)).toBe(true);
  }
});

test("while the reader sleeps, lanes wait instead of filling memory", async () => {
  const items = upTo(40).map((i) => itemOf(i, `/body?type=text/plain&bytes=${BIG}&name=slow-reader`));
  const reply = await runStreamed(batchOf(items), hostOf());
  await delay(400);
  const started = (await countsOf("slow-reader")).total;
  expect(started).toBeLessThanOrEqual(Math.ceil(EXECUTOR_BUFFER_BYTES_MAX / BIG) + BATCH_LANES_MAX);
  expect(tasksOf(await readAll(reply))).toEqual(upTo(40));
});

test("lanes that wait for a sleeping reader end when it goes away", async () => {
  const host = hostOf();
  const items = upTo(40).map((i) => itemOf(i, `/body?type=text/plain&bytes=${BIG}&name=gone-reader`));
  const reply = await runStreamed(batchOf(items), host);
  await delay(200);
  await reply.rest.cancel();
  await Promise.all(host.work);
  await Promise.all(host.work);
  expect(tasksOf(host.settled.join("")).length).toBe((await countsOf("gone-reader")).total);
});

const transports: Record<string, () => ExecutorRpc> = {
  entrypoint: () => (exports as unknown as { Executor: ExecutorRpc }).Executor,
  pool: () => env.EXECUTOR_POOL.get(env.EXECUTOR_POOL.idFromName("0")),
};

for (const [name, executorOf] of Object.entries(transports)) {
  test(`the ${name} answers over RPC with a string or with a stream and a control`, async () => {
    expect(tasksOf(await quickly(() => executorOf().run(batchOf([itemOf(0, "/delay/0")]))))).toEqual([0]);
    const reply = await executorOf().run(batchOf([itemOf(0, "/delay/0"), itemOf(1, "/delay/300"), itemOf(2, "/delay/5000")]));
    if (typeof reply === "string") throw new Error("expected a stream");
    expect(tasksOf(reply.first)).toEqual([0]);
    reply.control.abort([[2, 1]]);
    expect(tasksOf(await new Response(reply.rest).text())).toEqual([1]);
  });
}
