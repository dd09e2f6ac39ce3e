/** The tenant's locks by HTTP, on real storage: what was granted is durable, and a crash keeps the order of those who wait. */
import { abortAllDurableObjects, evictDurableObject, runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { expect, test } from "vitest";
import type { Locks } from "../../durable-objects/locks/object.ts";
import { LOCK_SHARDS } from "../../shared/limits.ts";
import { shardOf } from "../../shared/protocol/lock.ts";
import { call, problemIn } from "./edge-kit.ts";
import { delay, until } from "./goal-kit.ts";

interface Grant {
  readonly fence: number;
  readonly mode: string;
  readonly expiresAt: string;
}

interface View {
  readonly holders: readonly { readonly holder: string; readonly fence: number }[];
  readonly queue: number;
}

const JSON_TYPE = { "content-type": "application/json" };

/** Asks for the lock, and waits for so many seconds; null takes no place. */
const ask = (name: string, holder: string, wait: number | null = null, more: object = {}): Promise<Response> =>
  call("PUT", `/v1/locks/${name}`, {
    body: JSON.stringify({ holder, ttlMs: 60_000, ...more }),
    headers: { ...JSON_TYPE, ...(wait === null ? {} : { prefer: `wait=${wait}` }) },
  });

const release = (name: string, body: object): Promise<Response> =>
  call("DELETE", `/v1/locks/${name}`, { body: JSON.stringify(body), headers: JSON_TYPE });

async function granted(answer: Promise<Response>): Promise<Grant> {
  const response = await answer;
  if (response.status !== 200) throw new Error(await response.text());
  return response.json();
}

const look = async (name: string): Promise<View> => (await call("GET", `/v1/locks/${name}`)).json();
const queued = (name: string, count: number): Promise<void> => until(`${count} wait`, async () => (await look(name)).queue === count);
const shardFor = (name: string): DurableObjectStub<Locks> => env.LOCKS.get(env.LOCKS.idFromName(String(shardOf(name, LOCK_SHARDS))));

test("a lock is granted, renewed, shown and released", async () => {
  const first = await granted(ask("plain", "a"));
  expect(first).toEqual({ fence: first.fence, mode: "exclusive", expiresAt: expect.any(String) });
  expect(Date.parse(first.expiresAt)).toBeGreaterThan(Date.now() + 50_000);
  expect((await granted(ask("plain", "a"))).fence).toBe(first.fence);
  expect(await look("plain")).toMatchObject({ name: "plain", held: 1, queue: 0, holders: [{ holder: "a", fence: first.fence }] });
  expect((await release("plain", { fence: first.fence })).status).toBe(204);
  expect(await look("plain")).toMatchObject({ held: 0, holders: [] });
});

test("a lock that is held is refused with the position, and who waits for it gets it when it is free", async () => {
  const { fence } = await granted(ask("busy", "a"));
  const refused = await ask("busy", "b");
  expect(refused.headers.get("retry-after")).toBe("30");
  expect(await problemIn(refused)).toMatchObject({ status: 423, code: "lock_held", position: 0, retryable: true });
  const waiting = granted(ask("busy", "c", 30));
  await queued("busy", 1);
  await release("busy", { fence });
  expect((await waiting).fence).toBeGreaterThan(fence);
  expect(await problemIn(await release("busy", { fence: fence + 100_000 }))).toMatchObject({ status: 409, code: "stale_fence" });
});

test("a wait that ends in vain is answered with 423, and its place is gone", async () => {
  const { fence } = await granted(ask("vain", "a"));
  expect((await ask("vain", "b", 1)).status).toBe(423);
  expect((await look("vain")).queue).toBe(0);
  await release("vain", { fence });
  expect((await look("vain")).holders).toEqual([]);
});

test("a hold that is not renewed passes to the next, by itself", async () => {
  const { fence } = await granted(ask("brief", "a", null, { ttlMs: 200 }));
  const next = await granted(ask("brief", "b", 30));
  expect(next.fence).toBeGreaterThan(fence);
  expect(await problemIn(await release("brief", { fence }))).toMatchObject({ code: "stale_fence" });
});

test("who waits and leaves is told so, and gets nothing", async () => {
  const { fence } = await granted(ask("left", "a"));
  const waiting = ask("left", "b", 30);
  await queued("left", 1);
  expect((await release("left", { holder: "b" })).status).toBe(204);
  expect((await waiting).status).toBe(423);
  await release("left", { fence });
  expect((await look("left")).holders).toEqual([]);
});

test("a crash keeps the holder and the order of those who wait; who asks again finds its place or its grant", async () => {
  const { fence } = await granted(ask("crash", "a"));
  for (const [i, holder] of ["b", "c", "d"].entries()) {
    void ask("crash", holder, 30).catch(() => undefined);
    await queued("crash", i + 1);
  }
  await abortAllDurableObjects();
  expect(await look("crash")).toMatchObject({ queue: 3, holders: [{ holder: "a", fence }] });
  // d asks first this time, and is still the last.
  const [d, c] = [granted(ask("crash", "d", 30)), granted(ask("crash", "c", 30))];
  await release("crash", { fence });
  // b had nobody on the line; it finds what it was given meanwhile.
  const b = await granted(ask("crash", "b", 30));
  await release("crash", { fence: b.fence });
  const third = await c;
  await release("crash", { fence: third.fence });
  const fences = [fence, b.fence, third.fence, (await d).fence];
  expect(fences).toEqual(fences.toSorted((x, y) => x - y));
});

test("an object that was evicted still knows its locks, and lets the time of a hold end", async () => {
  const { fence } = await granted(ask("evicted", "a", null, { ttlMs: 1_500 }));
  await evictDurableObject(shardFor("evicted"));
  expect((await look("evicted")).holders).toMatchObject([{ holder: "a", fence }]);
  await evictDurableObject(shardFor("evicted"));
  await until("its alarm has freed it", async () => (await look("evicted")).holders.length === 0);
});

test("a hand-over is one row", async () => {
  const name = "rows";
  const rows = (): Promise<number> =>
    runInDurableObject(
      shardFor(name),
      (_locks: Locks, ctx: DurableObjectState) => ctx.storage.sql.exec("SELECT max(seq) AS n FROM log").one()["n"] as number,
    );
  const { fence } = await granted(ask(name, "a"));
  const next = granted(ask(name, "b", 30));
  await queued(name, 1);
  const before = await rows();
  await release(name, { fence });
  await next;
  expect(await rows()).toBe(before + 1);
});

test("a commit that fails grants nothing", async () => {
  const name = "refused";
  await granted(ask(name, "x"));
  await runInDurableObject(shardFor(name), (_locks: Locks, ctx: DurableObjectState) => {
    ctx.storage.sql.exec("CREATE TRIGGER refuse BEFORE INSERT ON log BEGIN SELECT RAISE(ABORT, 'the disk is full'); END");
  });
  expect((await ask(name, "x2", 5).catch(() => new Response(null, { status: 503 }))).status).toBeGreaterThanOrEqual(500);
  await delay(20);
  await runInDurableObject(shardFor(name), (_locks: Locks, ctx: DurableObjectState) => void ctx.storage.sql.exec("DROP TRIGGER refuse"));
  expect(await look(name)).toMatchObject({ queue: 0, holders: [{ holder: "x" }] });
});

test("bad input is refused with what to do", async () => {
  expect(await problemIn(await ask("bad", ""))).toMatchObject({ status: 400, errors: [{ pointer: "/holder" }] });
  expect(await problemIn(await ask("bad", "goal_x/1"))).toMatchObject({ status: 400, errors: [{ pointer: "/holder" }] });
  expect(await problemIn(await ask("bad", "a", null, { permits: 2 }))).toMatchObject({ status: 400 });
  expect(await problemIn(await ask("bad", "a", null, { ttlMs: 1 }))).toMatchObject({ errors: [{ pointer: "/ttlMs" }] });
  expect(await problemIn(await ask("b%20ad", "a"))).toMatchObject({ status: 400, code: "invalid_request" });
  expect(await problemIn(await release("bad", {}))).toMatchObject({ status: 400 });
  expect((await call("PATCH", "/v1/locks/bad")).status).toBe(405);
});
