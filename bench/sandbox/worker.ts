/**
 * The sandbox alone in a workerd, without Drover around it: what its parts take
 * is measured here, and what a goal takes is measured against it. Loops are
 * long because the clock has milliseconds.
 */
import type { StoredImage } from "../../shared/rpc-functions.ts";
import { Cutoff } from "../../workers/kit/cutoff.ts";
import { buildImage } from "../../workers/sandbox/snapshot/build.ts";
import { type Image, Instance } from "../../workers/sandbox/snapshot/instance.ts";
import { type Manifest, unpacked } from "../../workers/sandbox/snapshot/manifest.ts";
import { Sandbox } from "../../workers/sandbox/snapshot/pool.ts";
import type { HostCalls, Invocation } from "../../workers/sandbox/types.ts";
import type { Ended } from "../../shared/protocol/function.ts";

interface Bindings {
  readonly LOADER: WorkerLoader;
}

const LIMITS = { cpuMs: 1_000, memoryBytes: 16 * 1024 * 1024 };
const sandbox = new Sandbox();
/** By version. */
const images = new Map<string, { readonly stored: StoredImage; readonly image: Image }>();
const bundles = new Map<string, string>();

const refuse: HostCalls = () => Promise.reject(new Error("nothing is to be asked here"));

function invocationOf(i: number, calls: HostCalls): Invocation {
  const about = JSON.stringify({ goal: { id: "goal" }, task: { id: `task_${i}`, attempt: 1 } });
  return { input: `{"n":${i}}`, about, limits: LIMITS, calls, cutoff: new Cutoff(), timeoutMs: 10_000 };
}

const outputOf = (ended: Ended): string => (ended.outcome === "returned" ? ended.output : JSON.stringify(ended));

async function keep(version: string, stored: StoredImage): Promise<void> {
  const image = { manifest: JSON.parse(stored.manifest) as Manifest, bytes: await unpacked(stored.bytes) };
  images.set(version, { stored, image });
}

/** Builds a version's image and loads it into the pool. */
async function build(version: string, bundle: string): Promise<unknown> {
  const built = await buildImage(bundle, LIMITS);
  if (!built.ok) throw new Error(built.error.detail);
  bundles.set(version, bundle);
  await keep(version, built.value);
  await sandbox.load(version, built.value);
  return { imageBytes: built.value.snapshotBytes };
}

/** So many runs with one call to the upstream each, `lanes` at a time. */
async function runPool(version: string, n: number, lanes: number, upstream: string): Promise<unknown[]> {
  const calls: HostCalls = async (_op, args) => {
    const { request } = JSON.parse(args) as { request: { path: string } };
    const response = await fetch(upstream + request.path);
    return `{"status":${response.status},"headers":{},"body":${await response.text()}}`;
  };
  const outputs: string[] = Array.from({ length: n });
  let next = 0;
  const lane = async (): Promise<void> => {
    while (next < n) {
      const i = next++;
      outputs[i] = outputOf(await sandbox.invoke(version, invocationOf(i, calls)));
    }
  };
  await Promise.all(Array.from({ length: lanes }, lane));
  return outputs.map((output) => JSON.parse(output) as unknown);
}

/** So many invocations, `lanes` at a time, half of them after a moment. */
async function many(version: string, n: number, lanes: number): Promise<{ instances: number; wrong: number }> {
  let next = 0;
  let wrong = 0;
  const lane = async (): Promise<void> => {
    while (next < n) {
      const i = next++;
      if (i % 2 === 0) await new Promise((resolve) => setTimeout(resolve, 0));
      const ended = await sandbox.invoke(version, invocationOf(i, refuse));
      if (ended.outcome !== "returned" || (JSON.parse(ended.output) as { n: number }).n !== i) wrong++;
    }
  };
  await Promise.all(Array.from({ length: lanes }, lane));
  return { instances: sandbox.size.instances, wrong };
}

/** Milliseconds of so many restores of one instance. */
function restore(version: string, n: number): number {
  const instance = new Instance(images.get(version)!.image);
  const startedAtMs = Date.now();
  for (let i = 0; i < n; i++) instance.restore();
  return Date.now() - startedAtMs;
}

/** Milliseconds of so many runs, each after a restore. */
async function restoreAndInvoke(version: string, n: number): Promise<{ ms: number; last: unknown }> {
  const instance = new Instance(images.get(version)!.image);
  let last = "";
  const startedAtMs = Date.now();
  for (let i = 0; i < n; i++) {
    instance.restore();
    last = outputOf(await instance.invoke(invocationOf(i, refuse), LIMITS.cpuMs, () => true));
  }
  return { ms: Date.now() - startedAtMs, last: JSON.parse(last) as unknown };
}

const GUEST = `import handler from "./function.js";
export default { fetch: async (request) => Response.json(await handler(await request.json(), {})) };`;

/** Milliseconds of so many runs, each in a dynamic isolate of its own. */
async function freshIsolates({ LOADER }: Bindings, version: string, n: number): Promise<{ ms: number; last: unknown }> {
  // Without Node.js compatibility, which takes most of the time that a new isolate takes.
  const compatibilityFlags = ["no_nodejs_compat", "no_nodejs_compat_v2", "nodejs_als"];
  const modules = { "guest.js": GUEST, "function.js": bundles.get(version)! };
  let last: unknown;
  const startedAtMs = Date.now();
  for (let i = 0; i < n; i++) {
    const worker = LOADER.load({
      compatibilityDate: "2026-10-13",
      compatibilityFlags,
      mainModule: "guest.js",
      modules,
      globalOutbound: null,
    });
    const answer = await worker.getEntrypoint().fetch("http://guest/", { method: "POST", body: `{"n":${i}}` });
    last = await answer.json();
  }
  return { ms: Date.now() - startedAtMs, last };
}

/** An image as another process takes it: its manifest, a line end, its bytes. */
function exported(version: string): Response {
  const { stored } = images.get(version)!;
  return new Response(new Blob([JSON.stringify({ engineId: stored.engineId, manifest: stored.manifest }), "\n", stored.bytes]));
}

async function imported(body: ArrayBuffer): Promise<StoredImage> {
  const bytes = new Uint8Array(body);
  const end = bytes.indexOf(10);
  const { engineId, manifest } = JSON.parse(new TextDecoder().decode(bytes.subarray(0, end))) as Omit<StoredImage, "bytes">;
  return { engineId, manifest, bytes: bytes.slice(end + 1) };
}

export default {
  async fetch(request: Request, env: Bindings): Promise<Response> {
    const { pathname, searchParams } = new URL(request.url);
    const version = searchParams.get("version") ?? "v";
    const n = Number(searchParams.get("n"));
    switch (pathname) {
      case "/build":
        return Response.json(await build(version, await request.text()));
      case "/pool":
        return Response.json(await runPool(version, n, Number(searchParams.get("lanes")), searchParams.get("upstream")!));
      case "/many":
        return Response.json(await many(version, n, Number(searchParams.get("lanes"))));
      case "/restore":
        return Response.json({ ms: restore(version, n) });
      case "/invoke":
        return Response.json(await restoreAndInvoke(version, n));
      case "/fresh":
        return Response.json(await freshIsolates(env, version, n));
      case "/image":
        return exported(version);
      case "/load":
        await sandbox.load(version, await imported(await request.arrayBuffer()));
        await sandbox.warm(version, n);
        return Response.json({});
      case "/first":
        return new Response(outputOf(await sandbox.invoke(version, invocationOf(n, refuse))));
      case "/load-and-first":
        await sandbox.load(version, await imported(await request.arrayBuffer()));
        return new Response(outputOf(await sandbox.invoke(version, invocationOf(n, refuse))));
      default:
        return new Response("up");
    }
  },
};
