/** How many distinct dynamic Workers are in flight, which the platform bounds and workerd does not. */
import { env } from "cloudflare:workers";
import { describe, expect, test } from "vitest";
import { PLATFORM_DYNAMIC_WORKERS_PER_OBJECT_MAX, PLATFORM_DYNAMIC_WORKERS_PER_REQUEST_MAX } from "../../shared/limits.ts";
import { Cutoff } from "../../workers/kit/cutoff.ts";
import { Isolates } from "../../workers/sandbox/index.ts";
import { Slots } from "../../workers/sandbox/isolate/slots.ts";
import { inLostExecutor } from "./host-kit.ts";
import { delay, invocationOf, versionOf } from "./isolate-kit.ts";
import { guard } from "./loader-guard.ts";

const SLOW = "export default (input) => new Promise((done) => setTimeout(() => done(input), 10));";
const LEASE_MS = 60_000;
const never = new Cutoff();

describe("Isolates", () => {
  test.for([PLATFORM_DYNAMIC_WORKERS_PER_REQUEST_MAX, PLATFORM_DYNAMIC_WORKERS_PER_OBJECT_MAX])(
    "keep %i distinct versions in flight, and run all of many",
    async (max) => {
      const { loader, most } = guard(env.LOADER, max);
      const isolates = new Isolates(loader, max);
      const versions = Array.from({ length: 3 * max }, () => versionOf());
      const runs = versions.flatMap((version) => [0, 1, 2].map((n) => isolates.invoke(version, SLOW, invocationOf(n))));
      await delay(5);
      expect(isolates.inFlight).toBe(max);
      const ended = await Promise.all(runs);
      expect(ended.map((end) => (end.outcome === "returned" ? end.output : end.detail))).toEqual(versions.flatMap(() => ["0", "1", "2"]));
      expect(most()).toBe(max);
      expect(isolates.inFlight).toBe(0);
    },
  );

  test("are needed: without them the platform refuses", async () => {
    const { loader } = guard(env.LOADER, 4);
    const careless = new Isolates(loader, 100);
    const ended = await Promise.all(Array.from({ length: 5 }, () => careless.invoke(versionOf(), SLOW, invocationOf(1))));
    expect(ended.map(({ outcome }) => outcome)).toEqual(["returned", "returned", "returned", "returned", "failed"]);
  });

  test("count a version once, however often it is in flight", async () => {
    const { loader, most } = guard(env.LOADER, 1);
    const isolates = new Isolates(loader, 1);
    const version = versionOf();
    await Promise.all(Array.from({ length: 50 }, () => isolates.invoke(version, SLOW, invocationOf(1))));
    expect(most()).toBe(1);
  });

  test("end an invocation that is aborted while it waits for its place", async () => {
    const isolates = new Isolates(env.LOADER, 1);
    const cutoff = new Cutoff();
    const first = isolates.invoke(versionOf(), SLOW, invocationOf("first"));
    const second = isolates.invoke(versionOf(), SLOW, invocationOf("second", { cutoff }));
    cutoff.end("unwanted");
    expect(await second).toMatchObject({ outcome: "failed", code: "canceled" });
    expect(await first).toMatchObject({ outcome: "returned" });
    expect(await isolates.invoke(versionOf(), SLOW, invocationOf("third"))).toMatchObject({ outcome: "returned" });
  });

  test("keep a version warm: its module is evaluated once", async () => {
    const isolates = new Isolates(env.LOADER, 4);
    const bundle = "let calls = 0; export default () => ++calls;";
    const version = versionOf();
    const outputs: string[] = [];
    for (let i = 0; i < 3; i++) {
      const ended = await isolates.invoke(version, bundle, invocationOf(null));
      outputs.push(ended.outcome === "returned" ? ended.output : ended.detail);
    }
    expect(outputs).toEqual(["1", "2", "3"]);
    // Another version of the same text is another isolate.
    expect(await isolates.invoke(versionOf(), bundle, invocationOf(null))).toMatchObject({ output: "1" });
  });
});

describe("Slots", () => {
  test("let nobody pass who came later", async () => {
    const slots = new Slots(1);
    const order: string[] = [];
    const first = await slots.enter("a", LEASE_MS, never);
    const b = Promise.resolve(slots.enter("b", LEASE_MS, never));
    void b.then(() => order.push("b"));
    // "a" has its place, but "b" came before.
    const again = Promise.resolve(slots.enter("a", LEASE_MS, never)).then(() => order.push("a"));
    slots.leave(first!);
    slots.leave((await b)!);
    await again;
    expect(order).toEqual(["b", "a"]);
  });

  test("let those in that waited behind one who gave up", async () => {
    const slots = new Slots(1);
    const cutoff = new Cutoff();
    await slots.enter("a", LEASE_MS, never);
    const b = slots.enter("b", LEASE_MS, cutoff);
    const again = slots.enter("a", LEASE_MS, never);
    cutoff.end("gave up");
    expect(await b).toBeNull();
    expect(await again).not.toBeNull();
    expect(slots.inFlight).toBe(1);
  });

  test("give up the places of requests that the platform ended, and those who waited there", async () => {
    const slots = new Slots(2);
    await inLostExecutor(async () => {
      for (const id of ["a", "b", "c", "d", "e"]) void slots.enter(id, 100, never);
    });
    const place = await slots.enter("f", LEASE_MS, never);
    expect(slots.inFlight).toBeLessThanOrEqual(2);
    await delay(600);
    const other = await slots.enter("g", LEASE_MS, never);
    expect(slots.inFlight).toBe(2);
    for (const one of [place, other]) slots.leave(one!);
    expect(slots.inFlight).toBe(0);
  });
});
