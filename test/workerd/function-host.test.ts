/** What functions ask of upstreams, against a real gate, governor, goal and upstream. */
import { expect, test } from "vitest";
import { HAND_HOLD_MS, HAND_PERMITS_MAX } from "../../shared/limits.ts";
import type { HandNews, HandRpc } from "../../shared/rpc-functions.ts";
import { countsOf, delay } from "./executor-kit.ts";
import { batchIn, budgetOf, endsOf, gateOf, goalWith } from "./host-kit.ts";
import { type Echo, upstream } from "./proxy-kit.ts";

test("a call reaches the upstream with Drover's headers, and its answer comes back whole", async () => {
  await upstream("plain", { headers: { authorization: "Bearer of-the-upstream" } });
  const goalId = await goalWith();
  const { run, host, items } = batchIn(goalId, "plain", 1, { fence: "a=1" });
  const answer = await run[0]!.call({ method: "POST", path: "/echo?x=1", headers: { "X-Mine": "1" }, body: { a: 1 } });
  expect(answer.status).toBe(200);
  expect(answer.headers["content-type"]).toBe("application/json");
  const { method, path, headers, body } = answer.body as Echo;
  expect([method, path, atob(body)]).toEqual(["POST", "/echo?x=1", '{"a":1}']);
  expect(headers).toMatchObject({
    authorization: "Bearer of-the-upstream",
    "content-type": "application/json",
    "x-mine": "1",
    "idempotency-key": `${items[0]!.taskId}.1`,
    "drover-goal": goalId,
    "drover-task": items[0]!.taskId,
    "drover-attempt": "1",
    "drover-fence": "a=1",
  });
  expect(headers["traceparent"]).toMatch(/^00-[0-9a-f]{32}-[0-9a-f]{16}-01$/);
  expect(host.usageOf(items[0]!)).toEqual({ calls: 1, tokens: 0, costMicros: 0 });
  await host.end();
});

test("400 calls of a batch take few messages, and are all charged", async () => {
  await upstream("many", { maxConcurrency: 6 });
  const goalId = await goalWith({ budget: { calls: 1_000 } });
  const batch = batchIn(goalId, "many", 64);
  const ends = await endsOf(
    batch.run.map(async ({ call }) => {
      for (let i = 0; i < 6; i++) await call({ path: "/delay/1?name=many" });
      return "done";
    }),
  );
  expect(new Set(ends)).toEqual(new Set(["done"]));
  await batch.host.end();
  expect((await countsOf("many")).total).toBe(384);
  expect((await countsOf("many")).max).toBeLessThanOrEqual(6);
  console.log("messages for 384 calls:", batch.messages);
  expect(batch.messages).toBeLessThan(40);
  await delay(300);
  expect(await budgetOf(goalId)).toMatchObject({ spent: { calls: 384 }, reserved: { calls: 0 } });
});

test("of 60 calls against a budget for 25, in three batches at once, 25 are made", async () => {
  await upstream("few");
  const goalId = await goalWith({ budget: { calls: 25 } });
  const batches = [1, 2, 3].map(() => batchIn(goalId, "few", 20));
  const ends = await endsOf(
    batches.flatMap(({ run }) => run.map(({ call }) => call({ path: "/delay/1?name=few" }).then(({ status }) => status))),
  );
  expect(ends.filter((end) => end === 200)).toHaveLength(25);
  expect(ends.filter((end) => end === "budget_exhausted")).toHaveLength(35);
  for (const { host } of batches) await host.end();
  await delay(300);
  expect((await countsOf("few")).total).toBe(25);
  expect(await budgetOf(goalId)).toMatchObject({ spent: { calls: 25 }, reserved: { calls: 0 } });
});

test("a permit that comes is told at once, whichever of two exchanges is on the line", async () => {
  await upstream("told", { maxConcurrency: 1 });
  const goalId = await goalWith();
  const gate = gateOf(goalId);
  const handOf = (): Promise<HandRpc> => gate.hand({ gate: `proxy-${goalId}`, goalId, waitMs: 5_000 });
  const [holder, waiter] = [await handOf(), await handOf()];
  const ask = { upstream: "told", calls: 0, spare: 0, draws: [], keys: [], ends: [], back: [], unused: 0, undrawn: [], closed: [] };
  const permitsIn = (news: readonly HandNews[]): number[] => news.flatMap(({ permits }) => permits.map(([id]) => id));
  let held: number[] = [];
  while (held.length === 0) held = permitsIn(await holder.exchange([{ ...ask, permits: held.length === 0 ? 1 : 0 }]));
  await waiter.exchange([{ ...ask, permits: 1 }]);
  const first = waiter.exchange([]);
  await delay(20);
  const second = waiter.exchange([{ ...ask, permits: 1 }]);
  await delay(20);
  const freedAtMs = Date.now();
  await holder.exchange([{ ...ask, permits: 0, back: held }]);
  let told = (await Promise.all([first, second])).flatMap(permitsIn);
  while (told.length === 0) told = permitsIn(await waiter.exchange([]));
  expect(Date.now() - freedAtMs).toBeLessThan(HAND_HOLD_MS / 2);
  for (const hand of [holder, waiter]) (hand as Partial<Disposable>)[Symbol.dispose]?.();
});

test("permits that a batch may not have are refused, or it would wait for them for ever", async () => {
  await upstream("plenty");
  const goalId = await goalWith();
  const hand = await gateOf(goalId).hand({ gate: `proxy-${goalId}`, goalId, waitMs: 5_000 });
  const ask = { upstream: "plenty", calls: 0, spare: 0, draws: [], keys: [], ends: [], back: [], unused: 0, undrawn: [], closed: [] };
  let [got, refused] = [0, 0];
  for (let permits = HAND_PERMITS_MAX + 2; got + refused < HAND_PERMITS_MAX + 2; permits = 0) {
    for (const news of await hand.exchange([{ ...ask, permits }])) {
      got += news.permits.length;
      refused += news.without?.count ?? 0;
    }
  }
  expect([got, refused]).toEqual([HAND_PERMITS_MAX, 2]);
  await hand.close([]);
});
