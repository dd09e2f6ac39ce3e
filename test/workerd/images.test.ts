/** Images and bundles of functions on their way into an isolate, where what is found is broken or nobody brings it. */
import { env } from "cloudflare:workers";
import { afterEach, expect, test, vi } from "vitest";
import { BUNDLES_BYTES_MAX, IMAGE_WAIT_MS } from "../../shared/limits.ts";
import type { FunctionVersion } from "../../shared/protocol/function.ts";
import type { StoredImage } from "../../shared/rpc-functions.ts";
import { imageStub, Images } from "../../workers/sandbox/images.ts";
import { buildImage, ENGINE_ID, Sandbox } from "../../workers/sandbox/index.ts";
import { LIMITS, versionOf } from "./isolate-kit.ts";

const BUNDLE = "export default () => 1;";
const cacheUrl = (version: string): string => `https://images.drover.invalid/${ENGINE_ID}/${version}`;

/** A version whose object has its bundle and its image. */
async function stored(): Promise<[FunctionVersion, StoredImage]> {
  const version = versionOf("stored");
  const built = await buildImage(BUNDLE, LIMITS);
  if (!built.ok) throw new Error(built.error.detail);
  const { engineId, manifest, bytes } = built.value;
  await imageStub(env, version.version).putBundle(version.version, BUNDLE);
  await imageStub(env, version.version).putImage({ engineId, manifest, bytes });
  return [version, { engineId, manifest, bytes }];
}

/** The version, loaded into a sandbox of its own. */
async function loaded(version: FunctionVersion, from: Pick<Env, "IMAGE"> = env): Promise<boolean> {
  const sandbox = new Sandbox();
  await new Images(sandbox).load(from, version);
  return sandbox.has(version.version);
}

/** Objects that answer with this; `what` they are not asked for fails. */
const objects = (object: object): Pick<Env, "IMAGE"> => ({ IMAGE: { idFromName: () => "id", get: () => object } }) as never;
const NOWHERE = objects({
  image: () => Promise.reject(new Error("the object must not be asked")),
});

const flipped = (bytes: Uint8Array): Uint8Array => bytes.map((byte, i) => (i === bytes.length >> 1 ? byte ^ 255 : byte));

afterEach(() => void vi.useRealTimers());

test.for([
  ["is cut off", (bytes: Uint8Array) => bytes.slice(0, bytes.length - 1_000)],
  ["has another byte", flipped],
  ["is empty", () => new Uint8Array()],
] as const)("what the cache has of an image and %s is replaced by what its object has", async ([, broken]) => {
  const [version] = await stored();
  expect(await loaded(version)).toBe(true);
  const url = cacheUrl(version.version);
  await expect.poll(async () => (await caches.default.match(url)) !== undefined).toBe(true);
  const whole = new Uint8Array(await (await caches.default.match(url))!.arrayBuffer());
  await caches.default.put(url, new Response(broken(whole) as Uint8Array<ArrayBuffer>, { headers: { "cache-control": "max-age=1000" } }));
  expect(await loaded(version)).toBe(true);
  await expect.poll(async () => loaded(version, NOWHERE).catch(() => false)).toBe(true);
});

test("an image that is not whole in its object either is made anew from its bundle, and stored", async () => {
  const [version, image] = await stored();
  const object = imageStub(env, version.version);
  const broken = flipped(image.bytes);
  await object.putImage({ ...image, bytes: broken });
  expect(await loaded(version)).toBe(true);
  await expect.poll(async () => (await object.image(ENGINE_ID))!.bytes).not.toEqual(broken);
  await caches.default.delete(cacheUrl(version.version));
  const { image: repaired } = { image: await object.image(ENGINE_ID) };
  const bundle = (): Promise<string> => Promise.reject(new Error("it must not be made again"));
  expect(await loaded(version, objects({ image: async () => repaired, bundle }))).toBe(true);
});

/** An object whose answers come when the test says so. */
function slow(): { readonly asked: ((bundle: string) => void)[]; readonly from: Pick<Env, "IMAGE"> } {
  const asked: ((bundle: string) => void)[] = [];
  return { asked, from: objects({ bundle: () => new Promise<string>((resolve) => asked.push(resolve)) }) };
}

test("whoever waits for a load that never ends loads by himself, and those who came after him wait for that", async () => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
  const images = new Images(new Sandbox());
  const { asked, from } = slow();
  const version = versionOf();
  void images.bundle(from, version);
  const first = images.bundle(from, version);
  await vi.advanceTimersByTimeAsync(1_000);
  const second = images.bundle(from, version);
  await vi.advanceTimersByTimeAsync(IMAGE_WAIT_MS - 1_000);
  expect(asked).toHaveLength(2);
  // The second one's patience with the load that never ends must not end the load that does.
  await vi.advanceTimersByTimeAsync(1_000);
  expect(asked).toHaveLength(2);
  asked[1]!(BUNDLE);
  expect(await Promise.all([first, second])).toEqual([BUNDLE, BUNDLE]);
});

test("a bundle counts once, although two have brought it, and as what it takes in memory", async () => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
  const images = new Images(new Sandbox());
  const { asked, from } = slow();
  const third = "x".repeat(Math.floor(BUNDLES_BYTES_MAX / 2 / 3));
  const ask = async (version: FunctionVersion): Promise<boolean> => {
    const before = asked.length;
    const bundle = images.bundle(from, version);
    await vi.advanceTimersByTimeAsync(0);
    for (const answer of asked.slice(before)) answer(third);
    await bundle;
    return asked.length > before;
  };
  const [twice, other, another, fourth] = [versionOf(), versionOf(), versionOf(), versionOf()];
  const both = [images.bundle(from, twice), images.bundle(from, twice)];
  await vi.advanceTimersByTimeAsync(IMAGE_WAIT_MS);
  for (const answer of asked) answer(third);
  await Promise.all(both);
  expect([await ask(other), await ask(another)]).toEqual([true, true]);
  // There is room for three.
  expect([await ask(twice), await ask(other), await ask(another)]).toEqual([false, false, false]);
  expect([await ask(fourth), await ask(twice)]).toEqual([true, true]);
});
