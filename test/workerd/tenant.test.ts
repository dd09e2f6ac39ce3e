/** The tenant's object in real workerd: registry, directory, claims, and what survives an eviction. */
import { env } from "cloudflare:workers";
import { evictDurableObject, runInDurableObject } from "cloudflare:test";
import { expect, test } from "vitest";
import { UPSTREAMS_MAX } from "../../shared/limits.ts";
import type { Upstream } from "../../shared/protocol/upstream.ts";
import type { GoalReport, TenantRpc } from "../../shared/rpc.ts";

const COUNTS = { queued: 0, waiting: 0, running: 0, succeeded: 0, failed: 0, canceled: 0, expired: 0, total: 0 };

/** Every test has a tenant of its own. */
function tenant(name: string): { stub: DurableObjectStub; rpc: TenantRpc } {
  const stub = env.TENANT.get(env.TENANT.idFromName(name));
  return { stub, rpc: stub };
}

function upstream(name: string, more: Partial<Upstream> = {}): Upstream {
  const base = {
    origins: ["http://one.test"],
    maxConcurrency: null,
    ratePerSecond: null,
    tokensPerMinute: null,
    reserve: { tokens: 0 },
    usage: { tokens: null },
    timeoutMs: 1000,
    idempotency: "none" as const,
  };
  return { name, ...base, retry: { maxAttempts: 5 }, headers: {}, ...more };
}

function report(number: number, more: Partial<GoalReport> = {}): GoalReport {
  const goalId = `goal_01${String(number).padStart(24, "0")}`;
  const base = { name: "n", labels: { a: "b" }, status: "active" as const, createdAtMs: number, deadlineAtMs: null, endedAtMs: null };
  return { goalId, ...base, sealed: false, counts: COUNTS, ...more };
}

const rowsWritten = (stub: DurableObjectStub, work: (instance: TenantRpc) => Promise<unknown>): Promise<number> =>
  runInDurableObject(stub, async (instance, ctx) => {
    // Rows of the directory's table that the work inserted or replaced, by SQLite's own count of changes.
    const changes = () => ctx.storage.sql.exec("SELECT total_changes() AS n").one()["n"] as number;
    const before = changes();
    await work(instance as unknown as TenantRpc);
    return changes() - before;
  });

test("an object that was only read from has written nothing", async () => {
  const { stub, rpc } = tenant("unwritten");
  expect(await rpc.registry()).toEqual({ version: 0, upstreams: [] });
  expect(await rpc.listGoals({ limit: 10 })).toEqual({ ok: true, value: { items: [], nextCursor: null } });
  expect(await rpc.deleteUpstream("x")).toMatchObject({ ok: false, error: { code: "not_found" } });
  await rpc.forget(report(1).goalId);
  const tables = await runInDurableObject(stub, (_, ctx) => ctx.storage.sql.exec("SELECT name FROM sqlite_master").toArray());
  expect(tables).toEqual([]);
});

test("the registry's version rises with each change and with nothing else", async () => {
  const { rpc } = tenant("version");
  expect(await rpc.putUpstream(upstream("a", { headers: { one: "1", two: "2" } }))).toEqual({ ok: true, value: { created: true } });
  expect((await rpc.registry()).version).toBe(1);
  expect(await rpc.putUpstream(upstream("a", { headers: { two: "2", one: "1" } }))).toEqual({ ok: true, value: { created: false } });
  expect((await rpc.registry()).version).toBe(1);
  expect(await rpc.putUpstream(upstream("a", { timeoutMs: 2000 }))).toEqual({ ok: true, value: { created: false } });
  expect((await rpc.registry()).version).toBe(2);
  expect(await rpc.deleteUpstream("a")).toEqual({ ok: true, value: null });
  expect(await rpc.registry()).toEqual({ version: 3, upstreams: [] });
  expect(await rpc.deleteUpstream("a")).toMatchObject({ ok: false, error: { code: "not_found" } });
  expect((await rpc.registry()).version).toBe(3);
});

test("the registry, the directory and the claims survive an eviction", async () => {
  const { stub, rpc } = tenant("evicted");
  await rpc.putUpstream(upstream("b"));
  await rpc.putUpstream(upstream("a"));
  await rpc.report(report(1), 0);
  await rpc.claimGoalId({ key: "k", fingerprint: "f" }, report(1).goalId);
  const before = [await rpc.registry(), await rpc.listUpstreams(), await rpc.listGoals({ limit: 10 })];
  await evictDurableObject(stub);
  expect([await rpc.registry(), await rpc.listUpstreams(), await rpc.listGoals({ limit: 10 })]).toEqual(before);
  expect((await rpc.registry()).upstreams.map(({ name }) => name)).toEqual(["a", "b"]);
  expect(await rpc.claimGoalId({ key: "k", fingerprint: "f" }, report(2).goalId)).toEqual({
    ok: true,
    value: { goalId: report(1).goalId },
  });
});

test("upstreams are bounded, and a full registry still takes changes", async () => {
  const { stub, rpc } = tenant("full");
  await runInDurableObject(stub, async (instance) => {
    for (let i = 0; i < UPSTREAMS_MAX; i++) await (instance as unknown as TenantRpc).putUpstream(upstream(`u${i}`));
  });
  expect(await rpc.putUpstream(upstream("one-more"))).toMatchObject({ ok: false, error: { code: "quota_exceeded" } });
  expect(await rpc.putUpstream(upstream("u7", { timeoutMs: 7 }))).toEqual({ ok: true, value: { created: false } });
  expect(await rpc.getUpstream("u7")).toMatchObject({ ok: true, value: { timeoutMs: 7 } });
});

test("fifty claims of one key at once name one goal", async () => {
  const { rpc } = tenant("herd");
  const claims = Array.from({ length: 50 }, (_, i) => rpc.claimGoalId({ key: "k", fingerprint: "f" }, report(i).goalId));
  const answers = await Promise.all(claims);
  const ids = new Set(answers.map((answer) => (answer.ok ? answer.value.goalId : "refused")));
  expect([...ids]).toEqual([report(0).goalId]);
});

test("a key with another fingerprint is refused, and the first goal keeps it", async () => {
  const { rpc } = tenant("reused");
  await rpc.claimGoalId({ key: "k", fingerprint: "one" }, report(1).goalId);
  expect(await rpc.claimGoalId({ key: "k", fingerprint: "two" }, report(2).goalId)).toMatchObject({
    ok: false,
    error: { code: "idempotency_key_reused" },
  });
  expect(await rpc.claimGoalId({ key: "k", fingerprint: "one" }, report(3).goalId)).toEqual({
    ok: true,
    value: { goalId: report(1).goalId },
  });
});

test("running counts show in lists without a row written", async () => {
  const { stub, rpc } = tenant("live");
  await rpc.report(report(1), 0);
  const written = await rowsWritten(stub, async (object) => {
    for (let n = 1; n <= 100; n++) await object.report(report(1, { counts: { ...COUNTS, succeeded: n, total: n } }), 0);
  });
  expect(written).toBe(0);
  const page = await rpc.listGoals({ limit: 10 });
  expect(page.ok && page.value.items[0]!.counts.succeeded).toBe(100);
});

test.each([
  ["status", { status: "paused" }],
  ["seal", { sealed: true }],
  ["name", { name: "other" }],
  ["end", { status: "succeeded", endedAtMs: 9 }],
] as const)("a change of the %s is kept", async (what, change) => {
  const { stub, rpc } = tenant(`kept-${what}`);
  await rpc.report(report(1), 0);
  await rpc.report(report(1, change), 0);
  await evictDurableObject(stub);
  expect(await rpc.listGoals({ limit: 10 })).toEqual({ ok: true, value: { items: [report(1, change)], nextCursor: null } });
});

test("an older report cannot bring an ended goal back, and its last counts are kept", async () => {
  const { stub, rpc } = tenant("ended");
  const last = report(1, { status: "canceled", endedAtMs: 5, counts: { ...COUNTS, canceled: 3, total: 3 } });
  await rpc.report(report(1), 0);
  await rpc.report({ ...last, counts: { ...COUNTS, running: 3, total: 3 } }, 0);
  await rpc.report(last, 0);
  await rpc.report(report(1), 0);
  await evictDurableObject(stub);
  expect(await rpc.listGoals({ limit: 10 })).toEqual({ ok: true, value: { items: [last], nextCursor: null } });
});

test("a report is answered with the registry only where the goal's copy is older", async () => {
  const { rpc } = tenant("refresh");
  expect(await rpc.report(report(1), 0)).toBeNull();
  await rpc.putUpstream(upstream("a"));
  expect(await rpc.report(report(1), 0)).toEqual({ version: 1, upstreams: [upstream("a")] });
  expect(await rpc.report(report(1), 1)).toBeNull();
});

test("pages go from the newest goal to the oldest, each goal once, and a status narrows them", async () => {
  const { rpc } = tenant("pages");
  for (let n = 1; n <= 7; n++) await rpc.report(report(n, n % 2 === 0 ? { status: "failed", endedAtMs: n } : {}), 0);
  const seen: number[] = [];
  let cursor: string | undefined;
  for (let pages = 1; ; pages++) {
    const page = await rpc.listGoals({ limit: 3, cursor });
    if (!page.ok) throw new Error("a page must be answered");
    seen.push(...page.value.items.map(({ createdAtMs }) => createdAtMs));
    cursor = page.value.nextCursor ?? undefined;
    if (cursor === undefined) {
      expect(pages).toBe(3);
      break;
    }
  }
  expect(seen).toEqual([7, 6, 5, 4, 3, 2, 1]);
  const failed = await rpc.listGoals({ limit: 2, status: "failed" });
  expect(failed.ok && failed.value.items.map(({ createdAtMs }) => createdAtMs)).toEqual([6, 4]);
  expect(failed.ok && failed.value.nextCursor).toBe(report(4).goalId);
});

test("a forgotten goal leaves the directory", async () => {
  const { rpc } = tenant("forgotten");
  await rpc.report(report(1), 0);
  await rpc.report(report(2), 0);
  await rpc.forget(report(1).goalId);
  const page = await rpc.listGoals({ limit: 10 });
  expect(page.ok && page.value.items.map(({ createdAtMs }) => createdAtMs)).toEqual([2]);
});
