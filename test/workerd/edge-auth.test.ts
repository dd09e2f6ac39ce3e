/** Who gets in, and what everybody else is told. */
import { expect, test, vi } from "vitest";
import { call, problemIn, TOKEN } from "./edge-kit.ts";

const GOAL = "/v1/goals/goal_01k00000000000000000000000";
const ROUTES = ["GET /v1/goals", "POST /v1/goals", `GET ${GOAL}`, `POST ${GOAL}/cancel`, `POST ${GOAL}/tasks`, `GET ${GOAL}/events`].concat(
  ["GET /v1/upstreams", "PUT /v1/upstreams/a", "DELETE /v1/upstreams/a", "GET /", "GET /nowhere", "POST /healthz", "GET /healthz/x"],
);

test.each(ROUTES)("%s does not answer without a token", async (route) => {
  const [method, path] = route.split(" ");
  const response = await call(method!, path!, { token: null });
  expect(response.headers.get("www-authenticate")).toBe("Bearer");
  expect(await problemIn(response)).toMatchObject({ status: 401, code: "unauthorized", retryable: false });
});

test.each([
  ["another token", "Bearer some-other-token-0123456789"],
  ["the token with one character more", `Bearer ${TOKEN}x`],
  ["the token without its last character", `Bearer ${TOKEN.slice(0, -1)}`],
  ["another scheme", `Basic ${TOKEN}`],
  ["no scheme", TOKEN],
  ["two tokens", `Bearer ${TOKEN} ${TOKEN}`],
  ["an empty token", "Bearer "],
])("%s does not get in, also after the right one did", async (_what, authorization) => {
  expect((await call("GET", "/v1/upstreams")).status).toBe(200);
  const response = await call("GET", "/v1/upstreams", { token: null, headers: { authorization } });
  expect((await problemIn(response)).code).toBe("unauthorized");
  expect((await call("GET", "/v1/upstreams")).status).toBe(200);
});

test("the scheme's name may be in any case", async () => {
  expect((await call("GET", "/v1/upstreams", { token: null, headers: { authorization: `bearer ${TOKEN}` } })).status).toBe(200);
});

test("a new secret shuts out the old token at once", async () => {
  expect((await call("GET", "/v1/upstreams")).status).toBe(200);
  const rotated = { ROOT_TOKEN: "another-secret-0123456789" };
  expect((await call("GET", "/v1/upstreams", { env: rotated })).status).toBe(401);
  expect((await call("GET", "/v1/upstreams", { env: rotated, token: rotated.ROOT_TOKEN })).status).toBe(200);
});

test.each([undefined, "", "too-short"])("a deployment whose ROOT_TOKEN is %j lets nobody in and says what to set", async (secret) => {
  for (const token of [TOKEN, "too-short", null]) {
    const problem = await problemIn(await call("GET", "/v1/upstreams", { env: { ROOT_TOKEN: secret }, token }));
    expect(problem).toMatchObject({ status: 503, code: "temporary_reduced_capacity" });
    expect(problem.detail).toContain("ROOT_TOKEN");
  }
  expect((await problemIn(await call("GET", "/readyz", { env: { ROOT_TOKEN: secret }, token: null }))).status).toBe(503);
  expect((await call("GET", "/healthz", { env: { ROOT_TOKEN: secret }, token: null })).status).toBe(200);
});

test("health and readiness are public", async () => {
  expect(await (await call("GET", "/healthz", { token: null })).json()).toEqual({ status: "ok" });
  expect(await (await call("GET", "/readyz", { token: null })).json()).toEqual({ status: "ready" });
  expect((await call("HEAD", "/healthz", { token: null })).status).toBe(200);
});

test("tokens are never logged", async () => {
  const lines: unknown[] = [];
  const spies = (["log", "info", "warn", "error", "debug"] as const).map((level) =>
    vi.spyOn(console, level).mockImplementation((...line) => void lines.push(...line)),
  );
  await call("GET", "/v1/upstreams", { token: "a-wrong-token-0123456789" });
  await call("GET", "/v1/upstreams", { env: { TENANT: null } });
  for (const spy of spies) spy.mockRestore();
  expect(lines.length).toBeGreaterThan(0);
  expect(lines.map(String).join("\n")).not.toMatch(/a-wrong-token|edge-test-token/);
});
