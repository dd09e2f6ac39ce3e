/** What functions may call, what is tried again, and what is never sent twice: a real gate, governor, goal and upstream. */
import { expect, inject, test, vi } from "vitest";
import { countsOf, delay } from "./executor-kit.ts";
import { batchIn, budgetOf, endsOf, goalWith, inLostExecutor, loseGate, loseGoal } from "./host-kit.ts";
import { liveOf, send, until, upstream } from "./proxy-kit.ts";

const message = (promise: Promise<unknown>): Promise<string> =>
  promise.then(
    () => "answered",
    (error: { code: string; message: string }) => `${error.code}: ${error.message}`,
  );

test("a call is held to the policies of the goal, of a token, and to what needs approval", async () => {
  await upstream("ruled");
  const policy = { methods: ["GET", "DELETE"], paths: ["/echo*", "/status/*"], requireApproval: [{ upstream: "ruled", method: "DELETE" }] };
  const goalId = await goalWith({ policy, budget: { calls: 10 } });
  const { run, host } = batchIn(goalId, "ruled", 1, { policies: [{ paths: ["/echo*"] }] });
  const call = (request: object): Promise<string> => message(run[0]!.call(request));
  expect(await call({ path: "/echo?name=ruled" })).toBe("answered");
  expect(await call({ method: "POST", path: "/echo?name=ruled" })).toMatch(/^permission_denied: the goal's policy .*POST/);
  expect(await call({ path: "/delay/1?name=ruled" })).toMatch(/^permission_denied: the goal's policy .*paths/);
  expect(await call({ path: "/status/204?name=ruled" })).toMatch(/^permission_denied: the token .*paths/);
  expect(await call({ method: "DELETE", path: "/echo?name=ruled" })).toMatch(/^permission_denied: .*needs approval/);
  await host.end();
  await delay(300);
  expect((await countsOf("ruled")).total).toBe(1);
  expect(await budgetOf(goalId)).toMatchObject({ spent: { calls: 1 }, reserved: { calls: 0 } });
});

test("what is not registered is not called", async () => {
  await upstream("known");
  const { run, host } = batchIn(await goalWith(), "known", 1);
  const { ask, call } = run[0]!;
  expect(await message(call({ path: "/" }, "nobody"))).toMatch(/^not_found: .*PUT \/v1\/upstreams\/nobody/);
  expect((await ask("fetch", { url: `${inject("upstreamUrl")}/status/404` })).status).toBe(404);
  expect(await message(ask("fetch", { url: "http://127.0.0.2:9/x" }))).toMatch(/^permission_denied: http:\/\/127\.0\.0\.2:9 is not/);
  expect(await message(ask("fetch", { url: "file:///etc/passwd" }))).toMatch(/^invalid_request/);
  expect(await message(call({ path: "/", key: "12" }))).toMatch(/^invalid_request: the key of a call is .*not a number/);
  expect(await message(call({ path: "no" }))).toMatch(/^invalid_request: \/path/);
  expect(await message(call({ path: "/", headers: { "Drover-Goal": "x" } }))).toMatch(/^invalid_request: \/headers/);
  await host.end();
});

test("what does no harm is tried again, each try charged; what might is not, and says so", async () => {
  await upstream("tries", { retry: { maxAttempts: 3 } });
  const goalId = await goalWith({ budget: { calls: 100 } });
  const { run, host, items } = batchIn(goalId, "tries", 1);
  const { call } = run[0]!;
  expect((await call({ path: "/status/500?name=tries-get" })).status).toBe(500);
  expect((await call({ method: "POST", path: "/status/500?name=tries-post" })).status).toBe(500);
  expect((await call({ method: "POST", path: "/status/429?name=tries-429" })).status).toBe(429);
  expect(await endsOf([call({ path: "/reset?name=tries-reset" })])).toEqual(["upstream_error"]);
  expect(await endsOf([call({ method: "POST", path: "/reset?name=tries-lost" })])).toEqual(["outcome_unknown"]);
  expect(await endsOf([call({ path: "/hang?name=tries-hang", timeoutMs: 50 })])).toEqual(["upstream_timeout"]);
  const totals = await Promise.all(
    ["get", "post", "429", "reset", "lost", "hang"].map(async (name) => (await countsOf(`tries-${name}`)).total),
  );
  // The runtime itself sends a GET once more where a connection that was kept alive breaks.
  expect(totals.with(3, Math.min(3, totals[3]!))).toEqual([3, 1, 3, 3, 1, 1]);
  expect(host.usageOf(items[0]!)).toMatchObject({ calls: 12 });
  await host.end();
  await delay(300);
  expect(await budgetOf(goalId)).toMatchObject({ spent: { calls: 12 }, reserved: { calls: 0 } });
});

test("tokens are charged as the answer says, and as reserved where it says nothing", async () => {
  await upstream("metered", { reserve: { tokens: 100 }, usage: { tokens: "/used" } });
  const goalId = await goalWith({ budget: { tokens: 1_000 } });
  const { run, host, items } = batchIn(goalId, "metered", 1);
  const { call } = run[0]!;
  const path = `/body?type=application/json&text=${encodeURIComponent('{"used":30}')}`;
  await call({ path });
  await call({ path: "/echo" });
  await call({ path: "/echo", reserve: { tokens: 7 } });
  expect(host.usageOf(items[0]!)).toEqual({ calls: 3, tokens: 137, costMicros: 0 });
  expect(await endsOf([call({ path, reserve: { tokens: 900 } })])).toEqual(["budget_exhausted"]);
  await host.end();
  await delay(300);
  expect(await budgetOf(goalId)).toMatchObject({ spent: { calls: 3, tokens: 137 }, reserved: { tokens: 0 } });
});

test("a re-run of a POST gets the answer that was kept, one that asks for something else is refused, and nothing is sent twice", async () => {
  await upstream("again");
  const goalId = await goalWith();
  const first = batchIn(goalId, "again", 1);
  const ask = (batch: typeof first, body: object, more: object = {}) =>
    batch.run[0]!.call({ method: "POST", path: "/echo?name=again", body, ...more });
  const answer = await ask(first, { n: 1 });
  const failed = await first.run[0]!.call({ method: "POST", path: "/status/500?name=again-500" });
  await ask(first, { n: 3 }, { key: "mine" });
  await first.host.end();
  const second = batchIn(goalId, "again", 1, { attempt: 2 });
  expect(await ask(second, { n: 1 })).toEqual(answer);
  expect(await second.run[0]!.call({ method: "POST", path: "/status/500?name=again-500" })).toEqual(failed);
  expect((await ask(second, { n: 3 }, { key: "mine" })).status).toBe(200);
  await second.host.end();
  const third = batchIn(goalId, "again", 1, { attempt: 3 });
  expect(await message(ask(third, { n: 2 }))).toMatch(/^outcome_unknown: .*something else/);
  expect(await message(ask(third, { n: 2 }, { key: "mine" }))).toMatch(/^outcome_unknown/);
  await third.host.end();
  expect([(await countsOf("again")).total, (await countsOf("again-500")).total]).toEqual([2, 1]);
});

test("a POST that was open when its executor was lost is not sent again, nor where the gate was lost too", async () => {
  for (const what of ["executor", "gate"] as const) {
    await upstream(`lost-${what}`, { maxConcurrency: 4 });
    const goalId = await goalWith({ budget: { calls: 10 } });
    const request = { method: "POST", path: `/delay/400?name=lost-${what}`, body: {} };
    const begin = async (): Promise<void> => {
      batchIn(goalId, `lost-${what}`, 1)
        .run[0]!.call(request)
        .catch(() => undefined);
      await until("it is open", async () => (await countsOf(`lost-${what}`)).inFlight === 1);
    };
    await (what === "executor" ? inLostExecutor(begin) : begin());
    if (what === "gate") await loseGate(goalId);
    const second = batchIn(goalId, `lost-${what}`, 1, { attempt: 2 });
    expect(await message(second.run[0]!.call(request))).toMatch(/^outcome_unknown: .*not sent again/);
    await second.host.end();
    expect((await countsOf(`lost-${what}`)).total).toBe(1);
  }
});

test("permits of an executor that is lost are free again, and the calls that it had paid for count as made", async () => {
  await upstream("gone-owner", { maxConcurrency: 2 });
  const goalId = await goalWith({ budget: { calls: 10 } });
  await inLostExecutor(async () => {
    for (const { call } of batchIn(goalId, "gone-owner", 6).run) call({ path: "/delay/500?name=gone-owner" }).catch(() => undefined);
    await until("two are open", async () => (await countsOf("gone-owner")).inFlight === 2);
  });
  const second = batchIn(goalId, "gone-owner", 8);
  const ends = await endsOf(second.run.map(({ call }) => call({ path: "/delay/1?name=gone-owner" }).then(({ status }) => status)));
  // Nobody says which of the six were made.
  expect(ends.filter((end) => end === 200)).toHaveLength(4);
  expect(ends.filter((end) => end === "budget_exhausted")).toHaveLength(4);
  await second.host.end();
  await delay(300);
  expect(await budgetOf(goalId)).toMatchObject({ spent: { calls: 10 }, reserved: { calls: 0 } });
  await until("all permits are back", async () => (await liveOf("gone-owner")).inFlight === 0);
});

test("a gate that is lost is found again, and what it had drawn counts as spent", async () => {
  await upstream("found", { maxConcurrency: 4 });
  const goalId = await goalWith({ budget: { calls: 200 } });
  const batch = batchIn(goalId, "found", 30);
  const ends = endsOf(
    batch.run.map(async ({ call }) => {
      for (let i = 0; i < 2; i++) await call({ path: "/delay/20?name=found" });
      return "done";
    }),
  );
  await until("some are made", async () => (await countsOf("found")).total > 8);
  await loseGate(goalId);
  expect(new Set(await ends)).toEqual(new Set(["done"]));
  await batch.host.end();
  const { total, max } = await countsOf("found");
  expect(total).toBe(60);
  expect(max).toBeLessThanOrEqual(4);
  await delay(300);
  const { spent, reserved } = await budgetOf(goalId);
  expect(spent.calls! + reserved.calls!).toBeGreaterThanOrEqual(60);
});

test("while the goal is lost again and again, its calls wait for it, and no more are made than it can afford", async () => {
  await upstream("shaken");
  const goalId = await goalWith({ budget: { calls: 60 } });
  const batches = [1, 2, 3].map(() => batchIn(goalId, "shaken", 10));
  const ends = endsOf(
    batches.flatMap(({ run }) =>
      run.map(async ({ call }) => {
        for (let i = 0; i < 3; i++) await call({ path: "/delay/10?name=shaken" });
        return "done";
      }),
    ),
  );
  for (let i = 0; i < 4; i++) {
    await until("more are made", async () => (await countsOf("shaken")).total > i * 10);
    await loseGoal(goalId);
  }
  expect(new Set(await ends)).toEqual(new Set(["done", "budget_exhausted"]));
  for (const { host } of batches) await host.end();
  const { total } = await countsOf("shaken");
  // What one batch holds another cannot have, so some may be left.
  expect(total).toBeLessThanOrEqual(60);
  // A word to a goal that was lost is said again, a little later each time.
  await vi.waitFor(async () => expect(await budgetOf(goalId)).toMatchObject({ spent: { calls: total }, reserved: { calls: 0 } }), 5_000);
});

test("what a batch had asked for and does not wait for any more is given back, and charged to nobody", async () => {
  await upstream("hasty", { maxConcurrency: 1 });
  const goalId = await goalWith({ budget: { calls: 100 } });
  const { run, host } = batchIn(goalId, "hasty", 20);
  const ends = endsOf(run.map(({ call }) => call({ path: "/hang?name=hasty" })));
  await until("one is open", async () => (await countsOf("hasty")).inFlight === 1);
  await host.end();
  expect(new Set(await ends)).toEqual(new Set(["canceled"]));
  const never = batchIn(goalId, "hasty", 20);
  const others = endsOf(never.run.map(({ call }) => call({ path: "/hang?name=hasty" })));
  await never.host.end();
  await others;
  await delay(300);
  const { total } = await countsOf("hasty");
  expect(await budgetOf(goalId)).toMatchObject({ spent: { calls: total }, reserved: { calls: 0 } });
});

test("a paused goal lets its running functions go on, and an ended one does not", async () => {
  await upstream("paused");
  const goalId = await goalWith();
  const { run, host } = batchIn(goalId, "paused", 1);
  await send("POST", `/v1/goals/${goalId}/pause`);
  expect((await run[0]!.call({ path: "/echo" })).status).toBe(200);
  await host.end();
  await send("POST", `/v1/goals/${goalId}/cancel`);
  await delay(2_100);
  const late = batchIn(goalId, "paused", 1);
  expect(await endsOf([late.run[0]!.call({ path: "/echo" })])).toEqual(["goal_ended"]);
  await late.host.end();
});
