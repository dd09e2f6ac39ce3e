/** What passes through the proxy and what stays, what is tried again, and whose calls are refused. */
import { listDurableObjectIds, runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { expect, inject, test } from "vitest";
import { LEASE_TTL_MS_MIN } from "../../shared/limits.ts";
import { problemIn } from "./edge-kit.ts";
import { countsOf, REFUSING_ORIGIN } from "./executor-kit.ts";
import { type Echo, liveOf, newGoal, proxied, send, until, upstream } from "./proxy-kit.ts";

test("the caller's headers pass, but not the connection's and not Drover's; the upstream's own win", async () => {
  await upstream("heads", { headers: { "x-api-key": "secret", "x-both": "upstream" } });
  const headers = {
    "x-both": "caller",
    "x-one-hop": "1",
    connection: "x-one-hop",
    te: "trailers",
    "drover-upstream-authorization": "Basic mine",
    "drover-task": "x",
    "idempotency-key": "heads-1",
    traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    prefer: "wait=5, return=minimal",
    "content-type": "text/x-test",
  };
  const response = await proxied("POST", "heads/echo", { body: "the body", headers });
  const heard = await response.json<Echo>();
  expect(atob(heard.body)).toBe("the body");
  expect(heard.headers).toMatchObject({
    "x-api-key": "secret",
    "x-both": "upstream",
    authorization: "Basic mine",
    "idempotency-key": "heads-1",
    traceparent: headers.traceparent,
    prefer: "return=minimal",
    "content-type": "text/x-test",
    "accept-encoding": "identity",
  });
  for (const name of ["x-one-hop", "te", "drover-upstream-authorization", "drover-task"]) expect(heard.headers).not.toHaveProperty(name);
});

test("Drover's own token stays here, and a caller's credential does not replace the upstream's", async () => {
  await upstream("open");
  expect((await (await proxied("GET", "open/echo")).json<Echo>()).headers).not.toHaveProperty("authorization");
  await upstream("closed", { headers: { Authorization: "Bearer theirs" } });
  const response = await proxied("GET", "closed/echo", { headers: { "drover-upstream-authorization": "Bearer mine" } });
  expect((await response.json<Echo>()).headers["authorization"]).toBe("Bearer theirs");
});

test("the path and the query arrive as they were given", async () => {
  await upstream("paths");
  for (const path of ["/echo/a%2Fb/%7Ec//d;x=1?q=%2e%2E/../x&q=a+b", "/echo/?", "/echo"]) {
    expect((await (await proxied("GET", `paths${path}`)).json<Echo>()).path).toBe(path);
  }
});

test.each(["paths/%2e%2E/x", "paths/x/.%2e?q", "paths/a%2e%2e/..%5c/%2e", "paths/x\\..\\y"])("%s is refused", async (path) => {
  await upstream("paths");
  // As a client sends it that does not tidy up; `new Request` would.
  const { createApp } = await import("../../workers/edge/app.ts");
  const raw = {
    url: `http://drover.test/v1/proxy/${path}`,
    method: "GET",
    headers: new Headers({ authorization: `Bearer ${env.ROOT_TOKEN}` }),
    body: null,
  };
  expect(await problemIn(await createApp().fetch(raw as unknown as Request, env))).toMatchObject({ code: "invalid_request" });
});

test("an unknown upstream is a 404, and no token a 401", async () => {
  expect(await problemIn(await proxied("GET", "nobody/x"))).toMatchObject({ status: 404, code: "not_found" });
  expect(await problemIn(await proxied("GET", "%2e/x"))).toMatchObject({ status: 404 });
  const stranger = await proxied("GET", "nobody/x", { headers: { authorization: "Bearer wrong-token-0123456789" } });
  expect(await problemIn(stranger)).toMatchObject({ status: 401 });
});

test("the answer passes as it is: status, headers, encoding, length, and how much more is free", async () => {
  await upstream("plain");
  const ok = await proxied("GET", "plain/body?text=hello&h-x-mine=1&h-connection=x-mine&h-x-theirs=2&type=text/x-test");
  expect([ok.status, ok.headers.get("content-length"), await ok.text()]).toEqual([200, "5", "hello"]);
  expect([ok.headers.get("x-theirs"), ok.headers.get("content-type"), ok.headers.has("x-mine")]).toEqual(["2", "text/x-test", false]);
  expect(ok.headers.get("ratelimit-policy")).toMatch(/^"plain";q=\d+;qu="concurrent-requests"$/);
  expect(ok.headers.get("ratelimit")).toMatch(/^"plain";r=\d+$/);
  const moved = await proxied("GET", "plain/status/302?h-location=/elsewhere");
  expect([moved.status, moved.headers.get("location")]).toEqual([302, "/elsewhere"]);
  const head = await proxied("HEAD", "plain/body?text=hello");
  expect([head.status, head.headers.get("content-length"), await head.text()]).toEqual([200, "5", ""]);
  const none = await proxied("DELETE", "plain/status/204");
  expect([none.status, await none.text()]).toEqual([204, ""]);
  expect(await (await proxied("PATCH", "plain/status/418?text=teapot", { body: "x" })).text()).toBe("teapot");
  await until("every permit is back", async () => (await liveOf("plain")).inFlight === 0);
});

test("what fails and may be repeated is tried twice more; what may not, and what has a body, is passed on", async () => {
  await upstream("failing");
  expect((await proxied("GET", "failing/status/502?name=retried")).status).toBe(502);
  expect((await countsOf("retried")).total).toBe(3);
  expect((await proxied("POST", "failing/status/502?name=posted", { body: "x" })).status).toBe(502);
  expect((await countsOf("posted")).total).toBe(1);
  const put = await proxied("PUT", "failing/status/502?name=put&text=as-it-was", { body: "x" });
  expect([put.status, await put.text()]).toEqual([502, "as-it-was"]);
  expect((await countsOf("put")).total).toBe(1);
  const later = await proxied("GET", "failing/status/503?name=later&h-retry-after=600", { headers: { prefer: "wait=2" } });
  expect([later.status, later.headers.get("retry-after"), (await countsOf("later")).total]).toEqual([503, "600", 1]);
});

test("a status that no answer can have is a 502, and its permit is free again", async () => {
  await upstream("odd", { maxConcurrency: 1 });
  expect(await problemIn(await proxied("GET", "odd/status/999"))).toMatchObject({
    status: 502,
    code: "upstream_error",
    detail: expect.stringContaining("999"),
  });
  expect((await proxied("GET", "odd/status/200", { headers: { prefer: "wait=2" } })).status).toBe(200);
});

test("a second origin answers where the first cannot be reached", async () => {
  await upstream("pair", { origins: [REFUSING_ORIGIN, inject("upstreamUrl")] });
  const answers = await Promise.all(Array.from({ length: 8 }, () => proxied("GET", "pair/body?text=ok")));
  expect(answers.map(({ status }) => status)).toEqual(answers.map(() => 200));
});

test("a broken connection is a 502, in doubt where the call may have had its effect; silence is a 504", async () => {
  await upstream("broken", { timeoutMs: 200 });
  expect(await problemIn(await proxied("GET", "broken/reset"))).toMatchObject({ status: 502, code: "upstream_error" });
  expect(await problemIn(await proxied("POST", "broken/reset", { body: "x" }))).toMatchObject({ status: 502, code: "outcome_unknown" });
  expect(await problemIn(await proxied("GET", "broken/hang"))).toMatchObject({ status: 504, code: "upstream_timeout" });
});

test("a call for a goal needs the goal, and one that takes calls", async () => {
  await upstream("real");
  const goal = await newGoal();
  const forGoal = (id: string) => proxied("GET", "real/body?text=ok", { headers: { "drover-goal": id } });
  expect(await (await forGoal(goal)).text()).toBe("ok");
  expect(await problemIn(await forGoal("goal_x"))).toMatchObject({ status: 404 });
  expect(await problemIn(await forGoal("goal_01arz3ndektsv4rrffq69g5fav"))).toMatchObject({ status: 404 });
  const other = await newGoal();
  await send("POST", `/v1/goals/${other}/cancel`);
  expect(await problemIn(await forGoal(other))).toMatchObject({ status: 409, code: "goal_ended" });
});

test("where the bound is hard, a call does not outlive the gate that answers for its permit", async () => {
  await upstream("hard", { maxConcurrency: 1 });
  const response = await proxied("GET", "hard/hang-body?name=hard");
  const reader = response.body!.getReader();
  expect(new TextDecoder().decode((await reader.read()).value)).toBe("hello");
  for (const id of await listDurableObjectIds(env.GATE)) {
    await runInDurableObject(env.GATE.get(id), (_gate, ctx) => ctx.abort("a test")).catch(() => undefined);
  }
  const evictedAtMs = Date.now();
  await expect(reader.read()).rejects.toThrow();
  expect(Date.now() - evictedAtMs).toBeLessThan(LEASE_TTL_MS_MIN);
  await until("the upstream is left alone", async () => (await countsOf("hard")).inFlight === 0);
});
