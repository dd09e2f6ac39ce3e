/** What a run's task has set aside pays for its calls first, against a real gate, goal, sandbox and upstream. */
import { expect, test, vi } from "vitest";
import { countsOf, delay } from "./executor-kit.ts";
import { batchIn, budgetOf, endsOf, goalWith } from "./host-kit.ts";
import { send, upstream } from "./proxy-kit.ts";

const NOTHING_USED = { calls: 0, tokens: 0, costMicros: 0 };

test("calls are paid from what the run's task has set aside, and beyond that from the goal", async () => {
  await upstream("purse");
  const goalId = await goalWith({ budget: { calls: 1 } });
  const { run, host, items } = batchIn(goalId, "purse", 1, { reserve: [0, 2, 0, 0] });
  const ends = await endsOf([1, 2, 3, 4].map(() => run[0]!.call({ path: "/delay/1?name=purse" }).then(({ status }) => status)));
  expect(ends).toEqual([200, 200, 200, "budget_exhausted"]);
  expect(host.usageOf(items[0]!)).toEqual({ ...NOTHING_USED, calls: 1, drawn: [0, 2, 0, 0] });
  await host.end();
  await vi.waitFor(async () => expect(await budgetOf(goalId)).toMatchObject({ spent: { calls: 1 }, reserved: { calls: 0 } }));
  expect((await countsOf("purse")).total).toBe(3);
});

test("a dimension that is not set aside is paid by the goal, and the others are not paid twice", async () => {
  await upstream("metered-purse", { reserve: { tokens: 800 } });
  const goalId = await goalWith({ budget: { calls: 5, tokens: 1_000 } });
  const { run, host, items } = batchIn(goalId, "metered-purse", 1, { reserve: [0, 2, 0, 0] });
  const call = () => run[0]!.call({ path: "/delay/1?name=metered-purse" }).then(({ status }) => status);
  expect(await endsOf([call()])).toEqual([200]);
  // There are 200 tokens left, and what was set aside for the call comes back.
  expect(await endsOf([call()])).toEqual(["budget_exhausted"]);
  expect(host.usageOf(items[0]!)).toEqual({ ...NOTHING_USED, tokens: 800, drawn: [0, 1, 0, 0] });
  await host.end();
  await vi.waitFor(async () => expect(await budgetOf(goalId)).toMatchObject({ spent: { calls: 0, tokens: 800 }, reserved: { tokens: 0 } }));
});

test("tokens that only the answer tells of are the goal's to pay, and bound its calls, unless the run's task has set some aside", async () => {
  await upstream("told-purse", { usage: { tokens: "/used" } });
  const path = `/body?type=application/json&text=${encodeURIComponent('{"used":600}')}&name=told-purse`;
  const runWith = async (reserve: number[], spent: object) => {
    const goalId = await goalWith({ budget: { tokens: 1_000 } });
    const { run, host, items } = batchIn(goalId, "told-purse", 1, { reserve });
    const ends: unknown[] = [];
    for (let i = 0; i < 3; i++) ends.push(...(await endsOf([run[0]!.call({ path }).then(({ status }) => status)])));
    const usage = host.usageOf(items[0]!);
    await host.end();
    await vi.waitFor(async () => expect(await budgetOf(goalId)).toMatchObject({ spent, reserved: { tokens: 0 } }));
    return { ends, usage };
  };
  expect(await runWith([0, 5, 0, 0], { calls: 0, tokens: 1_200 })).toEqual({
    ends: [200, 200, "budget_exhausted"],
    usage: { ...NOTHING_USED, tokens: 1_200, drawn: [0, 2, 0, 0] },
  });
  // The last one finds that all of it is used, and goes to the goal, which has its own thousand.
  expect(await runWith([0, 5, 1_000, 0], { calls: 0, tokens: 600 })).toEqual({
    ends: [200, 200, 200],
    usage: { ...NOTHING_USED, tokens: 600, drawn: [0, 3, 1_200, 0] },
  });
});

test("what a run calls once it has ended is the goal's to pay", async () => {
  await upstream("after-purse");
  const goalId = await goalWith();
  const { run, host, items } = batchIn(goalId, "after-purse", 1, { reserve: [0, 3, 0, 0] });
  await run[0]!.call({ path: "/delay/1?name=after-purse" });
  // Nobody waits for it: it is on its way when the run ends, and is tried again then.
  const late = run[0]!.call({ path: "/status/503?name=after-purse" });
  expect(host.usageOf(items[0]!)).toEqual({ ...NOTHING_USED, drawn: [0, 1, 0, 0] });
  expect((await late).status).toBe(503);
  await host.end();
  const { total } = await countsOf("after-purse");
  expect(total).toBeGreaterThan(2);
  await vi.waitFor(async () => expect((await budgetOf(goalId)).spent).toMatchObject({ calls: total - 1 }));
});

test("what surely did not reach the upstream is not taken from what was set aside", async () => {
  await upstream("nowhere-purse", { origin: "http://127.0.0.1:9", retry: { maxAttempts: 2 } });
  const goalId = await goalWith({ budget: { calls: 0 } });
  const { run, host, items } = batchIn(goalId, "nowhere-purse", 1, { reserve: [0, 1, 0, 0] });
  expect(await endsOf([run[0]!.call({ method: "POST", path: "/" })])).toEqual(["upstream_error"]);
  expect(host.usageOf(items[0]!)).toEqual(NOTHING_USED);
  await host.end();
});

test("calls that are still open when the run ends count as made", async () => {
  await upstream("open-purse");
  const goalId = await goalWith();
  const { run, host, items } = batchIn(goalId, "open-purse", 1, { reserve: [0, 2, 0, 0] });
  const open = run[0]!.call({ path: "/delay/300?name=open-purse" });
  await delay(100);
  expect(host.usageOf(items[0]!)).toEqual({ ...NOTHING_USED, drawn: [0, 1, 0, 0] });
  await open;
  await host.end();
});

test("a run that sets two calls aside makes both where the goal has no more than two", async () => {
  await upstream("both-purse");
  const bundle = `export default async (input, { call }) => {
    await call("both-purse", { path: "/delay/1?name=both-purse" });
    await call("both-purse", { path: "/delay/1?name=both-purse" });
    return "made";
  };`;
  await send("PUT", "/v1/functions/both", { body: bundle, headers: { "content-type": "text/javascript" } });
  const tasks = [{ key: "run", run: { function: "both" }, reserve: { calls: 2 } }];
  const goalId = await goalWith({ budget: { calls: 2 }, tasks, sealed: true });
  const resultOf = async () => (await send("GET", `/v1/goals/${goalId}/results`)).text();
  await vi.waitFor(async () => expect(await resultOf()).toContain('"key":"run"'), { timeout: 10_000, interval: 50 });
  expect(JSON.parse((await resultOf()).split("\n", 1)[0]!)).toMatchObject({ status: "succeeded", usage: { calls: 2 } });
  await vi.waitFor(async () => expect(await budgetOf(goalId)).toMatchObject({ spent: { calls: 2 }, reserved: { calls: 0 } }));
  expect((await countsOf("both-purse")).total).toBe(2);
});
