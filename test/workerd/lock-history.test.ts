/** 200 contenders on real locks, whose shards are aborted again and again: what they saw could have happened one after another. */
import { abortAllDurableObjects } from "cloudflare:test";
import { expect, test } from "vitest";
import { brokenLocks, type LockInput, type LockOutput, type Operation } from "../core/linearizability.ts";
import { call } from "./edge-kit.ts";
import { delay } from "./goal-kit.ts";

const NAMES = ["h1", "h2", "h3", "h4"];
const CONTENDERS = 200;
const ROUNDS = 2;

type Op = Operation<LockInput, LockOutput>;

async function said(method: string, name: string, body: object): Promise<Response | null> {
  const headers = { "content-type": "application/json", prefer: "wait=20" };
  const answer = await call(method, `/v1/locks/${name}`, { body: JSON.stringify(body), headers }).catch(() => null);
  return answer === null || answer.status >= 500 ? null : answer;
}

/** Acquires and releases some times; what is not answered is asked again, as another operation. */
async function contend(name: string, holder: string, ops: Op[], now: () => number): Promise<void> {
  for (let round = 0; round < ROUNDS; round++) {
    let fence: number | null = null;
    for (let tries = 0; fence === null && tries < 20; tries++) {
      const begun = now();
      const answer = await said("PUT", name, { holder, ttlMs: 600_000 });
      if (answer?.status === 200) ({ fence } = await answer.json<{ fence: number }>());
      const output = answer === null ? null : (fence ?? "held");
      ops.push({ call: begun, ret: output === null ? Infinity : now(), input: { kind: "acquire", holder, waits: true }, output });
    }
    let isRepeated = false;
    for (let isFree = fence === null; !isFree;) {
      const begun = now();
      const answer = await said("DELETE", name, { fence });
      // A release that is said again is taken again, and has no effect then: only the first tells something.
      const isKnown = answer?.status === 204 && !isRepeated;
      isRepeated = true;
      ops.push({
        call: begun,
        ret: isKnown ? now() : Infinity,
        input: { kind: "release", holder, fence: fence! },
        output: isKnown ? "released" : null,
      });
      isFree = answer !== null;
    }
  }
}

test("the history of 200 contenders on real locks, through crashes, is linearizable", async () => {
  let ticks = 0;
  const now = (): number => ++ticks;
  const history = new Map(NAMES.map((name) => [name, [] as Op[]]));
  const all = Array.from({ length: CONTENDERS }, (_, i) => contend(NAMES[i % 4]!, `h${i}`, history.get(NAMES[i % 4]!)!, now));
  for (let crash = 0; crash < 3; crash++) {
    await delay(150);
    await abortAllDurableObjects();
  }
  await Promise.all(all);
  expect([...history.values()].flat().filter(({ output }) => typeof output === "number").length).toBeGreaterThan(CONTENDERS);
  expect(brokenLocks(history)).toEqual([]);
}, 120_000);
