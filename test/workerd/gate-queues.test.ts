/** The order in which a gate gives its permits: to those who wait, and only then to second tries. */
import { expect, test } from "vitest";
import { Queues, type Visitor } from "../../durable-objects/gate/queues.ts";
import { parseUpstream } from "../../shared/protocol/upstream.ts";
import { generous } from "./goal-kit.ts";

const GATE = "gate";
const parsed = parseUpstream("u", { origin: "http://a:1", hedge: { quantile: 0.95, budgetPercent: 50 } });
if (!parsed.ok) throw new Error(JSON.stringify(parsed.error));
const UPSTREAM = parsed.value;

const visitor = (): Visitor => ({ untilMs: Date.now() + 60_000, avoid: [], queue: null, place: null, resolve: null });

/** Visitors by name, and who has a permit, in the order of getting it. */
function gateOf(calls: number) {
  const exchange = generous({ calls, hedgeAfterMs: 50 });
  const queues = new Queues((_upstream, report) => exchange(report));
  const visitors = new Map<string, Visitor>();
  const served: string[] = [];
  return {
    served,
    enter(name: string, isSecond = false): void {
      const one = visitor();
      visitors.set(name, one);
      const opening = isSecond ? queues.second(GATE, one, UPSTREAM, 1) : queues.join(GATE, one, UPSTREAM, 1);
      void opening.then(({ ok }) => served.push(ok ? name : `not ${name}`));
    },
    leave: (name: string): void => queues.leave(visitors.get(name)!, { outcome: "answered", status: 200, ms: 1, retryAfterMs: 0 }),
  };
}

const settled = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 30));

test("a second try waits for a permit that no other call wants", async () => {
  const { enter, leave, served } = gateOf(1);
  enter("call");
  await settled();
  enter("second", true);
  enter("next call");
  await settled();
  expect(served).toEqual(["call"]);
  leave("call");
  await settled();
  expect(served).toEqual(["call", "next call"]);
  leave("next call");
  await settled();
  expect(served).toEqual(["call", "next call", "second"]);
});

test("where calls wait nothing is made a second time, and a second try that is not wanted any more takes nothing", async () => {
  const { enter, leave, served } = gateOf(1);
  for (const name of ["call", "next call"]) enter(name);
  await settled();
  enter("second", true);
  await settled();
  expect(served).toEqual(["call", "not second"]);
  leave("call");
  await settled();
  enter("another second", true);
  leave("another second");
  await settled();
  leave("next call");
  enter("last call");
  await settled();
  expect(served).toEqual(["call", "not second", "next call", "not another second", "last call"]);
});
