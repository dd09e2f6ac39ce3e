/** After how long a governor lets calls be hedged, and when it lets none be. */
import { expect, test } from "vitest";
import { LIMIT_WINDOW_MS } from "../../shared/limits.ts";
import { HEDGE_CALLS_MIN, HEDGE_REST_MS } from "../../shared/limits-hedging.ts";
import { bucketOf } from "../../shared/policy/histogram.ts";
import type { Report } from "../../shared/protocol/admission.ts";
import type { Upstream } from "../../shared/protocol/upstream.ts";
import { Driver, NO_SAMPLE, origin } from "./governor-harness.ts";

const hedge = { quantile: 0.95, budgetPercent: 5 };

/** What a report says of calls that took so long, each. */
function calls(...latencies: readonly number[]): Pick<Report, "sample"> {
  const sumMs = latencies.reduce((sum, ms) => sum + ms, 0);
  const answered = latencies.length;
  return {
    sample: {
      ...NO_SAMPLE,
      answered,
      sumMs,
      origins: [origin({ reached: answered })],
      latencies: latencies.flatMap((ms) => [bucketOf(ms), 1]),
    },
  };
}
const times = (count: number, ms: number): number[] => Array.from({ length: count }, () => ms);

/** A governor that has seen calls of 20 ms, one in fifty of which took a second. */
function governor(over: Partial<Upstream> = {}): Driver {
  const d = new Driver({ hedge, ...over });
  d.report("a-1", 10);
  for (let i = 0; i < 4; i++) {
    d.pass(LIMIT_WINDOW_MS);
    d.report("a-1", 10, calls(...times(98, 20), ...times(2, 1_000)));
  }
  return d;
}

test("calls are hedged once they take longer than 95 in a hundred did, and not before enough have been seen", () => {
  const d = new Driver({ hedge });
  expect(d.report("a-1", 10, calls(...times(HEDGE_CALLS_MIN - 1, 20))).hedgeAfterMs).toBeNull();
  const afterMs = d.report("a-1", 10, calls(20)).hedgeAfterMs!;
  // A whole bucket above, or half of those in it would be slow.
  expect([afterMs > 20, afterMs <= 20 * 1.1 + 1]).toEqual([true, true]);
  expect(governor().report("a-1", 10).hedgeAfterMs).toBe(afterMs);
  expect(governor({ hedge: { quantile: 0.99, budgetPercent: 5 } }).report("a-1", 10).hedgeAfterMs).toBeGreaterThan(1_000);
});

test("nothing is hedged at an upstream that does not say so", () => {
  expect(governor({ hedge: null }).report("a-1", 10).hedgeAfterMs).toBeNull();
});

test("permits that are short because the upstream declares no more stop hedging, until they are not", () => {
  const d = governor({ maxConcurrency: 8 });
  expect(d.report("a-1", 8).hedgeAfterMs).not.toBeNull();
  expect(d.report("a-1", 9).hedgeAfterMs).toBeNull();
  expect(d.report("a-1", 4).hedgeAfterMs).not.toBeNull();
  expect(d.report("b-1", 5).hedgeAfterMs).toBeNull();
});

test("an upstream where calls wait for one another stops hedging; a few that are slow do not", () => {
  const d = governor();
  expect(d.report("a-1", 5_000).hedgeAfterMs).not.toBeNull();
  d.report("a-1", 5_000, calls(...times(3_000, 150)));
  expect(d.report("a-1", 5_000).hedgeAfterMs).toBeNull();
  // With little to do, slow calls are no sign of a queue.
  expect(d.report("a-1", 5).hedgeAfterMs).toBeGreaterThanOrEqual(150);
});

test("a refusal, a gate and an open circuit stop hedging for a while", () => {
  const refused = governor();
  expect(refused.report("a-1", 10, { sample: { ...NO_SAMPLE, origins: [origin({ refused: 1 })] } }).hedgeAfterMs).toBeNull();
  refused.pass(HEDGE_REST_MS - 1);
  expect(refused.report("a-1", 10).hedgeAfterMs).toBeNull();
  refused.pass(1);
  expect(refused.report("a-1", 10).hedgeAfterMs).not.toBeNull();
  const gated = governor();
  expect(gated.report("a-1", 10, { sample: { ...NO_SAMPLE, retryAfterMs: 500 } }).hedgeAfterMs).toBeNull();
  const down = governor();
  expect(down.report("a-1", 10, { sample: { ...NO_SAMPLE, origins: [origin({ unavailable: 5 })] } })).toMatchObject({
    isOpen: true,
    hedgeAfterMs: null,
  });
});

test("a rate that is used up stops hedging", () => {
  const d = governor({ ratePerSecond: 100 });
  d.pass(1_000);
  expect(d.report("a-1", 4).hedgeAfterMs).not.toBeNull();
  expect(d.report("a-1", 100).starts).toBeGreaterThan(0);
  expect(d.report("a-1", 100, { inUse: 11 }).hedgeAfterMs).toBeNull();
});
