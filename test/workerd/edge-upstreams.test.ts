/** The registry over HTTP, against the real tenant. */
import { env } from "cloudflare:workers";
import { evictDurableObject } from "cloudflare:test";
import { expect, test } from "vitest";
import { tenantStub } from "../../workers/edge/context.ts";
import { call, problemIn, put } from "./edge-kit.ts";

const DEFAULTS = {
  maxConcurrency: null,
  ratePerSecond: null,
  tokensPerMinute: null,
  reserve: { tokens: 0, costMicros: 0 },
  usage: { tokens: null, costMicros: null },
  timeoutMs: 30_000,
  idempotency: "none",
  retry: { maxAttempts: 5 },
  headers: {},
  coalesce: "safe",
  hedge: false,
};

test("an upstream is made with 201 and changed with 200, and a GET shows every default", async () => {
  const made = await put("/v1/upstreams/search", { origin: "HTTP://Search.test:8080/" });
  expect(made.status).toBe(201);
  expect(made.headers.get("location")).toBe("/v1/upstreams/search");
  expect(made.headers.get("content-type")).toBe("application/json");
  const shown = { name: "search", origin: "http://search.test:8080", ...DEFAULTS };
  expect(await made.json()).toEqual(shown);
  const changed = await put("/v1/upstreams/search", { origin: "http://search.test:8080", maxConcurrency: 40 });
  expect(changed.status).toBe(200);
  const got = await call("GET", "/v1/upstreams/search");
  // Nobody has called it yet.
  const times = { p50Ms: null, p95Ms: null, p99Ms: null, count: 0 };
  const live = {
    limit: null,
    inFlight: 0,
    queued: 0,
    ...times,
    circuit: "closed",
    hedgeAfterMs: null,
    tokensPerCall: 0,
    messages: 0,
    calls: 0,
  };
  expect(await got.json()).toEqual({ ...shown, maxConcurrency: 40, live });
});

test("several origins are shown as such", async () => {
  const made = await put("/v1/upstreams/several", { origins: ["http://one.test", "http://Two.test/"] });
  expect(await made.json()).toEqual({ name: "several", origins: ["http://one.test", "http://two.test"], ...DEFAULTS });
});

test("the registry survives an eviction of the tenant", async () => {
  await put("/v1/upstreams/kept", { origin: "http://kept.test" });
  await evictDurableObject(tenantStub(env) as unknown as DurableObjectStub);
  const list: { items: { name: string }[]; nextCursor: null } = await (await call("GET", "/v1/upstreams")).json();
  expect(list.items.map(({ name }) => name)).toContain("kept");
  expect(list.nextCursor).toBeNull();
});

test("a deleted upstream is gone, and deleting it again is not found", async () => {
  await put("/v1/upstreams/gone", { origin: "http://gone.test" });
  const deleted = await call("DELETE", "/v1/upstreams/gone");
  expect([deleted.status, await deleted.text()]).toEqual([204, ""]);
  for (const method of ["GET", "DELETE"]) {
    expect(await problemIn(await call(method, "/v1/upstreams/gone"))).toMatchObject({ status: 404, code: "not_found" });
  }
});

test("secret headers go in and never come out, but reach the goals", async () => {
  const headers = {
    Authorization: "Bearer s3cret",
    Cookie: "s3cret",
    "X-API-Key": "s3cret",
    "x-session-token": "s3cret",
    Accept: "text/csv",
  };
  const made = await put("/v1/upstreams/masked", { origin: "http://masked.test", headers });
  const answers = [made, await call("GET", "/v1/upstreams/masked"), await call("GET", "/v1/upstreams")];
  for (const answer of answers) expect(await answer.clone().text()).not.toContain("s3cret");
  expect((await answers[1]!.json<{ headers: unknown }>()).headers).toEqual({
    Authorization: "***",
    Cookie: "***",
    "X-API-Key": "***",
    "x-session-token": "***",
    Accept: "text/csv",
  });
  const registry = await tenantStub(env).registry();
  expect(registry.upstreams.find(({ name }) => name === "masked")?.headers).toEqual(headers);
});

test("a mask that is sent back is refused, so that it cannot replace the secret", async () => {
  const found = await problemIn(await put("/v1/upstreams/m", { origin: "http://m.test", headers: { Authorization: "***" } }));
  expect(found).toMatchObject({ status: 400, errors: [{ pointer: "/headers/Authorization" }] });
});

test.each([
  ["no origin", {}, ""],
  ["an origin with a path", { origin: "http://one.test/path" }, "/origin"],
  ["an origin with credentials", { origin: "http://me:it@one.test" }, "/origin"],
  ["a wrong type", { origin: "http://one.test", maxConcurrency: "9" }, "/maxConcurrency"],
  ["an unknown property", { origin: "http://one.test", maxConcurency: 9 }, "/maxConcurency"],
  ["a fault within", { origin: "http://one.test", retry: { maxAttempts: 0 } }, "/retry/maxAttempts"],
])("an upstream with %s is refused at the fault", async (_what, body, pointer) => {
  const found = await problemIn(await put("/v1/upstreams/bad", body));
  expect(found).toMatchObject({ status: 400, code: "invalid_request" });
  expect(found.errors?.map((fault) => fault.pointer)).toEqual([pointer]);
  expect((await call("GET", "/v1/upstreams/bad")).status).toBe(404);
});

test.each(["UPPER", "-dash", "with%20space", "a".repeat(64)])("%s is not an upstream's name", async (name) => {
  expect((await problemIn(await put(`/v1/upstreams/${name}`, { origin: "http://one.test" }))).status).toBe(400);
});
