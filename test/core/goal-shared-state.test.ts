/** The goal's shared state: versions, guards, bounds, and what a new incarnation finds. */
import { expect, test } from "vitest";
import type { WriteState } from "../../durable-objects/goal/core/shared-state.ts";
import { STATE_BYTES_MAX, STATE_KEYS_MAX } from "../../shared/limits.ts";
import { Driver, durable } from "./goal-harness.ts";

/** The version, or the code of the failure. */
function write(d: Driver, key: string, value: string | null, over: Partial<WriteState> = {}): number | string {
  const reply = d.do({ kind: "write-state", key, value, bytes: value?.length ?? 0, ifVersion: null, lock: null, ...over });
  return reply.ok ? reply.value.version! : reply.error.code;
}

const locked = (d: Driver, holder: string, ttlMs = 1_000): number => {
  const ask = { name: "l", mode: "exclusive", permits: 0, holder, ttlMs, waitMs: 0, owner: null } as const;
  const reply = d.do({ kind: "acquire-lock", ask });
  return (reply as { value: { lock: { granted: { fence: number } } } }).value.lock.granted.fence;
};

test("of two writers that read the same version, one writes", () => {
  const d = new Driver();
  expect(write(d, "k", "1", { ifVersion: 0 })).toBe(1);
  expect(write(d, "k", "2", { ifVersion: 0 })).toBe("stale_version");
  expect([write(d, "k", "2", { ifVersion: 1 }), write(d, "k", "3", { ifVersion: 1 })]).toEqual([2, "stale_version"]);
  expect(durable(d.replayed())).toEqual(durable(d.state));
});

test("a key that was deleted and made again never has an old version", () => {
  const d = new Driver();
  const first = write(d, "k", "1");
  expect(write(d, "k", null, { ifVersion: 7 })).toBe("stale_version");
  write(d, "k", null);
  expect(write(d, "k", null)).toBe("not_found");
  expect(write(d, "k", "1", { ifVersion: 0 })).not.toBe(first);
  expect(d.state.shared.bytes).toBe(1);
});

test("a write under a fence is refused once the lock has another holder, or none", () => {
  const d = new Driver();
  const paused = locked(d, "a");
  const under = (fence: number) => ({ lock: { name: "l", fence, scope: "goal" } }) as const;
  expect(write(d, "k", "1", under(paused))).toBe(1);
  d.passMs(1_000);
  expect(write(d, "k", "2", under(paused))).toBe("stale_fence");
  const next = locked(d, "b");
  expect([write(d, "k", "2", under(paused)), write(d, "k", "3", under(next))]).toEqual(["stale_fence", 2]);
  expect(write(d, "k", "4", { lock: { name: "other", fence: next, scope: "goal" } })).toBe("stale_fence");
  expect(write(d, "k", "4", { lock: { name: "l", fence: next, scope: "tenant" } })).toBe("stale_fence");
});

test("a goal keeps so many keys and so many bytes, and a smaller value makes room", () => {
  const d = new Driver();
  expect(write(d, "big", "x", { bytes: STATE_BYTES_MAX })).toBe(1);
  expect(write(d, "more", "x", { bytes: 1 })).toBe("quota_exceeded");
  expect(write(d, "big", "x", { bytes: 1 })).toBe(2);
  for (let i = 1; i < STATE_KEYS_MAX; i++) d.state.shared.entries.set(`k${i}`, { version: 1, bytes: 0 });
  expect([write(d, "more", "x"), write(d, "big", "y")]).toEqual(["quota_exceeded", 3]);
});

test("an ended goal takes no more writes", () => {
  const d = new Driver();
  d.do({ kind: "cancel" });
  expect(write(d, "k", "1")).toBe("goal_ended");
});
