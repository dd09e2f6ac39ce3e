/** Instances of the snapshot engine: how many there are, who gets them, and what becomes of those that nobody gives back. */
import { expect, test } from "vitest";
import { SANDBOX_GROWN_BYTES_MAX, SANDBOX_INSTANCES_BYTES_MAX } from "../../shared/limits.ts";
import { Cutoff } from "../../workers/kit/cutoff.ts";
import { buildImage, Sandbox } from "../../workers/sandbox/index.ts";
import { Instance } from "../../workers/sandbox/snapshot/instance.ts";
import { Instances, Shelf } from "../../workers/sandbox/snapshot/instances.ts";
import { type Manifest, unpacked } from "../../workers/sandbox/snapshot/manifest.ts";
import type { HostCalls, Invocation } from "../../workers/sandbox/types.ts";
import type { Ended } from "../../shared/protocol/function.ts";
import { inLostExecutor } from "./host-kit.ts";
import { delay, invocationOf, LIMITS } from "./isolate-kit.ts";

const MIB = 1024 * 1024;
/** Waits for the host, holding as many MiB as it is told. */
const HOLDING = `export default async (mib, ctx) => {
  const held = new Uint8Array(mib * 1024 * 1024).fill(1);
  await ctx.call("slow");
  return held.length;
};`;
/** Allocates once it has been answered, when others have begun too. */
const GROWING = `export default async (mib, ctx) => {
  await ctx.lock("turn");
  const held = new Uint8Array(mib * 1024 * 1024).fill(1);
  await ctx.call("slow");
  return held.length;
};`;
const NEVER: HostCalls = () => new Promise(() => undefined);

type Invoke = (version: string, input?: unknown, more?: Partial<Invocation>) => Promise<Ended>;

async function sandboxWith(versions: Readonly<Record<string, string>>, memoryBytes = LIMITS.memoryBytes): Promise<[Sandbox, Invoke]> {
  const sandbox = new Sandbox();
  for (const [name, bundle] of Object.entries(versions)) {
    const built = await buildImage(bundle, { ...LIMITS, memoryBytes: name === "large" ? 64 * MIB : memoryBytes });
    if (!built.ok) throw new Error(built.error.detail);
    await sandbox.load(name, built.value);
  }
  return [sandbox, (version, input = 0, more = {}) => sandbox.invoke(version, invocationOf(input, more))];
}

/** A host whose calls wait until they are let go, the oldest first. */
function gated(): {
  readonly calls: HostCalls;
  open: number;
  most: number;
  letGo(): Promise<void>;
  letAllGo(ends: readonly Promise<Ended>[]): Promise<Ended[]>;
} {
  const waiting: (() => void)[] = [];
  const gate = {
    open: 0,
    most: 0,
    async calls(op: string) {
      if (op === "lock") return "{}";
      gate.most = Math.max(gate.most, ++gate.open);
      await new Promise<void>((resolve) => waiting.push(resolve));
      gate.open--;
      return "{}";
    },
    async letGo() {
      waiting.shift()?.();
      await delay(5);
    },
    async letAllGo(ends: readonly Promise<Ended>[]) {
      const going = setInterval(() => void gate.letGo(), 5);
      return Promise.all(ends).finally(() => clearInterval(going));
    },
  };
  return gate;
}

test("whoever waits for an instance gets one, although the last one of its function was thrown away and others have all the rest", async () => {
  const hostile = "export default (isHostile) => { while (isHostile); return 1; };";
  const [, invoke] = await sandboxWith({ held: HOLDING, hostile });
  const cutoff = new Cutoff();
  const waiting = Array.from({ length: 20 }, () => invoke("held", 0, { calls: NEVER, cutoff }));
  const limits = { ...LIMITS, cpuMs: 100 };
  const ended = await Promise.all([true, true, false].map((isHostile) => invoke("hostile", isHostile, { limits })));
  expect(ended.map(({ outcome }) => outcome)).toEqual(["failed", "failed", "returned"]);
  cutoff.end("over");
  expect((await Promise.all(waiting)).every(({ outcome }) => outcome === "failed")).toBe(true);
});

test("instances of requests that the platform ended are given up, and so is whoever waited there", async () => {
  const [sandbox, invoke] = await sandboxWith({ f: HOLDING });
  await inLostExecutor(async () => {
    for (let i = 0; i < 100; i++) void invoke("f", 0, { calls: NEVER, timeoutMs: 100 });
    await delay(20);
  });
  const { instances } = sandbox.size;
  expect(instances).toBeGreaterThan(20);
  // Nobody but this one is there to see it.
  expect(await invoke("f")).toMatchObject({ outcome: "returned" });
  await delay(1_500);
  await Promise.all(Array.from({ length: instances }, () => invoke("f")));
  expect(sandbox.size.instanceBytes).toBeLessThanOrEqual(SANDBOX_INSTANCES_BYTES_MAX);
});

test("whoever waited, and does not come for what it is handed, has it for a moment only", async () => {
  const built = await buildImage(HOLDING, LIMITS);
  if (!built.ok) throw new Error(built.error.detail);
  const shelf = new Shelf({ manifest: JSON.parse(built.value.manifest) as Manifest, bytes: await unpacked(built.value.bytes) });
  const instances = new Instances();
  const cutoff = new Cutoff();
  const all: Instance[] = [];
  for (let taken = instances.take(shelf, 60_000, cutoff); taken instanceof Instance; taken = instances.take(shelf, 60_000, cutoff)) {
    all.push(taken);
  }
  // Stands in line before those that come later, and is not there any more.
  let handed = 0;
  for (let i = 0; i < all.length; i++) instances.lineOf(shelf, 60_000).enter(() => handed++);
  const later = instances.take(shelf, 60_000, cutoff);
  for (const instance of all) instances.giveBack(shelf, instance, true);
  expect(handed).toBe(all.length - 1);
  expect(await later).toBeInstanceOf(Instance);
});

test("an instance that comes back after it was given up is not used again, nor counted twice", async () => {
  const [sandbox, invoke] = await sandboxWith({ f: HOLDING });
  const late = gated();
  const all = Array.from({ length: 40 }, () => invoke("f", 0, { calls: late.calls, timeoutMs: 1 }));
  await delay(20);
  const begun = late.open;
  await delay(1_600);
  expect(await invoke("f")).toMatchObject({ outcome: "returned" });
  expect((await late.letAllGo(all)).map(({ outcome }) => outcome)).toEqual(Array.from({ length: 40 }, () => "returned"));
  await delay(5);
  // Those are left that were made since.
  expect(sandbox.size.instances).toBeLessThanOrEqual(41 - begun);
  expect(sandbox.size.instanceBytes).toBeLessThanOrEqual((41 - begun) * 2 * MIB);
});

test("what runs have allocated is counted, and no more of them run at once than there is memory for", async () => {
  const [sandbox, invoke] = await sandboxWith({ f: GROWING });
  const first = gated();
  const all = Array.from({ length: 12 }, () => invoke("f", 10, { calls: first.calls }));
  await delay(50);
  expect(sandbox.size.instanceBytes).toBeGreaterThan(50 * MIB);
  expect(sandbox.size.instanceBytes).toBeLessThanOrEqual(SANDBOX_GROWN_BYTES_MAX);
  const ended = await first.letAllGo(all);
  // Those for which there was no room may be tried again.
  const codes = ended.map((each) => (each.outcome === "returned" ? "returned" : each.code));
  expect(codes.filter((code) => code === "returned").length).toBeGreaterThan(3);
  expect(codes.filter((code) => code !== "returned")).toContain("temporary_reduced_capacity");
  // By now it is known what they take, so they wait for one another.
  const second = gated();
  const again = await second.letAllGo(Array.from({ length: 12 }, () => invoke("f", 10, { calls: second.calls })));
  expect(again.map(({ outcome }) => outcome)).toEqual(Array.from({ length: 12 }, () => "returned"));
  expect(second.most * 11 * MIB).toBeLessThanOrEqual(SANDBOX_INSTANCES_BYTES_MAX);
  expect(sandbox.size.instanceBytes).toBeLessThan(10 * MIB);
});

test("a run that is alone may allocate all that its version is allowed, whatever others leave behind", async () => {
  const [sandbox, invoke] = await sandboxWith({ small: HOLDING, large: HOLDING });
  await sandbox.warm("small", 30);
  expect(sandbox.size.instances).toBe(30);
  expect(await invoke("large", 60)).toMatchObject({ outcome: "returned", output: `${60 * MIB}` });
  await delay(5);
  expect(sandbox.size.instanceBytes).toBeLessThanOrEqual(SANDBOX_INSTANCES_BYTES_MAX);
});

test("versions that wait share the instances, however many tasks each has and whoever came first", async () => {
  const [, invoke] = await sandboxWith({ first: HOLDING, second: HOLDING });
  const [first, second] = [gated(), gated()];
  const cutoff = new Cutoff();
  const all = ["first", "second"].flatMap((version) => {
    const { calls } = version === "first" ? first : second;
    return Array.from({ length: 100 }, () => invoke(version, 0, { calls, cutoff }));
  });
  await delay(20);
  expect(second.open).toBe(0);
  const capacity = first.open;
  for (let i = 0; i < capacity; i++) await first.letGo();
  expect(Math.abs(first.open - second.open)).toBeLessThanOrEqual(1);
  expect(first.open + second.open).toBeGreaterThanOrEqual(capacity - 1);
  cutoff.end("over");
  await Promise.all(all);
});

test("a version whose runs are large gets room for one, although small ones of another would fit in at once", async () => {
  const [, invoke] = await sandboxWith({ small: HOLDING, large: HOLDING });
  const [small, large] = [gated(), gated()];
  const cutoff = new Cutoff();
  const all = Array.from({ length: 100 }, () => invoke("small", 0, { calls: small.calls, cutoff }));
  await delay(20);
  const capacity = small.open;
  all.push(invoke("large", 40, { calls: large.calls, cutoff }));
  for (let i = 0; i < capacity && large.open === 0; i++) await small.letGo();
  expect(large.open).toBe(1);
  // The small ones have the rest meanwhile.
  expect(small.open).toBeGreaterThan(0);
  cutoff.end("over");
  await Promise.all(all);
});
