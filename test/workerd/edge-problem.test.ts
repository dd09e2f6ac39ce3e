/** Failures on the wire: unknown routes, wrong methods, overloaded and restarting objects, bugs. */
import { expect, test, vi } from "vitest";
import { ERRORS, type ErrorCode } from "../../shared/errors.ts";
import { problem } from "../../workers/edge/reply.ts";
import { call, problemIn } from "./edge-kit.ts";

const GOAL = "/v1/goals/goal_01k00000000000000000000000";
const TASK = "/v1/tasks/task_01k00000000000000000000000000000";

/** The tenant's binding, failing as the platform would. */
function failingTenant(marks: Record<string, unknown>): { TENANT: unknown; calls: () => number } {
  let calls = 0;
  const listUpstreams = () => {
    calls++;
    return Promise.reject(Object.assign(new Error("secret detail of the inside"), marks));
  };
  return { TENANT: { idFromName: () => "id", get: () => ({ listUpstreams, registry: listUpstreams }) }, calls: () => calls };
}

test.each(["/", "/v1", "/v1/nothing", `${GOAL}/nothing`, `${GOAL}/cancel/now`, "/v1/upstreams/a/b"])("%s is not found", async (path) => {
  expect(await problemIn(await call("GET", path))).toMatchObject({ status: 404, code: "not_found" });
});

test.each([
  ["DELETE", "/v1/goals", "GET, HEAD, POST"],
  ["POST", "/v1/upstreams/a", "GET, HEAD, PUT, DELETE"],
  ["GET", `${GOAL}/cancel`, "POST"],
  ["PUT", `${GOAL}/tasks`, "GET, HEAD, POST"],
  ["POST", `${GOAL}/results`, "GET, HEAD"],
  ["DELETE", TASK, "GET, HEAD"],
  ["POST", "/healthz", "GET, HEAD"],
])("%s %s is refused with the methods that are taken", async (method, path, allow) => {
  const response = await call(method, path);
  expect(response.headers.get("allow")).toBe(allow);
  expect(await problemIn(response)).toMatchObject({ status: 405, code: "method_not_allowed" });
});

test.each([
  ["GET", "/v1/goals/goal_x"],
  ["GET", "/v1/goals/goal_01K00000000000000000000000"],
  ["GET", "/v1/goals/task_01k00000000000000000000000"],
  ["GET", "/v1/goals/%E0%A4%A"],
  ["POST", "/v1/goals/nope/cancel"],
  ["POST", "/v1/goals/nope/tasks"],
  ["GET", "/v1/goals/nope/events"],
  ["GET", "/v1/tasks/goal_01k00000000000000000000000"],
  ["GET", "/v1/tasks/task_01k0"],
  ["POST", "/v1/tasks/task_/retry"],
])("%s %s names nothing", async (method, path) => {
  expect(await problemIn(await call(method, path))).toMatchObject({ status: 404, code: "not_found" });
});

test.each([
  ["an overloaded object", { overloaded: true }],
  ["an infrastructure fault", { retryable: true }],
  ["an object that was reset", { durableObjectReset: true }],
])("%s is 503 with Retry-After, and is asked once only", async (_what, marks) => {
  const tenant = failingTenant(marks);
  const response = await call("GET", "/v1/upstreams", { env: tenant });
  expect(response.headers.get("retry-after")).toBe("1");
  expect(await problemIn(response)).toMatchObject({ code: "temporary_reduced_capacity", retryable: true, retryAfterMs: 1000 });
  expect(tenant.calls()).toBe(1);
});

test("a bug is 500, goes to the log and shows nothing of the inside", async () => {
  const spy = vi.spyOn(console, "error").mockImplementation(() => undefined);
  const response = await call("GET", "/v1/upstreams", { env: failingTenant({}) });
  const logged = spy.mock.calls.map((line) => line.map(String).join(" ")).join("\n");
  spy.mockRestore();
  const found = await problemIn(response);
  expect(found).toMatchObject({ status: 500, code: "internal" });
  expect(JSON.stringify(found)).not.toMatch(/secret detail|\.ts/);
  expect(logged).toContain("secret detail of the inside");
});

test("a tenant that does not answer is not ready", async () => {
  const spy = vi.spyOn(console, "error").mockImplementation(() => undefined);
  const response = await call("GET", "/readyz", { env: failingTenant({}), token: null });
  spy.mockRestore();
  expect(await problemIn(response)).toMatchObject({ status: 503, code: "temporary_reduced_capacity" });
});

test("every error code leaves with its status, its title and whether to try again", async () => {
  for (const code of Object.keys(ERRORS) as ErrorCode[]) {
    const found = await problemIn(problem({ code, detail: "why", retryAfterMs: 1500 }));
    expect(found).toEqual({ type: `urn:drover:error:${code}`, ...ERRORS[code], code, detail: "why", retryAfterMs: 1500 });
  }
  expect(problem({ code: "quota_exceeded", detail: "", retryAfterMs: 1500 }).headers.get("retry-after")).toBe("2");
});

test("every fault of a query is named at once", async () => {
  const found = await problemIn(await call("GET", "/v1/goals?limit=0&status=done&cursor=x"));
  expect(found).toMatchObject({ status: 400, code: "invalid_request" });
  expect(found.errors?.map(({ pointer }) => pointer).toSorted()).toEqual(["?cursor", "?limit", "?status"]);
});

test.each(["limit=1001", "limit=-1", "limit=1.5", "limit=1e3", "limit=ten", "limit=0x10"])("%s is not a page's size", async (query) => {
  const found = await problemIn(await call("GET", `/v1/goals?${query}`));
  expect(found.errors).toEqual([{ pointer: "?limit", detail: "must be a whole number from 1 to 1000" }]);
});

test.each(["follow=yes", "follow=1", "follow=TRUE"])("%s is neither true nor false", async (query) => {
  const found = await problemIn(await call("GET", `${GOAL}/results?${query}`));
  expect(found.errors).toEqual([{ pointer: "?follow", detail: "must be one of true, false" }]);
});

test("an empty parameter counts as absent", async () => {
  expect((await call("GET", "/v1/goals?limit=&status=&cursor=")).status).toBe(200);
});

test.each(["/v1/goals?state=active", "/v1/goals?limit=1&foo"])("a query parameter that is not known is refused: %s", async (path) => {
  const { status, errors } = await problemIn(await call("GET", path));
  expect([status, errors?.length]).toEqual([400, 1]);
  expect(errors![0]!.detail).toMatch(/^is not known here; .*status.* are$/);
});
