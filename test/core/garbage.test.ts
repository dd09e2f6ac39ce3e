/** When garbage is collected, by the calls that leave it and by the time that it takes. */
import { expect, test } from "vitest";
import { GARBAGE_CALLS, GARBAGE_TIME_SHARE } from "../../shared/limits.ts";
import { Garbage } from "../../workers/kit/garbage.ts";

const SECOND_MS = 1_000;

/** A collector that takes so long, and a clock that only it moves, but for `passed`. */
function collectorOf(tookMs: number) {
  let nowMs = 0;
  let collected = 0;
  const collect = (): void => {
    collected++;
    nowMs += tookMs;
  };
  const garbage = new Garbage(collect, () => nowMs);
  return {
    call(times: number): number {
      for (let i = 0; i < times; i++) garbage.called();
      return collected;
    },
    pass: (ms: number): void => void (nowMs += ms),
  };
}

test("garbage is collected once for so many calls", () => {
  const { call, pass } = collectorOf(0);
  expect(call(GARBAGE_CALLS - 1)).toBe(0);
  expect(call(1)).toBe(1);
  pass(SECOND_MS);
  expect(call(GARBAGE_CALLS - 1)).toBe(1);
  expect(call(1)).toBe(2);
});

test("a collection that takes long is followed by none before its share of the time is over", () => {
  const tookMs = 200;
  const { call, pass } = collectorOf(tookMs);
  call(GARBAGE_CALLS);
  pass(tookMs / GARBAGE_TIME_SHARE - 1);
  expect(call(3 * GARBAGE_CALLS)).toBe(1);
  pass(1);
  expect(call(1)).toBe(2);
  // What was called meanwhile is gone too, and counts for nothing.
  pass(SECOND_MS * SECOND_MS);
  expect(call(GARBAGE_CALLS - 1)).toBe(2);
});
