/** Keys and preferences in headers: what is accepted, and what makes two requests the same. */
import { expect, test } from "vitest";
import { IDEMPOTENCY_KEY_CHARS_MAX, WAIT_SECONDS_MAX } from "../../shared/limits.ts";
import type { EdgeContext } from "../../workers/edge/context.ts";
import { readBody } from "../../workers/edge/middleware/body.ts";
import { idempotencyOf, parseIdempotencyKey } from "../../workers/edge/middleware/idempotency.ts";
import { waitSeconds } from "../../workers/edge/prefer.ts";
import { call, problemIn } from "./edge-kit.ts";

const LONGEST = "k".repeat(IDEMPOTENCY_KEY_CHARS_MAX);

test.each([
  ["8e03978e-40d5-43dd-bc93-6894a57f9324", "8e03978e-40d5-43dd-bc93-6894a57f9324"],
  ['"8e03978e-40d5-43dd-bc93-6894a57f9324"', "8e03978e-40d5-43dd-bc93-6894a57f9324"],
  ['"a\\"b\\\\c"', 'a"b\\c'],
  ["with spaces, and commas", "with spaces, and commas"],
  [LONGEST, LONGEST],
  [`"${LONGEST}"`, LONGEST],
])("%s is a key", (header, key) => {
  expect(parseIdempotencyKey(header)).toBe(key);
});

test.each(["", '""', '"', '"open', '"a"b"', '"a";b', '"a\\x"', "ümlaut", "tab\tinside", `${LONGEST}k`, `"${LONGEST}k"`])(
  "%j is not a key",
  (header) => {
    expect(parseIdempotencyKey(header)).toBeNull();
  },
);

test("a key that is none is refused before anything happens", async () => {
  const found = await problemIn(await call("POST", "/v1/goals", { headers: { "idempotency-key": `${LONGEST}k` } }));
  expect(found).toMatchObject({ status: 400, code: "invalid_request" });
  expect(found.detail).toContain("Idempotency-Key");
});

/** The fingerprint of a request as a route would see it. */
async function keyOf(method: string, path: string, body: string, headers: Record<string, string>) {
  const request = new Request(`http://drover.test${path}`, { method, body, headers: { "idempotency-key": "k", ...headers } });
  const req = { url: request.url, method, header: (name: string) => request.headers.get(name) ?? undefined };
  const context = { req, get: () => ({ claims: { subject: "ann" } }) };
  const read = await readBody(request);
  if (!read.ok) throw new Error("the body must be read");
  const result = await idempotencyOf(context as unknown as EdgeContext, "/v1/x", read.value);
  if (!result.ok || result.value === undefined) throw new Error("the key must be taken");
  return result.value;
}

const JSON_TYPE = { "content-type": "application/json" };

test("the same request has the same fingerprint, bare or quoted, with or without a charset", async () => {
  const first = await keyOf("POST", "/v1/x?a=1", "body", JSON_TYPE);
  expect(await keyOf("POST", "/v1/x?a=1", "body", { "content-type": "application/json; charset=utf-8", "idempotency-key": '"k"' })).toEqual(
    first,
  );
  expect(first).toMatchObject({ key: '"ann" POST /v1/x k', fingerprint: expect.stringMatching(/^[0-9a-f]{64}$/) });
});

test.each([
  ["method", "PUT", "/v1/x?a=1", "body", "application/json"],
  ["path", "POST", "/v1/y?a=1", "body", "application/json"],
  ["query", "POST", "/v1/x?a=2", "body", "application/json"],
  ["body", "POST", "/v1/x?a=1", "Body", "application/json"],
  ["media type", "POST", "/v1/x?a=1", "body", "application/x-ndjson"],
])("another %s is another request", async (_what, method, path, body, type) => {
  const first = await keyOf("POST", "/v1/x?a=1", "body", JSON_TYPE);
  expect((await keyOf(method, path, body, { "content-type": type })).fingerprint).not.toBe(first.fingerprint);
});

test.each([
  ["wait=20", 20],
  ["respond-async, wait=5", 5],
  ['WAIT = "7"; foo=bar', 7],
  ["wait=0", 0],
  ["wait=999999", WAIT_SECONDS_MAX],
] as const)("Prefer: %s waits %d seconds", (header, seconds) => {
  expect(waitSeconds(header)).toBe(seconds);
});

test.each([undefined, "", "wait", "wait=", "wait=-1", "wait=1.5", "await=3", "nowait=3", "handling=strict"])(
  "Prefer: %s waits not at all",
  (header) => {
    expect(waitSeconds(header)).toBeNull();
  },
);
