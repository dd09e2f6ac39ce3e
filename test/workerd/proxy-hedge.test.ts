/** Second tries of calls that are passed through: the caller has the better answer soon, and what is not safe is never made twice. */
import { expect, test } from "vitest";
import { countsOf, letGo } from "./executor-kit.ts";
import { hedgedUpstream } from "./hedge-kit.ts";
import { budgetOf } from "./host-kit.ts";
import { liveOf, newGoal, proxied, until } from "./proxy-kit.ts";

const LONG_MS = 4_000;
async function timed(method: string, path: string, options: Parameters<typeof proxied>[2] = {}): Promise<{ ms: number; status: number }> {
  const startedAtMs = Date.now();
  const response = await proxied(method, path, options);
  await response.text();
  return { ms: Date.now() - startedAtMs, status: response.status };
}

test("a call that stalls is made again and answered soon; the first try is cut off before the answer has passed", async () => {
  await hedgedUpstream("passed-twice");
  const startedAtMs = Date.now();
  const response = await proxied("GET", `passed-twice/tries/${LONG_MS}/0-200-1500?name=passed-twice`);
  expect((await countsOf("passed-twice")).total).toBe(2);
  await until("the first try has ended", async () => (await countsOf("passed-twice")).inFlight === 1);
  expect(Date.now() - startedAtMs).toBeLessThan(1_200);
  expect(await response.json()).toEqual({ try: 2 });
  await until("its permit is free", async () => (await liveOf("passed-twice")).inFlight === 0);
});

test("the better answer is the caller's, whichever try it is from", async () => {
  await hedgedUpstream("passed-better");
  // Neither after a refusal nor after 503 would anything be made twice for a while.
  const cases = [
    ["the second try hangs", `tries/700/${LONG_MS}`, 200],
    ["the second try fails", "tries/700/0-500", 200],
    ["the first try fails meanwhile", "tries/700-500/1000", 200],
    ["what another answer would not better is an answer", "tries/700-404/1000", 404],
    ["both fail", "tries/700-500/0-501", 500],
  ] as const;
  for (const [what, path, status] of cases) {
    const name = `passed-better-${path.replaceAll("/", "-")}`;
    const found = await timed("GET", `passed-better/${path}?name=${name}`);
    expect([what, found.status]).toEqual([what, status]);
    expect(found.ms).toBeLessThan(LONG_MS / 2);
    expect([what, (await countsOf(name)).total]).toEqual([what, 2]);
    await until("nothing is open", async () => (await countsOf(name)).inFlight === 0);
  }
});

test("what is not safe to be open twice, or has a key of its own, is never made twice", async () => {
  await hedgedUpstream("passed-once");
  const path = "passed-once/tries/700/0?name=passed-once";
  const methods = ["POST", "PUT", "DELETE", "PATCH"];
  const calls = [
    ...methods.map((method, i) => timed(method, `${path}&i=${i}`)),
    timed("GET", `${path}&i=key`, { headers: { "idempotency-key": "passed-once" } }),
  ];
  expect((await Promise.all(calls)).map(({ status }) => status)).toEqual([200, 200, 200, 200, 200]);
  expect((await countsOf("passed-once")).total).toBe(5);
});

test("equal calls that share one answer share its second try", async () => {
  await hedgedUpstream("passed-shared", { coalesce: "safe" });
  const path = `passed-shared/tries/${LONG_MS}/0?name=passed-shared`;
  const all = await Promise.all(Array.from({ length: 20 }, () => timed("GET", path)));
  expect(all.every(({ status, ms }) => status === 200 && ms < LONG_MS / 2)).toBe(true);
  expect((await countsOf("passed-shared")).total).toBe(2);
});

test("where another call waits for the permit nothing is made twice", async () => {
  await hedgedUpstream("passed-full", { maxConcurrency: 1 });
  const path = "passed-full/tries/700/0?name=passed-full";
  const all = await Promise.all([timed("GET", `${path}&i=1`), timed("GET", `${path}&i=2`), timed("GET", `${path}&i=3`)]);
  expect(all.map(({ status }) => status)).toEqual([200, 200, 200]);
  const { total, max } = await countsOf("passed-full");
  expect([total, max]).toEqual([3, 1]);
});

/** Makes a goal that may make so many calls, whose gate has heard what takes long. */
async function goalAt(name: string, calls: number): Promise<Record<string, string>> {
  const headers = { "drover-goal": await newGoal({ budget: { calls } }) };
  await timed("GET", `${name}/delay/1`, { headers });
  return headers;
}

test("a goal pays for both tries", async () => {
  await hedgedUpstream("passed-paid");
  const headers = await goalAt("passed-paid", 100);
  await timed("GET", `passed-paid/tries/${LONG_MS}/0?name=passed-paid`, { headers });
  expect((await countsOf("passed-paid")).total).toBe(2);
  await until("all is charged", async () => (await budgetOf(headers["drover-goal"]!)).spent.calls === 3);
});

test("what may not be made a second time takes neither permits nor budget from other calls", async () => {
  await hedgedUpstream("passed-many", { maxConcurrency: 8, hedge: { quantile: 0.95, budgetPercent: 5 } });
  // One call to know what takes long, six that stall, the one second try that so few calls earn, and one more.
  const headers = await goalAt("passed-many", 9);
  const slow = Array.from({ length: 6 }, (_, i) => timed("GET", `passed-many/tries/held/0?name=passed-many&i=${i}`, { headers }));
  await until("one is made a second time", async () => (await countsOf("passed-many")).total === 7);
  const [elsewhere, mine] = await Promise.all([timed("GET", "passed-many/delay/1"), timed("GET", "passed-many/delay/2", { headers })]);
  expect([elsewhere.status, mine.status]).toEqual([200, 200]);
  expect(Math.max(elsewhere.ms, mine.ms)).toBeLessThan(700);
  await letGo("passed-many");
  await Promise.all(slow);
  expect((await countsOf("passed-many")).total).toBe(7);
});

test("the time of a call is that of its first try, and both tries end with their caller", async () => {
  await hedgedUpstream("passed-long", { timeoutMs: 1_500 });
  const late = await timed("GET", "passed-long/tries/5000/5000?name=passed-long");
  expect(late.status).toBe(504);
  expect(late.ms).toBeLessThan(1_600);
  await until("its permits are free", async () => (await liveOf("passed-long")).inFlight === 0);
});
