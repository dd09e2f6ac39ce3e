/** What running functions ask of their goal: children, results, locks. The executor is the test's own; the goal is real. */
import { expect, test } from "vitest";
import type { Goal } from "../../durable-objects/goal/object.ts";
import { type GoalId, taskIdOf } from "../../shared/ids.ts";
import type { Policy } from "../../shared/policy/rules.ts";
import { formatLine } from "../../shared/protocol/line.ts";
import type { BatchReply } from "../../shared/rpc-batch.ts";
import type { GoalAsk, RunBatch } from "../../shared/rpc-functions.ts";
import { VERSION } from "./host-kit.ts";
import { create, delay, inLaboratory, REGISTRY, until } from "./goal-kit.ts";

const tenant = { registry: async () => ({ ...REGISTRY, functions: [VERSION] }) };
const RUN = { run: { function: VERSION.name } };

interface Sent {
  readonly batch: RunBatch;
  readonly end: (reply: BatchReply) => void;
  readonly lose: () => void;
}

/** An executor whose batches end when the test says so. */
function executor(): { readonly sent: Sent[]; readonly laboratory: Parameters<typeof inLaboratory>[0] } {
  const sent: Sent[] = [];
  const runFunctions = (batch: RunBatch): Promise<BatchReply> =>
    new Promise((resolve, reject) => sent.push({ batch, end: resolve, lose: () => reject(new Error("the executor is gone")) }));
  return { sent, laboratory: { run: () => new Promise(() => undefined), runFunctions, tenant } };
}

function returned({ batch }: Sent, task: number, body: unknown = null): string {
  const { attempt } = batch.items.find((item) => item.task === task)!;
  const at = Date.now();
  const head = { task, attempt, outcome: "returned", status: 200, retryAfterMs: 0, startedAtMs: at, endedAtMs: at, calls: 0 } as const;
  return formatLine(head, JSON.stringify({ status: 200, body }));
}

/** What comes back has many shapes; a test knows which one it asked for. */
interface Told {
  readonly receipts: readonly { readonly taskId: string; readonly status: string }[];
  readonly fence: number;
  readonly code?: string;
}

async function ask(goal: Goal, op: GoalAsk["op"], args: object, more: Partial<GoalAsk> = {}): Promise<Told> {
  const [answer] = await goal.ask([{ task: 0, attempt: 1, op, seq: 1, args: JSON.stringify(args), ...more }]);
  return answer!.ok ? (JSON.parse(answer!.value) as Told) : (answer!.error as unknown as Told);
}

const running = (sent: readonly Sent[], count: number): Promise<void> =>
  until(`${count} runs are sent`, () => sent.reduce((sum, { batch }) => sum + batch.items.length, 0) >= count);

const submit = (goal: Goal, tasks: readonly object[], policies?: readonly Policy[]) =>
  goal.submit({
    body: new TextEncoder().encode(JSON.stringify({ tasks })),
    format: "json",
    allReceipts: false,
    atomic: true,
    ...(policies === undefined ? {} : { bearer: { policies } }),
  });

async function viewsOf(goal: Goal): Promise<{ readonly key?: string; readonly parentTaskId?: string }[]> {
  const page = await goal.listTasks({ limit: 100 });
  return page.ok ? (JSON.parse(page.value) as { items: { key?: string; parentTaskId?: string }[] }).items : [];
}

test("a run that is repeated joins the children that it had, also in a sealed goal, and its earlier attempt is not heard", async () => {
  const { sent, laboratory } = executor();
  await inLaboratory(laboratory, async (goal, id) => {
    await create(goal, id, [RUN], true);
    await running(sent, 1);
    const tasks = [{ group: {} }, { key: "mine", group: {} }, { parentTaskId: "mine", group: {} }];
    const first = await ask(goal, "spawn", { tasks }, { seq: 3 });
    expect(first.receipts.map((one) => [one.taskId, one.status])).toEqual([1, 2, 3].map((task) => [taskIdOf(id, task), "queued"]));
    const parents = (await viewsOf(goal)).map(({ key, parentTaskId }) => [key, parentTaskId]);
    const self = taskIdOf(id, 0);
    expect(parents).toEqual([
      [undefined, undefined],
      [`${self}/3/0`, self],
      ["mine", self],
      [`${self}/3/2`, taskIdOf(id, 2)],
    ]);
    sent[0]!.lose();
    await running(sent, 2);
    expect(sent[1]!.batch.items[0]!.attempt).toBe(2);
    expect(await ask(goal, "spawn", { tasks }, { seq: 3 })).toMatchObject({ code: "stale_attempt" });
    const again = await ask(goal, "spawn", { tasks }, { seq: 3, attempt: 2 });
    expect(again.receipts.map((one) => one.status)).toEqual(["joined", "joined", "joined"]);
    expect(await viewsOf(goal)).toHaveLength(4);
  });
});

test("asks of one message are answered each by itself: one whose children cannot be taken brings none, the others theirs", async () => {
  const { sent, laboratory } = executor();
  await inLaboratory(laboratory, async (goal, id) => {
    await create(goal, id, [RUN, RUN, RUN]);
    await running(sent, 3);
    const asks = [{ tasks: [{ group: {} }, { call: { upstream: "nobody", path: "/" } }] }, { tasks: [{ group: {} }] }, { tasks: "no" }];
    const answers = await goal.ask(asks.map((args, task) => ({ task, attempt: 1, op: "spawn", seq: 1, args: JSON.stringify(args) })));
    expect(answers.map((one) => (one.ok ? (JSON.parse(one.value) as Told).receipts.length : one.error.code))).toEqual([
      "invalid_request",
      1,
      "invalid_request",
    ]);
    expect(answers[0]!.ok ? "" : answers[0]!.error.detail).toContain('/tasks/1/call/upstream there is no upstream "nobody"');
    expect(await viewsOf(goal)).toHaveLength(4);
  });
});

test("children may do what the token behind their parent might, and no more of them come than the policy allows", async () => {
  const { sent, laboratory } = executor();
  await inLaboratory(laboratory, async (goal, id) => {
    await create(goal, id, []);
    await submit(goal, [RUN], [{ queues: ["a"], maxChildrenPerTask: 2 }]);
    await running(sent, 1);
    expect(sent[0]!.batch.items[0]!.policies).toEqual([{ queues: ["a"], maxChildrenPerTask: 2 }]);
    const spawn = (queue: string, seq: number) => ask(goal, "spawn", { tasks: [{ work: { queue } }] }, { seq });
    expect(await spawn("b", 1)).toMatchObject({ code: "permission_denied" });
    expect((await spawn("a", 2)).receipts).toHaveLength(1);
    expect((await spawn("a", 3)).receipts).toHaveLength(1);
    expect(await spawn("a", 4)).toMatchObject({ code: "permission_denied" });
  });
});

test("a token that is for other functions brings no run, and no child of a run that it has brought is one", async () => {
  const { sent, laboratory } = executor();
  await inLaboratory(laboratory, async (goal, id) => {
    await create(goal, id, []);
    expect(await submit(goal, [RUN], [{ functions: ["other-*"] }])).toMatchObject({ ok: false, error: { code: "permission_denied" } });
    await submit(goal, [RUN], [{ functions: [VERSION.name] }]);
    await running(sent, 1);
    expect((await ask(goal, "spawn", { tasks: [{ ...RUN, key: "child" }] })).receipts).toHaveLength(1);
    await running(sent, 2);
    expect(sent[1]!.batch.items[0]!.policies).toEqual([{ functions: [VERSION.name] }]);
  });
});

test("a run reads the results of what it comes after, and of whatever it names", async () => {
  const { sent, laboratory } = executor();
  await inLaboratory(laboratory, async (goal, id) => {
    await create(goal, id, [
      { ...RUN, key: "a" },
      { ...RUN, key: "b" },
      { ...RUN, key: "sum", after: ["b", "a"] },
    ]);
    await running(sent, 2);
    for (const one of sent) one.end(one.batch.items.map(({ task }) => returned(one, task, { n: task })).join(""));
    await until("the third runs", () => sent.some(({ batch }) => batch.items[0]!.task === 2));
    const results = async (args: object): Promise<Told> => ask(goal, "results", args, { task: 2 });
    const a = { taskId: taskIdOf(id, 0), key: "a", status: "succeeded", result: { status: 200, body: { n: 0 } } };
    const b = { taskId: taskIdOf(id, 1), key: "b", status: "succeeded", result: { status: 200, body: { n: 1 } } };
    expect(await results({})).toEqual({ results: [b, a] });
    expect(await results({ tasks: [taskIdOf(id, 0), "sum"] })).toEqual({
      results: [a, { taskId: taskIdOf(id, 2), key: "sum", status: "running" }],
    });
    expect(await results({ tasks: ["nobody"] })).toMatchObject({ code: "not_found" });
    expect(await results({ tasks: Array.from({ length: 1_001 }, () => "a") })).toMatchObject({ code: "invalid_request" });
  });
});

test.each(["goal", "tenant"])(
  "a run's lock of the %s is had by one at a time, in order, and let go when its attempt ends",
  async (scope) => {
    const { sent, laboratory } = executor();
    await inLaboratory(laboratory, async (goal, id) => {
      await create(goal, id, [RUN, RUN, RUN, RUN]);
      await running(sent, 4);
      const name = `run-${scope}`;
      const lock = (task: number, waitMs = 10_000) => ask(goal, "lock", { name, scope, waitMs }, { task });
      const { fence } = await lock(0);
      expect(await lock(1, 0)).toMatchObject({ code: "lock_held" });
      const order: number[] = [];
      const waiting = [1, 2, 3].map(async (task) => {
        const granted = await lock(task);
        order.push(task);
        return granted;
      });
      await delay(50);
      expect(order).toEqual([]);
      // The first lets go by itself, the second with its end, and the third has ended while it waited.
      await ask(goal, "unlock", { name, scope, fence }, { task: 0 });
      const second = (await waiting[0])!;
      expect(second.fence).toBeGreaterThan(fence);
      const lines = [1, 2].map((task) =>
        returned(
          sent.find(({ batch }) => batch.items.some((item) => item.task === task))!,
          task,
        ),
      );
      await goal.settle(lines[1]!);
      await goal.settle(lines[0]!);
      expect((await waiting[2])!.fence).toBeGreaterThan(second.fence);
      expect(await waiting[1]).toHaveProperty("code");
      expect(order.filter((task) => task !== 2)).toEqual([1, 3]);
    });
  },
);

test("a run enters the locks of its own task, and its letting go leaves them to the task", async () => {
  const { sent, laboratory } = executor();
  await inLaboratory(laboratory, async (goal: Goal, id: GoalId) => {
    await create(goal, id, [{ ...RUN, locks: [{ name: "own" }] }, RUN]);
    await running(sent, 2);
    const fence = Number(/own=(\d+)/.exec(sent.flatMap(({ batch }) => batch.items).find(({ task }) => task === 0)!.fence!)![1]);
    expect(await ask(goal, "lock", { name: "own" })).toEqual({ fence, expiresAt: null });
    expect(await ask(goal, "unlock", { name: "own", fence })).toBeNull();
    expect(await ask(goal, "lock", { name: "own" }, { task: 1 })).toMatchObject({ code: "lock_held" });
  });
});
