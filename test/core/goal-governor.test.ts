/** A goal and a governor together, both as they are: what a rate allows is started, no more and no less. */
import { expect, test } from "vitest";
import { newGovernor } from "../../durable-objects/governor/core/state.ts";
import { type Out, step as governorStep } from "../../durable-objects/governor/core/step.ts";
import { RATE_SLICE_MS } from "../../shared/limits.ts";
import { Driver, get, START_MS, upstream } from "./goal-harness.ts";

/** Small integers that look like chance and are the same in every run. */
function numbers(seed: number): () => number {
  let state = seed;
  return () => (state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0) >>> 16;
}

test.for([10, 33, 1_000])("at %s a second, no sliding second starts more than that and one slice of 150 ms", (ratePerSecond) => {
  const d = new Driver({
    tasks: Array.from({ length: 3_000 }, () => get()),
    upstreams: [upstream({ ratePerSecond })],
    governor: "by hand",
  });
  const governor = newGovernor(null, "", START_MS);
  const starts: number[] = [];
  const next = numbers(ratePerSecond);
  const most = Math.min(3_000, ratePerSecond * 5);
  const send = (): void => {
    for (const { tasks } of d.dispatch()) {
      for (const task of tasks) {
        starts.push(d.nowMs);
        d.settle([task]);
      }
    }
  };
  for (let turn = 0; turn < 20_000 && starts.length < most; turn++) {
    send();
    // One message each way, and what the governor says by itself, without delay: what is allowed is started at once.
    const report = d.reports.pop();
    const out: Out = { keep: null, pushes: [] };
    const grant = governorStep(governor, d.nowMs, report === undefined ? { kind: "tick" } : { kind: "report", report, chance: 0.5 }, out);
    for (const each of [...(grant === null ? [] : [grant]), ...out.pushes.map((push) => push.grant)]) d.take(each);
    send();
    d.nowMs += 1 + (next() % 20);
  }
  const allowed = ratePerSecond + Math.max(1, (ratePerSecond * RATE_SLICE_MS) / 1_000);
  let from = 0;
  for (let to = 0; to < starts.length; to++) {
    while (starts[from]! <= starts[to]! - 1_000) from++;
    expect(to - from + 1).toBeLessThanOrEqual(allowed);
  }
  expect(starts.length).toBeGreaterThanOrEqual(most);
  // And it is used: a limiter that never opens would pass the above.
  expect(starts.at(-1)! - starts[0]!).toBeLessThan((starts.length / ratePerSecond) * 1_000 * 1.2 + 100);
});
