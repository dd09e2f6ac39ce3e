/** What the executor sends, as a real server sees it. */
import { expect, test } from "vitest";
import { UNSENDABLE_STATUS } from "../../shared/policy/outcome.ts";
import type { BatchItem } from "../../shared/rpc-batch.ts";
import { spanOf } from "../../workers/executor/request.ts";
import { GOAL_ID, run, runOne, itemOf, TRACE_ID } from "./executor-kit.ts";

interface Echo {
  readonly method: string;
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
}

async function echo(item: Partial<BatchItem>, headers: Record<string, string> = {}): Promise<Echo & { text: string }> {
  const { payload } = await runOne("/echo?a=1&b=%20", { method: "POST", ...item }, { headers });
  const seen = payload["body"] as Echo;
  return { ...seen, text: atob(seen.body) };
}

test("every call says which goal, task and attempt it belongs to, and carries a trace", async () => {
  const { headers, method, path } = await echo({ task: 31, taskId: "task_x", attempt: 3, method: "PUT" });
  expect({ method, path }).toEqual({ method: "PUT", path: "/echo?a=1&b=%20" });
  expect(headers).toMatchObject({
    "idempotency-key": "task_x",
    "drover-goal": GOAL_ID,
    "drover-task": "task_x",
    "drover-attempt": "3",
    traceparent: `00-${TRACE_ID}-0000002000000003-01`,
  });
});

test("a span is 16 hex digits, never all zero, and another one for another attempt", () => {
  const own = [spanOf(0, 0), spanOf(0, 1), spanOf(1, 0), spanOf(1, 1), spanOf(999_999, 65_535)];
  // Calls that the runs of these make.
  const asked = [spanOf(0, 1, 1), spanOf(0, 1, 2), spanOf(0, 2, 1), spanOf(1, 1, 1), spanOf(999_999, 4_095, 10_000)];
  const spans = [...own, ...asked];
  for (const span of spans) expect(span).toMatch(/^(?!0{16})[0-9a-f]{16}$/);
  expect(new Set(spans).size).toBe(spans.length);
});

test("a task's header replaces the upstream's, however it is spelt, and neither replaces Drover's", async () => {
  const batch = { "X-Kind": "upstream", "X-Only": "upstream", "Idempotency-Key": "mine" };
  const { headers } = await echo({ taskId: "task_x", headers: { "x-kind": "task", "DROVER-GOAL": "mine" } }, batch);
  expect(headers).toMatchObject({ "x-kind": "task", "x-only": "upstream", "idempotency-key": "task_x", "drover-goal": GOAL_ID });
});

test("a body is sent as JSON, whatever it is", async () => {
  for (const body of [{ a: [1, "ü"] }, "text", 0, null, false]) {
    const { headers, body: sent } = await echo({ body });
    expect(headers["content-type"]).toBe("application/json");
    expect(new TextDecoder().decode(Uint8Array.from(atob(sent), (char) => char.charCodeAt(0)))).toBe(JSON.stringify(body));
  }
});

test("a string under a content type that is not JSON is sent as it stands", async () => {
  const csv = await echo({ body: "a,b\n1,2", headers: { "Content-Type": "text/csv" } });
  expect(csv).toMatchObject({ text: "a,b\n1,2", headers: { "content-type": "text/csv" } });
});

test("a string under a JSON content type of its own is a JSON string", async () => {
  const ld = await echo({ body: "a", headers: { "content-type": "application/ld+json; charset=utf-8" } });
  expect(ld).toMatchObject({ text: '"a"', headers: { "content-type": "application/ld+json; charset=utf-8" } });
});

test("bytes arrive as they are", async () => {
  const bodyBase64 = btoa(String.fromCharCode(...Array.from({ length: 256 }, (_, i) => i)));
  expect((await echo({ bodyBase64, headers: { "content-type": "image/png" } })).body).toBe(bodyBase64);
});

test("a call without a body sends none", async () => {
  const { headers, body } = await echo({ method: "GET" });
  expect(body).toBe("");
  expect(headers["content-type"]).toBeUndefined();
});

test("a header that cannot be sent is refused before anything is sent", async () => {
  const bad = { headers: { "x-bad": "two\nlines" } };
  const [fault] = await run([itemOf(0, "/echo?name=unsendable", bad)]);
  expect(fault).toMatchObject({ outcome: "not_sent", status: UNSENDABLE_STATUS, payload: { code: "upstream_error" } });
});
