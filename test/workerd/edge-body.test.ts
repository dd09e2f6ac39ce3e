/** Bodies: read whole or not at all, within the bound, and only as what they say they are. */
import { expect, test } from "vitest";
import { BODY_BYTES_MAX } from "../../shared/limits.ts";
import { jsonText, readBody, taskFormat } from "../../workers/edge/middleware/body.ts";
import { call, problemIn, streamOf } from "./edge-kit.ts";

const JSON_HEADERS = { "content-type": "application/json" };
const bytes = (text: string) => new TextEncoder().encode(text);
const names = async () => (await (await call("GET", "/v1/upstreams")).json<{ items: { name: string }[] }>()).items.map(({ name }) => name);
const VALID = '{"origin":"http://one.test"}';

function request(body: BodyInit, headers: Record<string, string> = {}): Request {
  return new Request("http://drover.test/", { method: "POST", body, headers });
}

test.each([
  ["is not JSON", "{", "not JSON"],
  ["is an array", "[]", "JSON object"],
  ["is a string", '"text"', "JSON object"],
  ["is null", "null", "JSON object"],
  ["has something after its end", `${VALID}}`, "not JSON"],
])("a body that %s keeps nothing", async (_what, body, says) => {
  const found = await problemIn(await call("PUT", "/v1/upstreams/kept", { body, headers: JSON_HEADERS }));
  expect(found).toMatchObject({ status: 400, code: "invalid_request" });
  expect(found.detail).toContain(says);
  expect(await names()).not.toContain("kept");
});

test("bytes that are not UTF-8 are refused", async () => {
  const found = await problemIn(
    await call("PUT", "/v1/upstreams/kept", { body: new Uint8Array([0x7b, 0xff, 0x7d]), headers: JSON_HEADERS }),
  );
  expect(found).toMatchObject({ status: 400, detail: "the body is not valid UTF-8" });
});

test("a body that breaks off midway keeps nothing, even where its beginning would do", async () => {
  const { body } = streamOf([bytes(VALID)], true);
  const found = await problemIn(await call("PUT", "/v1/upstreams/kept", { body, headers: JSON_HEADERS }));
  expect(found).toMatchObject({ status: 400, code: "invalid_request" });
  expect(found.detail).toContain("broke off");
  expect(await names()).not.toContain("kept");
});

test("a body that is declared too large is refused unread, its rest canceled", async () => {
  const { body, wasCanceled } = streamOf([bytes(VALID)]);
  const headers = { ...JSON_HEADERS, "content-length": String(BODY_BYTES_MAX + 1) };
  const found = await problemIn(await call("PUT", "/v1/upstreams/kept", { body, headers }));
  expect(found).toMatchObject({ status: 413, code: "payload_too_large" });
  expect(wasCanceled()).toBe(true);
  expect(await names()).not.toContain("kept");
});

test("a body that grows too large without a declared length is refused, its rest canceled", async () => {
  const chunk = new Uint8Array(1024 * 1024).fill(32);
  const { body, wasCanceled } = streamOf(Array.from({ length: 64 }, () => chunk));
  expect(await problemIn(await call("PUT", "/v1/upstreams/kept", { body, headers: JSON_HEADERS }))).toMatchObject({ status: 413 });
  expect(wasCanceled()).toBe(true);
});

test("the largest body is taken, one byte more is not", async () => {
  const largest = streamOf([new Uint8Array(BODY_BYTES_MAX - 1), new Uint8Array(1)]);
  expect(await readBody(request(largest.body))).toMatchObject({ ok: true });
  const larger = streamOf([new Uint8Array(BODY_BYTES_MAX), new Uint8Array(1)]);
  expect(await readBody(request(larger.body))).toMatchObject({ ok: false, error: { code: "payload_too_large" } });
});

test("a body arrives byte for byte, in one piece or in chunks", async () => {
  const whole = await readBody(request("€uro", { "content-length": "6" }));
  const chunked = await readBody(request(streamOf([bytes("€uro").slice(0, 2), bytes("€uro").slice(2)]).body));
  for (const read of [whole, chunked]) expect(read.ok && new TextDecoder().decode(read.value.bytes)).toBe("€uro");
});

test("a compressed body is refused with what to do instead", async () => {
  const headers = { ...JSON_HEADERS, "content-encoding": "gzip" };
  const found = await problemIn(await call("PUT", "/v1/upstreams/kept", { body: VALID, headers }));
  expect(found).toMatchObject({ status: 400, code: "invalid_request" });
  expect(found.detail).toContain("Content-Encoding");
});

test("another media type is refused with the one that is taken", async () => {
  const found = await problemIn(await call("PUT", "/v1/upstreams/kept", { body: VALID, headers: { "content-type": "text/yaml" } }));
  expect(found).toMatchObject({ status: 400, code: "invalid_request" });
  expect(found.detail).toContain("application/json");
  expect(await names()).not.toContain("kept");
});

test.each([
  ["application/json", "json"],
  ["Application/JSON; charset=utf-8", "json"],
  ["application/vnd.agent+json", "json"],
  ["application/x-ndjson", "ndjson"],
  ["application/ndjson; charset=utf-8", "ndjson"],
  ["application/jsonl", "ndjson"],
])("tasks sent as %s are read as %s", async (type, format) => {
  const body = await readBody(request("x", { "content-type": type }));
  expect(body.ok && taskFormat(body.value)).toEqual({ ok: true, value: format });
});

test.each(["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])(
  "tasks sent as %s are refused with the types that are taken",
  async (type) => {
    const found = await problemIn(
      await call("POST", "/v1/goals/goal_01k00000000000000000000000/tasks", { body: "x", headers: { "content-type": type } }),
    );
    expect(found).toMatchObject({ status: 400, code: "invalid_request" });
    expect(found.detail).toMatch(/application\/json.*application\/x-ndjson/);
  },
);

test("a value that is nested too deeply to be written is a bad request, not a bug", () => {
  // V8 writes nested arrays without recursion, but not objects with index keys.
  const value: unknown = JSON.parse(`${'{"1":'.repeat(100_000)}0${"}".repeat(100_000)}`);
  expect(jsonText(value)).toMatchObject({ ok: false, error: { code: "invalid_request" } });
  expect(jsonText([1])).toEqual({ ok: true, value: "[1]" });
});
