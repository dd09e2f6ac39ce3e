/** Answers that are kept: for how long, and what ends them. */
import { expect, test } from "vitest";
import { countsOf } from "./executor-kit.ts";
import { proxied, send, until, upstream } from "./proxy-kit.ts";

const callsOf = async (name: string): Promise<number> => (await countsOf(name)).total;

test("an answer is used again only while it is fresh by its own word", async () => {
  await upstream("fresh");
  const get = () => proxied("GET", "fresh/slow?name=fresh&ms=0&text=kept&h-cache-control=max-age%3D1&h-age=0");
  expect((await get()).headers.get("cache-status")).toBe("drover; fwd=miss");
  await until("it is kept", async () => (await get()).headers.get("cache-status") === "drover; hit");
  const calls = await callsOf("fresh");
  const hit = await get();
  expect([await hit.text(), hit.headers.get("age")]).toEqual(["kept", "0"]);
  expect(await callsOf("fresh")).toBe(calls);
  // A caller may want one of its own.
  await (
    await proxied("GET", "fresh/slow?name=fresh&ms=0&text=kept&h-cache-control=max-age%3D1&h-age=0", {
      headers: { "cache-control": "no-cache" },
    })
  ).text();
  expect(await callsOf("fresh")).toBe(calls + 1);
  await new Promise((resolve) => setTimeout(resolve, 1_100));
  await (await get()).text();
  expect(await callsOf("fresh")).toBe(calls + 2);
});

const FRESH = "ms=0&h-cache-control=max-age%3D60";

/** Has the answers to GETs of this path kept; asks again what becomes of one. */
async function keep(path: string, headers: Record<string, string> = {}): Promise<() => Promise<string | null>> {
  const get = async (): Promise<string | null> => {
    const answer = await proxied("GET", path, { headers });
    await answer.text();
    return answer.headers.get("cache-status");
  };
  await until(`${path} is kept`, async () => (await get()) === "drover; hit");
  return get;
}

test("a write that was answered without error ends what is kept of its path, in all variants, and of the paths of its origin that it names", async () => {
  await upstream("written");
  await upstream("unwritten");
  const [named, abroad] = [`/slow?name=written-named&${FRESH}`, `/slow?name=written-abroad&${FRESH}`];
  const naming = `h-location=${encodeURIComponent(named)}&h-content-location=${encodeURIComponent(`http://elsewhere.test${abroad}`)}`;
  const path = `/slow?name=written&${FRESH}&${naming}`;
  const ended = [await keep(`written${path}`), await keep(`written${path}`, { accept: "text/html" }), await keep(`written${named}`)];
  const left = [await keep(`written${abroad}`), await keep(`unwritten${path}`)];
  expect((await proxied("PUT", `written${path}`, { body: "x" })).status).toBe(200);
  for (const get of ended) expect(await get()).toBe("drover; fwd=miss");
  for (const get of left) expect(await get()).toBe("drover; hit");
});

test.each([
  ["POST", 303, "fwd=miss"],
  ["DELETE", 500, "fwd=miss"],
  ["PATCH", 404, "hit"],
  ["OPTIONS", 200, "hit"],
])("after a %s that was answered with %i, what was kept is a %s", async (method, status, becomes) => {
  await upstream("written-or-not");
  const path = `written-or-not/slow?name=written-${method}&${FRESH}&written=${status}`;
  const get = await keep(path);
  expect((await proxied(method, path)).status).toBe(status);
  expect(await get()).toBe(`drover; ${becomes}`);
});

test("what is kept of an upstream ends when it becomes another one, and when it is none any more", async () => {
  await upstream("replaced");
  const path = `replaced/slow?name=replaced&${FRESH}`;
  const get = await keep(path);
  await upstream("replaced", { headers: { "x-new": "1" } });
  expect(await get()).toBe("drover; fwd=miss");
  await keep(path);
  await send("DELETE", "/v1/upstreams/replaced");
  // Gates know the registry as it was a moment ago, and what they let be called meanwhile is not kept.
  await until("it is gone", async () => (await proxied("GET", path)).status === 404);
});

test("whoever asks after a write does not get the answer of a call that began before it, nor is that kept", async () => {
  await upstream("outdated");
  const path = "outdated/slow?name=outdated&ms=400&h-cache-control=max-age%3D60";
  const before = [proxied("GET", path), proxied("GET", path)];
  await until("a call is under way", async () => (await callsOf("outdated")) === 1);
  await (await proxied("POST", path)).text();
  const after = [proxied("GET", path), proxied("GET", path)];
  const shown = await Promise.all([...before, ...after].map(async (answer) => (await answer).headers.get("cache-status")));
  expect(shown).toEqual(["drover; fwd=miss", "drover; collapsed", "drover; fwd=miss", "drover; collapsed"]);
  // Two GETs, and the write.
  expect(await callsOf("outdated")).toBe(3);
});
