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

/** Spaces, a mebibyte each. */
const mebibytes = (count: number) => streamOf(Array.from({ length: count }, () => new Uint8Array(1024 * 1024).fill(32)));

test("a body that is declared too large is refused, and let pass so that its sender hears of it", async () => {
  const { body, wasCanceled, taken } = mebibytes(9);
  const headers = { ...JSON_HEADERS, "content-length": String(9 * 1024 * 1024) };
  const found = await problemIn(await call("PUT", "/v1/upstreams/kept", { body, headers }));
  expect(found).toMatchObject({ status: 413, code: "payload_too_large" });
  expect([taken(), wasCanceled()]).toEqual([9, false]);
  expect(await names()).not.toContain("kept");
});

test("a body that grows too large without a declared length is refused, and let pass", async () => {
  const { body, wasCanceled, taken } = mebibytes(12);
  expect(await problemIn(await call("PUT", "/v1/upstreams/kept", { body, headers: JSON_HEADERS }))).toMatchObject({ status: 413 });
  expect([taken(), wasCanceled()]).toEqual([12, false]);
});

test("a sender that goes on and on is cut off", async () => {
  for (const headers of [JSON_HEADERS, { ...JSON_HEADERS, "content-length": String(1024 ** 3) }]) {
    const { body, wasCanceled, taken } = mebibytes(1024);
    expect((await call("PUT", "/v1/upstreams/kept", { body, headers })).status).toBe(413);
    expect(wasCanceled()).toBe(true);
    expect(taken()).toBeLessThan(64);
  }
});

test.each([
  ["without a token", "POST", "/v1/goals", { token: null }, 401],
  ["on an unknown route", "POST", "/v1/nothing", {}, 404],
  ["with a method that is not taken", "DELETE", "/v1/goals", {}, 405],
  ["with a bad query", "POST", "/v1/goals/goal_01k00000000000000000000000/tasks?atomic=1", {}, 400],
] as const)("a refusal %s is heard after a large body too", async (_what, method, path, options, status) => {
  const { body, taken } = mebibytes(2);
  expect((await call(method, path, { ...options, body })).status).toBe(status);
  expect(taken()).toBe(2);
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
