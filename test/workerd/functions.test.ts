/** Functions over HTTP, against the real tenant, images and sandbox: put, replaced, tried out, deleted, and made anew for another engine. */
import { env } from "cloudflare:workers";
import { runDurableObjectAlarm, runInDurableObject } from "cloudflare:test";
import { expect, test, vi } from "vitest";
import { IMAGE_KEPT_MS } from "../../shared/limits.ts";
import type { FunctionVersion } from "../../shared/protocol/function.ts";
import { tenantStub } from "../../workers/edge/context.ts";
import { imageStub, Images } from "../../workers/sandbox/images.ts";
import { ENGINE_ID, Sandbox } from "../../workers/sandbox/index.ts";
import { call, problemIn, put } from "./edge-kit.ts";
import { tokenOf } from "./tokens-kit.ts";

const DOUBLE = "export default async ({ n }, ctx) => { ctx.log('n is', n); return n * 2; };";
const LIMITS = { cpuMs: 100, memoryMiB: 16 };

const putFunction = (name: string, bundle: string, query = "", type = "text/javascript"): Promise<Response> =>
  call("PUT", `/v1/functions/${name}${query}`, { body: bundle, headers: { "content-type": type } });

const invoke = (name: string, body: object, token?: string): Promise<Response> =>
  call("POST", `/v1/functions/${name}/invoke`, {
    body: JSON.stringify(body),
    headers: { "content-type": "application/json" },
    ...(token === undefined ? {} : { token }),
  });

async function versionOf(name: string): Promise<FunctionVersion> {
  const found = await tenantStub(env).getFunction(name);
  if (!found.ok) throw new Error(found.error.detail);
  return found.value;
}

test("a function is put with 201, shown, listed, and invoked with what it logged", async () => {
  const made = await putFunction("double", DOUBLE);
  expect(made.status).toBe(201);
  expect(made.headers.get("location")).toBe("/v1/functions/double");
  const shown = await made.json<Record<string, unknown>>();
  expect(shown).toMatchObject({ name: "double", engine: "snapshot", limits: LIMITS, bundleBytes: DOUBLE.length });
  expect(shown["version"]).toMatch(/^[0-9a-f]{64}$/);
  expect(shown["snapshotBytes"]).toBeGreaterThan(100_000);
  const live = { p50Ms: null, p95Ms: null, p99Ms: null, count: 0 };
  expect(await (await call("GET", "/v1/functions/double")).json()).toEqual({ ...shown, live });
  expect(await (await call("GET", "/v1/functions")).json()).toEqual({ items: [shown], nextCursor: null });
  const invoked = await invoke("double", { input: { n: 21 } });
  expect(invoked.status).toBe(200);
  expect(await invoked.json()).toMatchObject({
    output: 42,
    logs: [{ level: "info", text: "n is 21" }],
    cpuMs: expect.any(Number) as number,
  });
});

test("the same again is the same version and changes nothing; another bundle, limit or engine is a new version", async () => {
  const first = await (await putFunction("same", DOUBLE)).json<{ version: string }>();
  const before = await tenantStub(env).registry();
  const again = await putFunction("same", DOUBLE);
  expect(again.status).toBe(200);
  expect(await again.json()).toEqual(first);
  expect((await tenantStub(env).registry()).version).toBe(before.version);
  const versions = new Set([first.version]);
  for (const [bundle, query] of [
    [`${DOUBLE} `, ""],
    [DOUBLE, "?cpuMs=101"],
    [DOUBLE, "?memoryMiB=17"],
    [DOUBLE, "?engine=isolate"],
  ] as const) {
    const made = await putFunction("same", bundle, query);
    expect(made.status).toBe(201);
    versions.add((await made.json<{ version: string }>()).version);
  }
  expect(versions.size).toBe(5);
  expect(await (await invoke("same", { input: { n: 4 } })).json()).toMatchObject({ output: 8 });
});

test("goals hear of a new version by the registry's version", async () => {
  await putFunction("news", "export default () => 1;");
  const { version, functions } = await tenantStub(env).registry();
  await putFunction("news", "export default () => 2;");
  const after = await tenantStub(env).registry();
  expect(after.version).toBe(version + 1);
  expect(after.functions).toHaveLength(functions!.length);
  expect(await (await invoke("news", {})).json()).toMatchObject({ output: 2 });
});

test.for([
  ["a syntax error", "export default (", "", "SyntaxError"],
  [
    "an error at the top level",
    "function setUp() { throw new TypeError('no table'); } setUp(); export default () => 1;",
    "",
    "TypeError: no table",
  ],
  ["an error in prime", "export function prime() { throw new Error('cold'); } export default () => 1;", "", "Error: cold"],
  ["no handler", "export const handler = () => 1;", "", "default"],
  ["an endless loop", "for (;;) {} export default () => 1;", "", "processor time"],
  ["an import of what is not bundled", "import 'fs'; export default () => 1;", "", "fs"],
  ["the same for the other engine", "throw new TypeError('no table'); export default () => 1;", "?engine=isolate", "TypeError: no table"],
] as const)("a bundle with %s is refused in its own words, and nothing of it is kept", async ([, bundle, query, words]) => {
  const refused = await problemIn(await putFunction("bad", bundle, query));
  expect(refused).toMatchObject({ status: 400, code: "invalid_request" });
  expect(refused.detail).toContain(words);
  expect((await call("GET", "/v1/functions/bad")).status).toBe(404);
});

test("what is thrown at the top level comes with its stack, in the words of the source", async () => {
  const { detail } = await problemIn(
    await putFunction("bad", "function setUp() {\n  throw new TypeError('no table');\n}\nsetUp();\nexport default () => 1;"),
  );
  expect(detail).toMatch(/setUp.*:2:/);
});

test("bad names, types, sizes and settings are refused with what to do", async () => {
  expect(await problemIn(await putFunction("Bad", DOUBLE))).toMatchObject({ status: 400 });
  expect((await problemIn(await putFunction("bad", DOUBLE, "", "application/json"))).detail).toContain("text/javascript");
  expect((await problemIn(await putFunction("bad", ""))).detail).toContain("empty");
  expect(await problemIn(await putFunction("bad", `//${"x".repeat(4 * 1_048_576)}`))).toMatchObject({ status: 413 });
  const { errors } = await problemIn(await putFunction("bad", DOUBLE, "?engine=jvm&cpuMs=0&memoryMiB=65"));
  expect(errors?.map(({ pointer }) => pointer)).toEqual(["?engine", "?cpuMs", "?memoryMiB"]);
});

test("a function that throws, or goes on for too long, is a problem with its stack and its logs", async () => {
  await putFunction(
    "throws",
    "export default (input, ctx) => { ctx.log('before'); const inner = () => { throw new RangeError('too far'); }; inner(); };",
  );
  const thrown = await problemIn(await invoke("throws", {}));
  expect(thrown).toMatchObject({ code: "function_error", detail: "RangeError: too far", logs: [{ level: "info", text: "before" }] });
  expect((thrown as unknown as { stack: string }).stack).toContain("inner");
  await putFunction("spins", "export default () => { for (;;); };", "?cpuMs=5");
  expect(await problemIn(await invoke("spins", {}))).toMatchObject({ code: "function_limit" });
  await putFunction("waits", "export default () => new Promise((resolve) => setTimeout(resolve, 60_000));");
  const late = await problemIn(await invoke("waits", { timeoutMs: 50 }));
  expect(late).toMatchObject({ code: "function_limit", detail: "the function did not end within 50 ms" });
});

test("outside a goal there is nobody to call, to spawn for or to lock with", async () => {
  await putFunction(
    "asks",
    `export default async (op, ctx) => {
      const asks = { call: () => ctx.call("up", { path: "/" }), fetch: () => ctx.fetch("http://a.test"), spawn: () => ctx.spawn([]), results: () => ctx.results(), lock: () => ctx.lock("l") };
      try { await asks[op](); } catch (error) { return error.code + ": " + error.message; }
    };`,
  );
  for (const op of ["call", "fetch", "spawn", "results", "lock"]) {
    const { output } = await (await invoke("asks", { input: op })).json<{ output: string }>();
    expect(output).toContain(`invalid_request: ctx.${op} works in a task of a goal only`);
  }
  expect(await problemIn(await invoke("asks", { input: 1, extra: true }))).toMatchObject({ status: 400 });
});

test("a deleted function is gone from the registry, and can be put again", async () => {
  await putFunction("brief", DOUBLE);
  expect((await call("DELETE", "/v1/functions/brief")).status).toBe(204);
  for (const answer of [await call("GET", "/v1/functions/brief"), await call("DELETE", "/v1/functions/brief"), await invoke("brief", {})]) {
    expect((await problemIn(answer)).code).toBe("not_found");
  }
  expect((await putFunction("brief", DOUBLE)).status).toBe(201);
  expect((await invoke("brief", { input: { n: 1 } })).status).toBe(200);
});

test("admin puts and deletes, submit invokes, read looks; a token or a policy may name the functions", async () => {
  await putFunction("guarded", DOUBLE);
  const submit = await tokenOf([{ type: "scopes", allow: ["submit"] }]);
  const refused = await call("PUT", "/v1/functions/guarded", {
    token: submit,
    body: DOUBLE,
    headers: { "content-type": "text/javascript" },
  });
  expect((await problemIn(refused)).code).toBe("permission_denied");
  expect((await invoke("guarded", { input: { n: 1 } }, submit)).status).toBe(200);
  const read = await tokenOf([{ type: "scopes", allow: ["read"] }]);
  expect((await invoke("guarded", { input: { n: 1 } }, read)).status).toBe(403);
  expect((await call("GET", "/v1/functions/guarded", { token: read })).status).toBe(200);
  const other = await tokenOf([
    { type: "scopes", allow: ["submit"] },
    { type: "functions", allow: ["other"] },
  ]);
  expect((await problemIn(await invoke("guarded", {}, other))).detail).toContain('the function "guarded"');
  await put("/v1/policy", { functions: ["other"] });
  expect((await invoke("guarded", { input: { n: 1 } })).status).toBe(403);
  await put("/v1/policy", {});
  expect((await invoke("guarded", { input: { n: 1 } })).status).toBe(200);
});

test("an image of another engine is made anew from its bundle, and stored", async () => {
  await putFunction("older", "export default () => 'made anew';");
  const version = await versionOf("older");
  const image = imageStub(env, version.version);
  const stored = (await image.image(ENGINE_ID))!;
  await image.putImage({ ...stored, engineId: "quickjs-ng-older-0" });
  await caches.default.delete(`https://images.drover.invalid/${ENGINE_ID}/${version.version}`);
  expect(await image.image(ENGINE_ID)).toBeNull();
  const sandbox = new Sandbox();
  await new Images(sandbox).load(env, version);
  expect(sandbox.has(version.version)).toBe(true);
  await expect.poll(async () => (await image.image(ENGINE_ID))?.engineId).toBe(ENGINE_ID);
});

test("the sandbox itself refuses an image of another engine, and says so", async () => {
  await putFunction("older", "export default () => 'made anew';");
  const version = await versionOf("older");
  const stored = (await imageStub(env, version.version).image(ENGINE_ID))!;
  await expect(new Sandbox().load("v", { ...stored, engineId: "quickjs-ng-older-0" })).rejects.toThrow("quickjs-ng-older-0");
});

test("those who want one version at once load it once; a failure is not remembered", async () => {
  await putFunction("shared", "export default () => 1;");
  const version = await versionOf("shared");
  await caches.default.delete(`https://images.drover.invalid/${ENGINE_ID}/${version.version}`);
  let asked = 0;
  let isDown = true;
  const stub = imageStub(env, version.version);
  const counting = {
    image: async (engineId: string) => {
      asked++;
      if (isDown) throw new Error("the object is not there");
      return stub.image(engineId);
    },
  };
  const IMAGE = { idFromName: (name: string) => env.IMAGE.idFromName(name), get: () => counting } as unknown as Env["IMAGE"];
  const sandbox = new Sandbox();
  const images = new Images(sandbox);
  await expect(images.load({ IMAGE }, version)).rejects.toThrow("not there");
  isDown = false;
  await Promise.all(Array.from({ length: 20 }, () => images.load({ IMAGE }, version)));
  expect([asked, sandbox.has(version.version)]).toEqual([2, true]);
});

test("an image is kept while the registry has its version, and some time longer", async () => {
  await putFunction("kept", "export default () => 'kept';");
  const { version } = await versionOf("kept");
  const image = env.IMAGE.get(env.IMAGE.idFromName(version));
  const bundle = (): Promise<string | null> => imageStub(env, version).bundle();
  expect(await runDurableObjectAlarm(image)).toBe(true);
  expect(await bundle()).not.toBeNull();
  await call("DELETE", "/v1/functions/kept");
  expect(await runDurableObjectAlarm(image)).toBe(true);
  // Seen unused for the first time: runs may have begun.
  expect(await bundle()).not.toBeNull();
  await runInDurableObject(
    image,
    (_, { storage }) => void storage.sql.exec("UPDATE about SET unused_since = ?", Date.now() - IMAGE_KEPT_MS),
  );
  expect(await runDurableObjectAlarm(image)).toBe(true);
  expect(await bundle()).toBeNull();
});

test("a version that another name has too survives its first name", async () => {
  await putFunction("one", "export default () => 'both';");
  await putFunction("two", "export default () => 'both';");
  const { version } = await versionOf("two");
  await call("DELETE", "/v1/functions/one");
  const image = env.IMAGE.get(env.IMAGE.idFromName(version));
  await runDurableObjectAlarm(image);
  await runInDurableObject(image, (_, { storage }) => {
    expect(storage.sql.exec("SELECT unused_since FROM about").one()).toEqual({ unused_since: null });
  });
});

interface Shown {
  readonly live: { readonly p50Ms: number | null; readonly p99Ms: number | null; readonly count: number };
}

test("a function shows how long runs of its newest version took, whatever goal they were of", async () => {
  const bundle = "export default async ({ ms }) => { await new Promise((resolve) => setTimeout(resolve, ms)); };";
  await putFunction("slow", bundle);
  const liveOf = async () => (await (await call("GET", "/v1/functions/slow")).json<Shown>()).live;
  for (const waits of [
    [100, 100],
    [100, 400],
  ]) {
    const tasks = waits.map((ms) => ({ run: { function: "slow", input: { ms } } }));
    const made = await call("POST", "/v1/goals", {
      body: JSON.stringify({ tasks, sealed: true }),
      headers: { "content-type": "application/json" },
    });
    expect(made.status).toBe(201);
  }
  await vi.waitFor(async () => expect((await liveOf()).count).toBe(4), { timeout: 10_000, interval: 50 });
  const { p50Ms, p99Ms } = await liveOf();
  expect(p50Ms).toBeGreaterThanOrEqual(90);
  expect(p50Ms).toBeLessThan(390);
  expect(p99Ms).toBeGreaterThanOrEqual(380);
  await putFunction("slow", `${bundle} `);
  expect((await liveOf()).count).toBe(0);
});
