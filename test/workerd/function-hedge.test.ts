/** Second tries of calls that functions make: the handler has the better answer soon, and what is not safe is never made twice. */
import { expect, test } from "vitest";
import { countsOf } from "./executor-kit.ts";
import { hedgedUpstream } from "./hedge-kit.ts";
import { type Asker, type Batch, batchIn, budgetOf, endsOf, goalWith } from "./host-kit.ts";
import { liveOf, until } from "./proxy-kit.ts";

const LONG_MS = 4_000;
const SLOW_MS = 700;
// What takes long is learned on a machine that may be busy.
const SOON_MS = 2_000;

/** A batch whose gate has heard what takes long. */
async function batchAt(
  name: string,
  goal: object = {},
  runs = 1,
  more: Parameters<typeof batchIn>[3] = {},
): Promise<Batch & { readonly goalId: string }> {
  const goalId = await goalWith(goal);
  const batch = batchIn(goalId, name, runs, more);
  await batch.run[0]!.call({ path: "/delay/1" });
  return { ...batch, goalId };
}

async function timed({ call }: Asker, request: object): Promise<{ ms: number; status: number; body: unknown }> {
  const startedAtMs = Date.now();
  const { status, body } = await call(request);
  return { ms: Date.now() - startedAtMs, status, body };
}

test("a call that stalls is made again and answered soon; both tries have one key, and both are charged", async () => {
  await hedgedUpstream("called-twice");
  const { run, host, items, goalId } = await batchAt("called-twice", { budget: { calls: 1_000 } });
  const found = await timed(run[0]!, { path: `/tries/${LONG_MS}/0?name=called-twice` });
  expect([found.status, found.body]).toEqual([200, { try: 2 }]);
  expect(found.ms).toBeLessThan(SOON_MS);
  // The one that told the gate, and both tries.
  expect(host.usageOf(items[0]!)).toEqual({ calls: 3, tokens: 0, costMicros: 0 });
  await until("the first try has ended", async () => (await countsOf("called-twice")).inFlight === 0);
  expect((await countsOf("called-twice")).total).toBe(2);
  await host.end();
  await until("all is charged, and no more", async () => {
    const { spent, reserved } = await budgetOf(goalId);
    return spent.calls === 3 && (reserved.calls ?? 0) === 0;
  });
  await until("its permits are free", async () => (await liveOf("called-twice")).inFlight === 0);
});

test("the better answer is the handler's, whichever try it is from", async () => {
  await hedgedUpstream("called-better");
  const cases = [
    ["the second try hangs", `tries/${SLOW_MS}/${LONG_MS}`, 200],
    ["the second try fails", `tries/${SLOW_MS}/0-500`, 200],
    ["the first try fails meanwhile", `tries/${SLOW_MS}-500/1000`, 200],
    ["what another answer would not better is an answer", `tries/${SLOW_MS}-404/1000`, 404],
  ] as const;
  const { run, host } = await batchAt("called-better");
  for (const [what, path, status] of cases) {
    const name = `called-better-${path.replaceAll("/", "-")}`;
    // Second tries have to be earned.
    for (let i = 0; i < 2; i++) await run[0]!.call({ path: "/delay/1" });
    const found = await timed(run[0]!, { path: `/${path}?name=${name}` });
    expect([what, found.status]).toEqual([what, status]);
    expect(found.ms).toBeLessThan(LONG_MS / 2);
    await until("nothing is open", async () => (await countsOf(name)).inFlight === 0);
    expect([what, (await countsOf(name)).total]).toEqual([what, 2]);
  }
  await host.end();
});

test("what is not safe to be open twice is made once, and so is what holds a lock", async () => {
  await hedgedUpstream("called-once");
  const path = `/tries/${SLOW_MS}/0?name=called-once`;
  const { run, host } = await batchAt("called-once");
  const locked = await batchAt("called-once", {}, 1, { fence: "a=1" });
  const requests = [
    { method: "POST", path },
    { method: "PUT", path: `${path}&i=1` },
    { method: "DELETE", path: `${path}&i=2` },
    { path: `${path}&i=3`, idempotent: false },
  ];
  const found = await Promise.all([...requests.map((request) => timed(run[0]!, request)), timed(locked.run[0]!, { path: `${path}&i=4` })]);
  expect(found.map(({ status }) => status)).toEqual([200, 200, 200, 200, 200]);
  expect((await countsOf("called-once")).total).toBe(5);
  for (const one of [host, locked.host]) await one.end();
});

test("what says that it is idempotent, or goes where keys are honoured, is made again", async () => {
  await hedgedUpstream("called-said", { idempotency: "key" });
  const { run, host } = await batchAt("called-said");
  const requests = [
    { method: "POST", path: `/tries/${LONG_MS}/0?name=called-said-1`, idempotent: true },
    { method: "PUT", path: `/tries/${LONG_MS}/0?name=called-said-2` },
  ];
  for (const request of requests) expect((await timed(run[0]!, request)).ms).toBeLessThan(SOON_MS);
  await host.end();
});

test("of the calls of a batch so many are made a second time as the upstream says", async () => {
  await hedgedUpstream("called-few", { hedge: { quantile: 0.95, budgetPercent: 5 } });
  const { run, host } = await batchAt("called-few", {}, 4);
  const slow = await Promise.all(run.map((asker, i) => timed(asker, { path: `/tries/${SLOW_MS}/0?name=called-few&i=${i}` })));
  expect(slow.map(({ status }) => status)).toEqual([200, 200, 200, 200]);
  // Five calls earn a quarter of one, and there is one to begin with.
  expect((await countsOf("called-few")).total).toBe(5);
  for (let i = 0; i < 24; i++) await run[0]!.call({ path: `/delay/1?i=${i}` });
  await timed(run[0]!, { path: `/tries/${SLOW_MS}/0?name=called-few-more` });
  expect((await countsOf("called-few-more")).total).toBe(2);
  await host.end();
});

test("where another call waits for the permit, or the budget is short, nothing is made twice", async () => {
  await hedgedUpstream("called-full", { maxConcurrency: 1 });
  const full = await batchAt("called-full", {}, 3);
  const path = `/tries/${SLOW_MS}/0?name=called-full`;
  await Promise.all(full.run.map((asker, i) => timed(asker, { path: `${path}&i=${i}` })));
  const { total, max } = await countsOf("called-full");
  expect([total, max]).toEqual([3, 1]);
  await hedgedUpstream("called-short");
  const short = await batchAt("called-short", { budget: { calls: 10 } });
  expect((await timed(short.run[0]!, { path: `/tries/${SLOW_MS}/0?name=called-short` })).status).toBe(200);
  expect((await countsOf("called-short")).total).toBe(1);
  for (const { host } of [full, short]) await host.end();
});

test("the permit of a second try goes back with it: no call follows on it", async () => {
  await hedgedUpstream("called-bounded", { maxConcurrency: 2 });
  const { run, host } = await batchAt("called-bounded", {}, 4);
  await timed(run[0]!, { path: `/tries/${LONG_MS}/0?name=called-bounded` });
  await Promise.all(run.map(({ call }, i) => call({ path: `/delay/100?name=called-next&i=${i}` })));
  expect((await countsOf("called-bounded")).total).toBe(2);
  expect((await countsOf("called-next")).max).toBeLessThanOrEqual(2);
  await host.end();
});

test("a batch that ends while both tries are open leaves nothing open, and pays for both", async () => {
  await hedgedUpstream("called-gone");
  const { run, host, goalId } = await batchAt("called-gone", { budget: { calls: 1_000 } });
  const ends = endsOf([run[0]!.call({ path: `/tries/${LONG_MS}/${LONG_MS}?name=called-gone` })]);
  await until("both are open", async () => (await countsOf("called-gone")).inFlight === 2);
  await host.end();
  expect(await ends).toHaveLength(1);
  await until("nothing is open", async () => (await countsOf("called-gone")).inFlight === 0);
  await until("both are paid for", async () => {
    const { spent, reserved } = await budgetOf(goalId);
    return spent.calls === 3 && (reserved.calls ?? 0) === 0;
  });
  await until("its permits are free", async () => (await liveOf("called-gone")).inFlight === 0);
});
