/** A started server collects what calls leave behind before there is much of it, and keeps V8 flags of the user's own. */
import { expect, test } from "vitest";
import { GARBAGE_CALLS } from "../../shared/limits.ts";
import type { GoalView } from "../../shared/protocol/goal.ts";
import { call, goalOf, until } from "./api.ts";
import { useStage } from "./stage.ts";
import { answerAfter } from "./upstream.ts";

// V8 tells of each collection and why it was, in so many words that they do not stay in a buffer; "testing" is its word for one that was asked for.
process.env["MINIFLARE_WORKERD_V8_FLAGS"] = "--trace-gc --trace-gc-verbose";
const ASKED_FOR = /Mark-Compact [^\n]* testing;/;
const stage = useStage(answerAfter(0));

async function makeCalls(count: number): Promise<void> {
  const tasks = Array.from({ length: count }, (_, n) => ({ key: `k${n}`, call: { upstream: "real", path: `/g${n}` } }));
  const { id } = await call<GoalView>(stage.drover, "POST", "/v1/goals", { sealed: true, tasks });
  await until("all have run", async () => (await goalOf(stage.drover, id)).counts.succeeded === count);
}

test("garbage is collected as calls are made, and nobody hears of it", async () => {
  await makeCalls(3 * GARBAGE_CALLS);
  await until("it has been collected", () => ASKED_FOR.test(stage.said));
  // What workerd thinks of V8's flags concerns nobody.
  expect(stage.said).not.toContain("NOSENTRY");
});
