/**
 * What the runtime does to calls between objects: overload, lost connections,
 * streams that break. A real goal on real storage, with an executor and a
 * tenant that fail as the runtime makes them fail.
 */
import { expect, test, vi } from "vitest";
import { WATCHDOG_MS } from "../../shared/limits.ts";
import type { TenantRpc } from "../../shared/rpc.ts";
import type { Batch, BatchReply } from "../../shared/rpc-batch.ts";
import { allAnswered, answered, create, delay, inLaboratory, marked, REGISTRY, type Run, until, viewOf } from "./goal-kit.ts";

// Broken batches are logged, and these tests break many.
vi.spyOn(console, "warn").mockImplementation(() => undefined);

const gets = (count: number): object[] =>
  Array.from({ length: count }, (_, n) => ({ key: `k${n}`, call: { upstream: "real", path: `/${n}` } }));
const posts = (count: number): object[] =>
  Array.from({ length: count }, (_, n) => ({ key: `p${n}`, call: { upstream: "real", method: "POST", path: `/${n}` } }));

/** An executor that does `fault` for the first `times` batches, and works afterwards. Counts attempts by task. */
function failing(times: number, fault: Run): { run: Run; batches: { atMs: number; batch: Batch }[]; answers: Map<number, number> } {
  const batches: { atMs: number; batch: Batch }[] = [];
  const answers = new Map<number, number>();
  const run: Run = async (batch) => {
    batches.push({ atMs: Date.now(), batch });
    if (batches.length <= times) return fault(batch);
    for (const { task } of batch.items) answers.set(task, (answers.get(task) ?? 0) + 1);
    return allAnswered(batch);
  };
  return { run, batches, answers };
}

const overloaded: Run = () => Promise.reject(marked("Durable Object is overloaded.", { overloaded: true, retryable: true }));
const disconnected: Run = () => Promise.reject(marked("Network connection lost.", { retryable: true }));

test("an overloaded executor is left alone for a while, and no task is lost or called poison", async () => {
  const { run, batches, answers } = failing(3, overloaded);
  await inLaboratory({ run }, async (goal, id) => {
    await create(goal, id, gets(24));
    await delay(300);
    // 24 tasks make four batches at most, and none is offered again at once.
    expect(batches.length).toBeLessThanOrEqual(4);
    await until("all are done", async () => (await viewOf(goal)).counts.succeeded === 24);
  });
  expect([...answers.values()]).toEqual(Array.from({ length: 24 }, () => 1));
});

test("an executor that cannot be reached for a while makes no task poison", async () => {
  const { run, answers } = failing(5, disconnected);
  await inLaboratory({ run }, async (goal, id) => {
    await create(goal, id, gets(6));
    await until("all are done", async () => (await viewOf(goal)).counts.succeeded === 6);
  });
  expect([...answers.values()]).toEqual([1, 1, 1, 1, 1, 1]);
});

test("a task that resets its executor again and again is poison, though the runtime calls that overload", async () => {
  const { run, batches } = failing(99, () =>
    Promise.reject(marked("exceeded its memory limit", { overloaded: true, durableObjectReset: true })),
  );
  await inLaboratory({ run }, async (goal, id) => {
    await create(goal, id, gets(1), true);
    await until("the goal is over", async () => (await viewOf(goal)).status === "failed");
  });
  expect(batches).toHaveLength(3);
});

test("a batch that was lost on the way is run again, each task once more", async () => {
  const { run, batches, answers } = failing(1, disconnected);
  await inLaboratory({ run }, async (goal, id) => {
    await create(goal, id, gets(6));
    await until("all are done", async () => (await viewOf(goal)).counts.succeeded === 6);
  });
  expect([...answers.values()]).toEqual([1, 1, 1, 1, 1, 1]);
  expect(batches.flatMap(({ batch }) => batch.items.map(({ attempt }) => attempt))).toEqual([1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2]);
});

test.for([
  ["lost on the way", disconnected],
  ["refused for overload", overloaded],
] as const)("a call that must not be repeated is not, when its batch was %s", async ([, fault]) => {
  const { run, answers } = failing(1, fault);
  await inLaboratory({ run }, async (goal, id) => {
    await create(goal, id, posts(2));
    await delay(300);
    expect((await viewOf(goal)).counts).toMatchObject({ running: 2, succeeded: 0 });
    expect(answers.size).toBe(0);
    // What the executor says after all still counts.
    await goal.settle(lineOfFirst(id));
    expect((await viewOf(goal)).counts).toMatchObject({ running: 1, succeeded: 1 });
  });
});

const lineOfFirst = (goalId: string): string =>
  answered(
    {
      goalId,
      traceId: "",
      origin: "",
      headers: {},
      lanes: 1,
      permitMs: null,
      tokensPointer: null,
      items: [{ task: 0, taskId: "", attempt: 1, method: "", path: "", timeoutMs: 0 }],
    },
    0,
  );

const control = { abort: () => undefined, renew: () => undefined, stop: () => undefined };
const encoder = new TextEncoder();

/** Tells of the first two tasks and a part of the third, then breaks. */
function breaksMidway(batch: Batch): BatchReply {
  let pulls = 0;
  const rest = new ReadableStream<Uint8Array>({
    pull(controller) {
      if (pulls++ === 0) controller.enqueue(encoder.encode(answered(batch, 1) + answered(batch, 2).slice(0, 10)));
      else controller.error(marked("Network connection lost.", { retryable: true, durableObjectReset: true }));
    },
  });
  return { first: answered(batch, 0), rest, control };
}

test("of a report that breaks in the middle of a line the whole lines count, and the other tasks run again", async () => {
  const { run, answers } = failing(1, async (batch) => breaksMidway(batch));
  await inLaboratory({ run }, async (goal, id) => {
    await create(goal, id, gets(6), true);
    await until("the goal is done", async () => (await viewOf(goal)).status === "succeeded");
    expect((await viewOf(goal)).counts).toMatchObject({ succeeded: 6, total: 6 });
  });
  expect(answers).toEqual(new Map([2, 3, 4, 5].map((task) => [task, 1])));
});

test("a result that is reported twice, or for an older attempt, settles nothing twice", async () => {
  const run: Run = async (batch) => allAnswered(batch) + allAnswered(batch);
  await inLaboratory({ run }, async (goal, id) => {
    await create(goal, id, gets(6));
    await until("all are done", async () => (await viewOf(goal)).counts.succeeded === 6);
    await goal.settle(lineOfFirst(id));
    const view = await viewOf(goal);
    expect(view.counts).toMatchObject({ succeeded: 6, total: 6 });
    expect(view.budget.spent).toEqual({ tasks: 6, calls: 6, tokens: 0, costMicros: 0 });
  });
});

test("a tenant that is overloaded is told again later, at the watchdog's pace, and the goal ends all the same", async () => {
  let told = 0;
  const report: TenantRpc["report"] = async ({ endedAtMs }) => {
    if (endedAtMs === null) return null;
    told++;
    if (told === 1) throw marked("Durable Object is overloaded.", { overloaded: true });
    return null;
  };
  await inLaboratory({ run: async (batch) => allAnswered(batch), tenant: { report } }, async (goal, id) => {
    await create(goal, id, gets(6), true);
    await until("the goal is done", async () => (await viewOf(goal)).status === "succeeded");
    await delay(200);
    expect(told).toBe(1);
    await delay(WATCHDOG_MS / 2);
    await goal.alarm();
    await until("the tenant was told", () => told === 2);
    await goal.alarm();
    await delay(50);
    expect(told).toBe(2);
  });
});

test("a goal is not made where the tenant cannot say which upstreams there are, and is where it can again", async () => {
  let asked = 0;
  const registry: TenantRpc["registry"] = async () => {
    if (asked++ === 0) throw marked("Durable Object is overloaded.", { overloaded: true });
    return REGISTRY;
  };
  await inLaboratory({ run: async (batch) => allAnswered(batch), tenant: { registry } }, async (goal, id) => {
    await expect(create(goal, id, gets(1))).rejects.toMatchObject({ overloaded: true });
    expect(await goal.view()).toMatchObject({ ok: false, error: { code: "not_found" } });
    await create(goal, id, gets(1));
    expect((await viewOf(goal)).counts.total).toBe(1);
  });
});

test("a deletion that the tenant did not hear of is tried again", async () => {
  let asked = 0;
  const forget: TenantRpc["forget"] = async () => {
    asked++;
    throw marked("Network connection lost.", { retryable: true });
  };
  await inLaboratory({ run: async (batch) => allAnswered(batch), tenant: { forget } }, async (goal, id, ctx) => {
    await create(goal, id, gets(1), true, 500);
    await until("the goal is done", async () => (await viewOf(goal)).status === "succeeded");
    await delay(100);
    // As if it had just fired: the alarm that begins the deletion is spent.
    await ctx.storage.deleteAlarm();
    await until("the tenant was asked to forget it", () => asked > 0);
    await delay(20);
    // Without another one the rows would stay for ever.
    expect(await ctx.storage.getAlarm()).toBeGreaterThan(Date.now());
    const before = asked;
    await goal.alarm();
    await until("it is asked again", () => asked > before);
    expect((await viewOf(goal)).status).toBe("succeeded");
  });
});
