/** The governor's object: what it grants, what it remembers, what it writes, and goals that share an upstream. */
import { abortAllDurableObjects, runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { expect, test, vi } from "vitest";
import { Governor } from "../../durable-objects/governor/object.ts";
import { GOVERNOR_IDLE_MS, LEASE_TTL_MS_MIN } from "../../shared/limits.ts";
import type { Report } from "../../shared/protocol/admission.ts";
import type { GoalView } from "../../shared/protocol/goal.ts";
import type { Upstream } from "../../shared/protocol/upstream.ts";
import { countsOf } from "./executor-kit.ts";
import { create, delay, generous, goalOf, good, inLaboratory, post, register, type Run, allAnswered, until, viewOf } from "./goal-kit.ts";

vi.spyOn(console, "warn").mockImplementation(() => undefined);

const upstreamOf = (name: string, maxConcurrency: number): Upstream => ({
  name,
  origins: ["http://upstream.test"],
  maxConcurrency,
  ratePerSecond: null,
  tokensPerMinute: null,
  reserve: { tokens: 0 },
  usage: { tokens: null },
  timeoutMs: 10_000,
  idempotency: "none",
  retry: { maxAttempts: 5 },
  headers: {},
});

const SAMPLE = { answered: 0, sumMs: 0, tokens: 0, metered: 0, retryAfterMs: 0, origins: [], latencies: [] };

/** A report of a client that wants so much of an upstream of eight calls. */
function reportOf(name: string, client: string, wanted: number, over: Partial<Report> = {}): Report {
  return {
    client: `goal_${client}`,
    life: `${client}000000000000000`.slice(0, 16),
    weight: 1,
    seq: 1,
    epoch: 0,
    taken: 0,
    inUse: 0,
    held: 0,
    unusedStarts: 0,
    wants: [0, wanted, 0],
    sample: SAMPLE,
    upstream: upstreamOf(name, 8),
    version: 1,
    ...over,
  };
}

const stubOf = (name: string): DurableObjectStub<Governor> => env.GOVERNOR.get(env.GOVERNOR.idFromName(name));

/** Gives `work` a way to start the governor anew on its storage, in a process with a name. */
function inStorage<T>(name: string, work: (start: (boot: string) => Governor, ctx: DurableObjectState) => Promise<T>): Promise<T> {
  return runInDurableObject(stubOf(name), (_object: Governor, ctx: DurableObjectState) =>
    work((boot) => new Governor(ctx, { ...env, BOOT_ID: boot } as unknown as Env), ctx),
  );
}

test("reports are answered with grants that together never exceed maxConcurrency", async () => {
  const governor = stubOf("shared");
  const first = await governor.exchange(reportOf("shared", "a", 100));
  expect(first).toMatchObject({ epoch: 1, number: 1, seq: 1, calls: 8, starts: null, isOpen: false, origins: null });
  const second = await governor.exchange(reportOf("shared", "b", 100));
  expect(second).toMatchObject({ seq: 1, calls: 0 });
  // Told to share, the first one goes down to half; what it lets go of is the other's.
  const held = { epoch: 1, taken: 1, held: 8, inUse: 8, seq: 2 };
  const less = await governor.exchange(reportOf("shared", "a", 100, held));
  expect(less.calls).toBe(4);
  await governor.exchange(reportOf("shared", "a", 100, { ...held, seq: 3, taken: less.number, held: 4, inUse: 4 }));
  expect(await governor.exchange(reportOf("shared", "b", 100, { seq: 2 }))).toMatchObject({ calls: 4 });
  expect(await governor.live()).toMatchObject({ limit: 8, inFlight: 4, circuit: "closed" });
});

test("permits outlive a governor that is aborted: the next one gives to nobody else before their lease is over", async () => {
  const name = "lost";
  const first = await stubOf(name).exchange(reportOf(name, "a", 5));
  expect(first.calls).toBe(5);
  await abortAllDurableObjects();
  expect(await stubOf(name).exchange(reportOf(name, "b", 5))).toMatchObject({ epoch: 2, calls: 0 });
  // Whoever has permits, and says so, goes on with them.
  const kept = { seq: 2, epoch: 1, taken: first.number, held: 5, inUse: 5 };
  expect(await stubOf(name).exchange(reportOf(name, "a", 5, kept))).toMatchObject({ epoch: 2, calls: 5 });
});

test("a governor in the process that gave the permits learns for a lease's length, in another process it need not", async () => {
  await inStorage("booted", async (start) => {
    expect((await start("one").exchange(reportOf("booted", "a", 8))).calls).toBe(8);
    const same = start("one");
    expect((await same.exchange(reportOf("booted", "b", 8))).calls).toBe(0);
    // The calls of a process end with it.
    expect((await start("two").exchange(reportOf("booted", "c", 8))).calls).toBe(8);
    const again = start("two");
    expect((await again.exchange(reportOf("booted", "d", 8))).calls).toBe(0);
    await delay(LEASE_TTL_MS_MIN + 50);
    expect((await again.exchange(reportOf("booted", "d", 8, { seq: 2 }))).calls).toBe(8);
  });
});

test("what a goal held that crashed is given to nobody, its next life included, before the lease is over", async () => {
  const governor = stubOf("crashed");
  const sentAtMs = Date.now();
  expect((await governor.exchange(reportOf("crashed", "a", 6))).calls).toBe(6);
  const next = { life: "b".repeat(16) };
  // Two are free; the six of the life before may still be open.
  expect((await governor.exchange(reportOf("crashed", "a", 8, next))).calls).toBe(2);
  expect((await governor.exchange(reportOf("crashed", "z", 8))).calls).toBe(0);
  await delay(LEASE_TTL_MS_MIN + 50 - (Date.now() - sentAtMs));
  const later = await governor.exchange(reportOf("crashed", "a", 8, { ...next, seq: 2, epoch: 1, taken: 2, held: 2 }));
  expect(later.calls).toBeGreaterThan(2);
});

test("a burst writes two rows, one when it begins and one when it is over, and none a message", async () => {
  await inStorage("frugal", async (start, ctx) => {
    const governor = start("");
    const changes = (): number => ctx.storage.sql.exec("SELECT total_changes() AS n").one()["n"] as number;
    const keptOf = (): unknown => JSON.parse(ctx.storage.sql.exec("SELECT kept FROM governor").one()["kept"] as string);
    await governor.exchange(reportOf("frugal", "a", 8));
    const before = changes();
    expect(keptOf()).toMatchObject({ epoch: 1, isBusy: true });
    for (let seq = 2; seq < 50; seq++)
      await governor.exchange(reportOf("frugal", "a", 8, { seq, epoch: 1, taken: seq - 1, held: 8, inUse: 8 }));
    expect(changes()).toBe(before);
    await governor.exchange(reportOf("frugal", "a", 0, { seq: 50, epoch: 1, taken: 49 }));
    expect(changes()).toBe(before);
    await until("it has written that it is idle", () => changes() > before, GOVERNOR_IDLE_MS + 3_000);
    expect(changes()).toBe(before + 1);
    expect(keptOf()).toMatchObject({ epoch: 1, isBusy: false });
    // Nothing is out, so the next one need not learn.
    expect((await start("").exchange(reportOf("frugal", "b", 8))).calls).toBe(8);
  });
});

test("a governor that nobody has asked anything has written nothing", async () => {
  const governor = stubOf("untouched");
  expect(await governor.live()).toMatchObject({ limit: null, inFlight: 0 });
  expect(await governor.outlook(1)).toBe(0);
  const tables = await runInDurableObject(governor, (_object: Governor, ctx: DurableObjectState) =>
    ctx.storage.sql.exec("SELECT name FROM sqlite_master WHERE name NOT LIKE '\\_cf%' ESCAPE '\\'").toArray(),
  );
  expect(tables).toEqual([]);
});

// Goals.

test("two goals share maxConcurrency, and neither waits for the other's end", async () => {
  await register("between", { maxConcurrency: 8 });
  const visits = (name: string): object[] =>
    Array.from({ length: 80 }, (_, n) => ({ key: `${n}`, call: { upstream: "between", path: `/delay/30?name=between&of=${name}` } }));
  const make = (name: string): Promise<GoalView> => good(post("/v1/goals", { name, tasks: visits(name), sealed: true }));
  const goals = await Promise.all([make("one"), make("two")]);
  const doneOf = async ({ id }: GoalView): Promise<number> => (await goalOf(id)).counts.succeeded;
  let least = 0;
  await until("both are done", async () => {
    const done = await Promise.all(goals.map(doneOf));
    if (Math.max(...done) < 80) least = Math.min(...done);
    return done.every((count) => count === 80);
  });
  const { total, max } = await countsOf("between");
  expect(total).toBe(160);
  expect(max).toBeLessThanOrEqual(8);
  expect(max).toBeGreaterThan(4);
  expect(least).toBeGreaterThan(20);
});

test("a goal whose governor does not answer asks again, and sends nothing before it is answered", async () => {
  const asked: number[] = [];
  const sent: number[] = [];
  const grant = generous();
  const exchange = async (report: Report): ReturnType<typeof grant> => {
    asked.push(Date.now());
    if (asked.length <= 2) throw new Error("Network connection lost.");
    return grant(report);
  };
  const run: Run = async (batch) => {
    sent.push(Date.now());
    return allAnswered(batch);
  };
  await inLaboratory({ run, governor: { exchange } }, async (goal, id) => {
    await create(goal, id, [{ key: "a", call: { upstream: "real", path: "/" } }], true);
    await until("it is done", async () => (await viewOf(goal)).status === "succeeded");
  });
  expect(asked.length).toBeGreaterThanOrEqual(3);
  expect(asked[1]! - asked[0]!).toBeGreaterThanOrEqual(200);
  expect(sent).toHaveLength(1);
  expect(sent[0]!).toBeGreaterThanOrEqual(asked[2]!);
});

test("permits that a governor tells of by itself are taken by the life that they are for, and renewed while a batch runs", async () => {
  const permits: (number | null)[] = [];
  const renewals: number[] = [];
  const reports: Report[] = [];
  const grant = generous();
  const exchange = async (report: Report): ReturnType<typeof grant> => {
    reports.push(report);
    return { ...(await grant(report)), calls: 0 };
  };
  const control = { abort: () => undefined, stop: () => undefined, renew: (permitMs: number) => void renewals.push(permitMs) };
  let end: () => void = () => undefined;
  const run: Run = async (batch) => {
    permits.push(batch.permitMs);
    const rest = new ReadableStream<Uint8Array>({
      start(controller) {
        end = () => {
          controller.enqueue(new TextEncoder().encode(allAnswered(batch)));
          controller.close();
        };
      },
    });
    return { first: "", rest, control };
  };
  await inLaboratory({ run, governor: { exchange } }, async (goal, id) => {
    await create(goal, id, [{ key: "a", call: { upstream: "real", path: "/" } }], true);
    await until("it has asked", () => reports.length === 1);
    await delay(50);
    const push = { ...(await grant(reports[0]!)), calls: 1 };
    await goal.permits("real", "another life", push);
    expect(permits).toEqual([]);
    await goal.permits("real", reports[0]!.life, push);
    await until("it was sent", () => permits.length === 1);
    expect(permits[0]).toBeGreaterThan(0);
    await until("its permits were renewed", () => renewals.length > 0);
    await goal.permits("real", reports.at(-1)!.life, { ...(await grant(reports.at(-1)!)), calls: 1 });
    await until("its permits were renewed once more", () => renewals.length > 1);
    expect(Math.min(...renewals)).toBeGreaterThan(0);
    end();
    await until("it is done", async () => (await viewOf(goal)).status === "succeeded");
  });
});
