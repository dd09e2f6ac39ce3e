/** What the executor makes of an upstream's answers and of its faults. */
import { expect, test } from "vitest";
import { RESPONSE_BYTES_MAX, RETRY_AFTER_MS_MAX } from "../../shared/limits.ts";
import { retryAfterMsOf } from "../../workers/kit/retry-after.ts";
import { countsOf, itemOf, REFUSING_ORIGIN, run, runOne } from "./executor-kit.ts";

const path = (page: string, query: Record<string, string | number>): string =>
  `/${page}?${new URLSearchParams(Object.entries(query).map(([name, value]) => [name, String(value)])).toString()}`;
const body = (query: Record<string, string | number>): string => path("body", query);

test("JSON stays the text that it was, so that big integers survive", async () => {
  const text = '{"id":12345678901234567890, "pi":3.140}';
  for (const type of ["application/json", "application/problem+json; charset=utf-8"]) {
    const { outcome, status, payloadText } = await runOne(body({ type, text }));
    expect({ outcome, status, payloadText }).toEqual({ outcome: "answered", status: 200, payloadText: `{"status":200,"body":${text}}` });
  }
});

test("JSON on many lines becomes one line with the same value", async () => {
  const { payloadText, payload } = await runOne(
    body({ type: "application/json", text: '{\r\n  "a": 12345678901234567890,\n  "b": "x\\ny"\n}' }),
  );
  expect(payloadText).toContain("12345678901234567890");
  expect((payload["body"] as { b: string }).b).toBe("x\ny");
});

test("what says that it is JSON and is not is kept as text", async () => {
  const { payload } = await runOne(body({ type: "application/json", text: '{"a":' }));
  expect(payload).toEqual({ status: 200, headers: { "content-type": "application/json" }, body: '{"a":' });
});

test("text is a string in its own charset", async () => {
  const latin = btoa("caf\u00e9");
  expect((await runOne(body({ type: "text/plain", text: "zwei\nZeilen ü" }))).payload["body"]).toBe("zwei\nZeilen ü");
  expect((await runOne(body({ type: "application/xml", text: "<a/>", chunked: 1 }))).payload["body"]).toBe("<a/>");
  expect((await runOne(body({ type: "text/plain; charset=iso-8859-1", base64: latin }))).payload["body"]).toBe("café");
  const unknown = await runOne(body({ type: "text/plain; charset=klingon", base64: latin }));
  expect(unknown.payload).toMatchObject({ encoding: "base64", body: latin });
});

test("other bytes are base64", async () => {
  const base64 = btoa(String.fromCharCode(...Array.from({ length: 255 }, (_, i) => 255 - i)));
  const headers = { "content-type": "image/png" };
  expect((await runOne(body({ type: "image/png", base64 }))).payload).toEqual({ status: 200, headers, encoding: "base64", body: base64 });
  expect((await runOne(body({ type: "image/png", base64, chunked: 1 }))).payload["body"]).toBe(base64);
});

test("without a content type, UTF-8 is text and all else is base64", async () => {
  expect((await runOne(body({ text: "plain ü" }))).payload).toEqual({ status: 200, body: "plain ü" });
  expect((await runOne(body({ base64: btoa("\xff\xfe") }))).payload).toEqual({ status: 200, encoding: "base64", body: btoa("\xff\xfe") });
});

test("an empty body is null, whatever its content type", async () => {
  for (const type of ["application/json", "text/plain", "image/png"]) {
    expect((await runOne(body({ type }))).payload).toEqual({ status: 200, body: null });
  }
  expect((await runOne("/status/204")).payload).toEqual({ status: 204, body: null });
  expect((await runOne("/status/304?h-etag=x")).payload).toEqual({ status: 304, headers: { etag: "x" }, body: null });
});

test("HEAD has no body, though it tells a length beyond the limit", async () => {
  const { outcome, payload } = await runOne(body({ type: "text/plain", bytes: RESPONSE_BYTES_MAX + 1 }), { method: "HEAD" });
  expect({ outcome, payload }).toEqual({ outcome: "answered", payload: { status: 200, body: null } });
});

test("headers that help the caller are kept, others are not", async () => {
  const { payload } = await runOne("/status/201?type=application/json&text=1&h-location=/x/1&h-etag=%22v1%22&h-set-cookie=a%3Db");
  expect(payload).toEqual({ status: 201, headers: { etag: '"v1"', location: "/x/1" }, body: 1 });
});

test("a redirect is an answer and is not followed", async () => {
  const { outcome, status, payload } = await runOne("/status/302?h-location=/echo");
  expect({ outcome, status, payload }).toEqual({
    outcome: "answered",
    status: 302,
    payload: { status: 302, headers: { location: "/echo" }, body: null },
  });
});

test("a packed body is unpacked", async () => {
  expect((await runOne(body({ type: "text/plain", text: "packed", gzip: 1 }))).payload["body"]).toBe("packed");
});

test("a body of the largest size is kept and one byte more is refused, declared, chunked or packed", async () => {
  const kept = await runOne(body({ type: "text/plain", bytes: RESPONSE_BYTES_MAX }));
  expect((kept.payload["body"] as string).length).toBe(RESPONSE_BYTES_MAX);
  for (const more of [{}, { chunked: 1 }, { gzip: 1 }]) {
    const { outcome, status, payload } = await runOne(body({ type: "text/plain", bytes: RESPONSE_BYTES_MAX + 1, ...more }));
    expect({ outcome, status, code: payload["code"] }).toEqual({ outcome: "too_large", status: 200, code: "result_too_large" });
    expect(payload["detail"]).toContain(String(RESPONSE_BYTES_MAX));
  }
});

test("text that would swell beyond its share when quoted is too large", async () => {
  // A control character takes six characters in JSON.
  const quoted = (bytes: number) => runOne(body({ type: "text/plain", bytes, fill: "\x01" }));
  expect(await quoted(RESPONSE_BYTES_MAX / 4)).toMatchObject({ outcome: "answered", status: 200 });
  expect(await quoted(RESPONSE_BYTES_MAX / 2)).toMatchObject({ outcome: "too_large", payload: { code: "result_too_large" } });
});

test("an error is answered with its status, and tells what the upstream said", async () => {
  const { outcome, status, retryAfterMs, payload } = await runOne("/status/503?type=text/plain&text=try%20later", { method: "POST" });
  expect({ outcome, status, retryAfterMs }).toEqual({ outcome: "answered", status: 503, retryAfterMs: 0 });
  expect(payload).toEqual({
    code: "upstream_error",
    detail: "POST /status/503?type=text/plain&text=try%20later answered 503: try later",
  });
});

test("an error's text is cut after 1,000 characters", async () => {
  const { payload } = await runOne("/status/500?type=text/plain&bytes=50000");
  expect(payload["detail"]).toBe(`GET /status/500?type=text/plain&bytes=50000 answered 500: ${"x".repeat(1_000)}`);
});

test("Retry-After is read as seconds or as a date, and never beyond its bound", async () => {
  expect((await runOne("/status/429?h-retry-after=7")).retryAfterMs).toBe(7_000);
  const now = Date.parse("2026-11-23T10:00:00Z");
  const cases: readonly [string | null, number][] = [
    [null, 0],
    ["0", 0],
    ["2", 2_000],
    [" 3 ", 3_000],
    ["Mon, 23 Nov 2026 10:00:05 GMT", 5_000],
    ["Mon, 23 Nov 2026 09:00:00 GMT", 0],
    ["999999999", RETRY_AFTER_MS_MAX],
    ["soon", 0],
    ["-1", 0],
  ];
  for (const [value, ms] of cases) expect([value, retryAfterMsOf(value, now)]).toEqual([value, ms]);
});

test("an upstream that says nothing, or stops in the middle of a body, times out", async () => {
  const startedAtMs = Date.now();
  const reports = await run([itemOf(0, "/hang", { timeoutMs: 60 }), itemOf(1, "/hang-body", { timeoutMs: 200 }), itemOf(2, "/delay/1")]);
  const byTask = new Map(reports.map((report) => [report.task, report]));
  expect(byTask.get(0)).toMatchObject({ outcome: "timeout", status: 0, payload: { code: "upstream_timeout" } });
  expect(byTask.get(0)!.payload["detail"]).toContain("60 ms");
  expect(byTask.get(1)).toMatchObject({ outcome: "timeout", payload: { code: "upstream_timeout" } });
  expect(byTask.get(2)!.outcome).toBe("answered");
  expect(byTask.get(1)!.endedAtMs - byTask.get(1)!.startedAtMs).toBeGreaterThanOrEqual(195);
  expect(Date.now() - startedAtMs).toBeLessThan(3_000);
});

test("a lane that timed out serves the next call", async () => {
  const reports = await run(
    [itemOf(0, "/hang", { timeoutMs: 30 }), itemOf(1, "/delay/1"), itemOf(2, "/hang", { timeoutMs: 30 }), itemOf(3, "/delay/1")],
    { lanes: 1 },
  );
  expect(reports.map(({ task, outcome }) => [task, outcome])).toEqual([
    [0, "timeout"],
    [1, "answered"],
    [2, "timeout"],
    [3, "answered"],
  ]);
});

test("a connection that breaks after the request was sent may have had its effect", async () => {
  for (const method of ["GET", "POST"]) {
    for (const page of ["/reset", "/reset-body"]) {
      expect(await runOne(page, { method })).toMatchObject({ outcome: "broken", status: 0, payload: { code: "upstream_error" } });
    }
  }
});

test("a kept-alive connection that breaks repeats no POST", async () => {
  const reports = await run(
    Array.from({ length: 6 }, (_, task) => itemOf(task, "/once?name=once", { method: "POST", body: task })),
    { lanes: 1 },
  );
  expect((await countsOf("once")).total).toBe(reports.length);
  expect(reports.some(({ outcome }) => outcome === "broken")).toBe(true);
});

test("a POST to an upstream that takes no connections was surely not sent", async () => {
  for (const origin of [REFUSING_ORIGIN, "http://no-such-host.invalid"]) {
    const { outcome, payload } = await runOne("/x", { method: "POST", body: 1 }, { origin });
    expect({ outcome, code: payload["code"] }).toEqual({ outcome: "not_sent", code: "upstream_error" });
    expect(payload["detail"]).toContain(origin);
  }
});

test("of a GET to an upstream that takes no connections nothing is claimed", async () => {
  expect((await runOne("/x", {}, { origin: REFUSING_ORIGIN })).outcome).toBe("broken");
});
