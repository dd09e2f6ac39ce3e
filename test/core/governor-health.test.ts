/** Origins that cannot be reached rest, and while none can, the circuit is open: a probe now and then, nothing else. */
import { expect, test } from "vitest";
import { PROBE_INTERVAL_MS } from "../../shared/limits.ts";
import type { Grant } from "../../shared/protocol/admission.ts";
import { Driver, NO_SAMPLE, origin } from "./governor-harness.ts";

const TWO = { origins: ["http://localhost:1", "http://localhost:2"] };
const sampleOf = (...origins: ReturnType<typeof origin>[]): { sample: typeof NO_SAMPLE } => ({ sample: { ...NO_SAMPLE, origins } });

/** A governor whose only origin has just failed five times. */
function open(d: Driver = new Driver()): Grant {
  d.report("a", 20);
  return d.report("a", 20, sampleOf(origin({ unavailable: 5 })));
}

test("four failures in a row open the circuit, and fewer do not", () => {
  const d = new Driver();
  d.report("a", 20);
  expect(d.report("a", 20, sampleOf(origin({ unavailable: 3 }))).isOpen).toBe(false);
  expect(d.report("a", 20, sampleOf(origin({ unavailable: 1 }))).isOpen).toBe(true);
});

test("an answer in between begins the count anew", () => {
  const d = new Driver();
  d.report("a", 20);
  d.report("a", 20, sampleOf(origin({ unavailable: 3 })));
  d.report("a", 20, sampleOf(origin({ reached: 1, unavailable: 3 })));
  expect(d.report("a", 20, sampleOf(origin({ unavailable: 3 }))).isOpen).toBe(false);
});

test("each failure in a row takes a call away, so that few are wasted", () => {
  const d = new Driver({ maxConcurrency: 20 });
  d.report("a", 20);
  expect(d.report("a", 20, sampleOf(origin({ unavailable: 3 }))).calls).toBe(17);
});

test("refusals open the circuit only where nothing good has come for a while", () => {
  const d = new Driver();
  d.report("a", 20);
  d.report("a", 20, sampleOf(origin({ reached: 1 })));
  d.pass(40);
  expect(d.report("a", 20, sampleOf(origin({ refused: 9 }))).isOpen).toBe(false);
  d.pass(40);
  expect(d.report("a", 20, sampleOf(origin({ refused: 1 }))).isOpen).toBe(true);
});

test("while the circuit is open one call at a time may probe, at most ten times a second, whoever asks", () => {
  const d = new Driver();
  expect(open(d)).toMatchObject({ isOpen: true, calls: 1, starts: 1, origins: [0] });
  d.pass(PROBE_INTERVAL_MS - 1);
  expect(d.report("a", 20)).toMatchObject({ calls: 0, starts: 0 });
  expect(d.report("b", 20)).toMatchObject({ calls: 0, starts: 0 });
  d.pass(1);
  expect(d.report("b", 20)).toMatchObject({ calls: 1, starts: 1 });
  expect(d.report("a", 20)).toMatchObject({ calls: 0, starts: 0 });
});

test("probes keep the rate and the gate", () => {
  const rated = new Driver({ ratePerSecond: 2 });
  open(rated);
  rated.pass(400);
  expect(rated.report("a", 20).starts).toBe(0);
  const gated = new Driver();
  gated.report("a", 20);
  gated.report("a", 20, { sample: { ...NO_SAMPLE, retryAfterMs: 1_000, origins: [origin({ unavailable: 5 })] } });
  gated.pass(999);
  expect(gated.report("a", 20)).toMatchObject({ isOpen: true, starts: 0, gateMs: 1 });
  gated.pass(1);
  expect(gated.report("a", 20).starts).toBe(1);
});

test("calls that hang since before the circuit opened leave room for probes, and maxConcurrency holds", () => {
  const hanging = (max: number): Grant => {
    const d = new Driver({ maxConcurrency: max });
    d.report("a", 6);
    d.report("a", 6, { inUse: 6 });
    d.report("a", 7, { inUse: 6, ...sampleOf(origin({ unavailable: 5 })) });
    d.pass(PROBE_INTERVAL_MS);
    return d.report("a", 9, { inUse: 6 });
  };
  expect(hanging(7)).toMatchObject({ calls: 7, starts: 1 });
  expect(hanging(6)).toMatchObject({ calls: 4, starts: 0 });
});

test("the first answer closes the circuit, and the limit begins at half of what it was", () => {
  const d = new Driver();
  open(d);
  const grant = d.report("a", 100, sampleOf(origin({ reached: 1 })));
  expect(grant).toMatchObject({ isOpen: false, starts: null, calls: 33 });
});

test("an origin that fails rests while others work, and is tried again after a second, then after two", () => {
  const d = new Driver(TWO);
  d.report("a", 20);
  expect(d.report("a", 20, sampleOf(origin({ reached: 5 }), origin({ unavailable: 5 })))).toMatchObject({ isOpen: false, origins: [0] });
  d.pass(999);
  expect(d.report("a", 20).origins).toEqual([0]);
  d.pass(1);
  expect(d.report("a", 20).origins).toBeNull();
  expect(d.report("a", 20, sampleOf(origin({ reached: 1 }), origin({ unavailable: 1 }))).origins).toEqual([0]);
  d.pass(1_999);
  expect(d.report("a", 20).origins).toEqual([0]);
  d.pass(1);
  expect(d.report("a", 20).origins).toBeNull();
});

test("where no origin works they are probed in turn", () => {
  const d = new Driver(TWO);
  d.report("a", 20);
  const first = d.report("a", 20, sampleOf(origin({ unavailable: 5 }), origin({ unavailable: 5 })));
  d.pass(PROBE_INTERVAL_MS);
  expect([first.origins, d.report("a", 20).origins]).toEqual([[0], [1]]);
});

test("other origins have another history", () => {
  const d = new Driver();
  open(d);
  const moved = { ...d.state.upstream!, origins: ["http://localhost:9"] };
  expect(d.report("a", 20, { upstream: moved, version: 2 }).isOpen).toBe(false);
});

test("a Retry-After closes the gate for every client from its next grant on", () => {
  const d = new Driver();
  d.report("a", 5);
  d.report("b", 5);
  expect(d.report("a", 5, { sample: { ...NO_SAMPLE, retryAfterMs: 700 } }).gateMs).toBe(700);
  d.pass(200);
  expect(d.report("b", 5).gateMs).toBe(500);
  d.pass(500);
  expect(d.report("b", 5).gateMs).toBe(0);
});
