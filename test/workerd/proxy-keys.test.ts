/** Proxied calls with an `Idempotency-Key`: what is kept, for whom, and what is not. */
import { listDurableObjectIds, runDurableObjectAlarm, runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { expect, test } from "vitest";
import { BODY_BYTES_MAX, IDEMPOTENT_ANSWER_BYTES_MAX, IDEMPOTENT_ANSWER_MS } from "../../shared/limits.ts";
import { problemIn } from "./edge-kit.ts";
import { countsOf } from "./executor-kit.ts";
import { liveOf, proxied, until, upstream } from "./proxy-kit.ts";

const keyed = (method: string, path: string, key: string, body?: BodyInit): Promise<Response> =>
  proxied(method, path, { headers: { "idempotency-key": key }, ...(body === undefined ? {} : { body }) });

const bytesOf = async (response: Response): Promise<Uint8Array> => new Uint8Array(await response.arrayBuffer());

test("a stored answer is the first one to the byte: status, headers and a body of several rows", async () => {
  await upstream("kept");
  const path = `kept/status/201?bytes=${IDEMPOTENT_ANSWER_BYTES_MAX}&fill=é&h-x-mine=1&type=application/x-test&name=kept`;
  const [first, second] = [await keyed("POST", path, "kept", "x"), await keyed("POST", path, "kept", "x")];
  expect([first.status, first.headers.has("idempotent-replayed")]).toEqual([201, false]);
  expect([second.status, second.headers.get("idempotent-replayed")]).toEqual([201, "true"]);
  expect(second.headers.get("x-mine")).toBe("1");
  expect(second.headers.get("content-type")).toBe("application/x-test");
  expect(await bytesOf(second)).toEqual(await bytesOf(first));
  expect((await countsOf("kept")).total).toBe(1);
});

test.each([
  ["another body", "POST", "kept/echo?a", "other"],
  ["another query", "POST", "kept/echo?b", "x"],
])("%s under the same key is refused", async (what, method, path, body) => {
  await upstream("kept");
  await (await keyed("POST", "kept/echo?a", what, "x")).text();
  expect(await problemIn(await keyed(method, path, what, body))).toMatchObject({ status: 422, code: "idempotency_key_reused" });
});

test("an answer that is too large to keep is passed on, and whoever comes later is told so", async () => {
  await upstream("large");
  const path = `large/body?bytes=${IDEMPOTENT_ANSWER_BYTES_MAX + 1}&name=large`;
  expect((await bytesOf(await keyed("POST", path, "large", "x"))).byteLength).toBe(IDEMPOTENT_ANSWER_BYTES_MAX + 1);
  const refused = await problemIn(await keyed("POST", path, "large", "x"));
  expect(refused).toMatchObject({ status: 409, code: "conflict" });
  expect(refused.detail).toContain(String(IDEMPOTENT_ANSWER_BYTES_MAX));
  expect((await countsOf("large")).total).toBe(1);
});

test.each([500, 503, 429])("after a %d the key is free again", async (status) => {
  await upstream(`free-${status}`);
  for (let i = 0; i < 2; i++) {
    expect((await keyed("POST", `free-${status}/status/${status}?name=free-${status}`, `free-${status}`, "x")).status).toBe(status);
  }
  expect((await countsOf(`free-${status}`)).total).toBe(2);
});

test("a call whose outcome nobody knows is not made again, unless repeating it does no harm", async () => {
  await upstream("doubt");
  for (const method of ["POST", "POST", "PUT", "PUT"]) {
    const answer = await problemIn(await keyed(method, `doubt/reset?name=doubt-${method}`, "doubt", "x"));
    expect([answer.status, answer.code]).toEqual([502, method === "POST" ? "outcome_unknown" : "upstream_error"]);
  }
  expect((await countsOf("doubt-POST")).total).toBe(1);
  expect((await countsOf("doubt-PUT")).total).toBe(2);
  await upstream("sure", { idempotency: "key" });
  for (let i = 0; i < 2; i++) await keyed("POST", "sure/reset?name=sure", "sure", "x");
  expect((await countsOf("sure")).total).toBe(2);
});

test("a body that breaks off is not an answer", async () => {
  await upstream("half");
  const read = async (): Promise<unknown> => (await keyed("PUT", "half/reset-body?name=half", "half", "x")).text().catch(() => "broke off");
  expect([await read(), await read()]).toEqual(["broke off", "broke off"]);
  expect((await countsOf("half")).total).toBe(2);
});

test("a body that is too large to be read whole is refused", async () => {
  await upstream("kept");
  const answer = await problemIn(await keyed("POST", "kept/echo", "big", new Uint8Array(BODY_BYTES_MAX + 1)));
  expect(answer).toMatchObject({ status: 413, code: "payload_too_large" });
});

test("who waits for the first call with its key is told to come again when its patience ends", async () => {
  await upstream("slow");
  const first = keyed("POST", "slow/delay/2500?name=slow", "slow", "x");
  await until("it is open", async () => (await countsOf("slow")).inFlight === 1);
  const headers = { "idempotency-key": "slow", prefer: "wait=1" };
  expect(await problemIn(await proxied("POST", "slow/delay/2500?name=slow", { headers, body: "x" }))).toMatchObject({ status: 503 });
  expect(await (await first).json()).toEqual({ ok: true });
});

test("the alarm deletes what is a day old, and the key is new then", async () => {
  await upstream("old");
  const path = "old/body?text=hi&name=old";
  await (await keyed("POST", path, "old", "x")).text();
  await until("it is kept", async () => (await liveOf("old")).inFlight === 0);
  let deleted = 0;
  for (const id of await listDurableObjectIds(env.GATE)) {
    const gate = env.GATE.get(id);
    const rows = await runInDurableObject(gate, async (_gate, { storage }) => {
      if (storage.sql.exec("SELECT 1 FROM sqlite_master WHERE name = 'answers'").toArray().length === 0) return 0;
      expect(await storage.getAlarm()).toBeGreaterThan(Date.now() + IDEMPOTENT_ANSWER_MS / 2);
      storage.sql.exec("UPDATE answers SET expires_at_ms = 1");
      return storage.sql.exec("SELECT count(*) AS n FROM answers").one()["n"] as number;
    });
    if (rows === 0) continue;
    await runDurableObjectAlarm(gate);
    const left = await runInDurableObject(gate, (_gate, { storage }) => storage.sql.exec("SELECT count(*) AS n FROM sqlite_master").one());
    expect(left).toEqual({ n: 0 });
    deleted += rows;
  }
  expect(deleted).toBeGreaterThan(0);
  expect((await keyed("POST", path, "old", "x")).headers.has("idempotent-replayed")).toBe(false);
  expect((await countsOf("old")).total).toBe(2);
});
