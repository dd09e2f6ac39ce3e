/** What goes in and comes out, whatever its size and script: nothing is cut, mixed up or mangled. */
import { expect, test } from "vitest";
import type { GoalView } from "../../shared/protocol/goal.ts";
import { RESPONSE_BYTES_MAX } from "../../shared/limits.ts";
import { call, problemIn } from "./edge-kit.ts";
import { countsOf } from "./executor-kit.ts";
import { get, goalOf, goalStub, good, post, register, type TaskView, tasksOf, textOf, until } from "./goal-kit.ts";
import { evictDurableObject } from "cloudflare:test";

interface Receipts {
  readonly accepted: number;
  readonly joined: number;
  readonly rejected: number;
  readonly receipts?: readonly { readonly index: number; readonly taskId?: string; readonly status: string }[];
}

const made = (value: object = {}): Promise<GoalView> => good(post("/v1/goals", value));
const visit = (key: string, path: string, more: object = {}) => ({ key, call: { upstream: "real", path, ...more } });

async function ended(id: string, count: number): Promise<Map<string, TaskView>> {
  await until(`${count} have ended`, async () => {
    const { succeeded, failed } = (await goalOf(id)).counts;
    return succeeded + failed === count;
  });
  const text = await textOf(`/v1/goals/${id}/results?limit=1000`);
  const lines = text.trimEnd().split("\n").slice(0, -1);
  return new Map(lines.map((line) => JSON.parse(line) as TaskView).map((task) => [task.key!, task]));
}

test("results of any size up to the limit come back whole, before and after an eviction", async () => {
  await register("real");
  const { id } = await made();
  const near = RESPONSE_BYTES_MAX - 1_000;
  const sizes = [1, 65_000, 66_000, 250_000, 1_000_000, 1_000_001, 3_000_000, near];
  const tasks = sizes.map((size) => visit(`s${size}`, `/body?type=text/plain&bytes=${size}&fill=abcdefg`));
  await good(post(`/v1/goals/${id}/tasks`, { tasks: [...tasks, visit("over", `/body?type=text/plain&bytes=${RESPONSE_BYTES_MAX + 1}`)] }));
  for (const round of ["live", "evicted"]) {
    if (round === "evicted") await evictDurableObject(goalStub(id));
    const results = await ended(id, sizes.length + 1);
    const whole = sizes.filter((size) => results.get(`s${size}`)!.result?.body === "abcdefg".repeat(size / 7 + 1).slice(0, size));
    expect(whole).toEqual(sizes);
    expect(results.get("over")).toMatchObject({ status: "failed", problem: { code: "result_too_large" } });
  }
  const items = await tasksOf(id);
  expect((items.find(({ key }) => key === `s${near}`)!.result!.body as string).length).toBe(near);
});

test("text of every script goes in and comes out as it was, in bodies above a megabyte", async () => {
  await register("real");
  const { id } = await made({ name: "Größe 大きさ 🙂", labels: { ключ: "значение 🐳" } });
  const text = "naïve – 日本語 – 🐳🙂 – עברית \u0000\u2028\ud83d".repeat(18_000);
  const tasks = Array.from({ length: 3 }, (_, n) =>
    visit(`ключ-${n}-🐳`, `/echo?n=${n}`, { method: "POST", body: { text, n }, idempotent: true }),
  );
  await good(post(`/v1/goals/${id}/tasks`, { tasks: tasks.slice(0, 1) }));
  await good(post(`/v1/goals/${id}/tasks`, { tasks: tasks.slice(1, 2) }));
  await good(
    call("POST", `/v1/goals/${id}/tasks`, { body: `${JSON.stringify(tasks[2])}\n`, headers: { "content-type": "application/x-ndjson" } }),
  );
  const results = await ended(id, 3);
  for (let n = 0; n < 3; n++) {
    const echo = results.get(`ключ-${n}-🐳`)!.result!.body as { body: string };
    const sent = JSON.parse(new TextDecoder().decode(Uint8Array.from(atob(echo.body), (char) => char.charCodeAt(0)))) as {
      text: string;
      n: number;
    };
    expect(sent.n).toBe(n);
    expect(sent.text === text).toBe(true);
  }
  await evictDurableObject(goalStub(id));
  expect(await goalOf(id)).toMatchObject({ name: "Größe 大きさ 🙂", labels: { ключ: "значение 🐳" }, counts: { succeeded: 3 } });
});

test("results of many bytes a character fit their rows, many at a time", async () => {
  await register("real");
  const { id } = await made();
  const size = 60_000 * 3;
  const tasks = Array.from({ length: 40 }, (_, n) =>
    visit(`t${n}`, `/body?type=text/plain&bytes=${size}&fill=${encodeURIComponent("語")}&n=${n}`),
  );
  await good(post(`/v1/goals/${id}/tasks`, { tasks }));
  const results = await ended(id, 40);
  for (const { result } of results.values()) expect(result!.body === "語".repeat(size / 3)).toBe(true);
});

test("receipts name every task that was asked about, in its place", async () => {
  await register("real");
  const { id } = await made();
  const tasks = [visit("a", "/delay/0"), { nonsense: 1 }, visit("a", "/delay/0"), { call: { upstream: "real", path: "/delay/0" } }];
  const all = await good<Receipts>(post(`/v1/goals/${id}/tasks?receipts=all`, { tasks }));
  expect(all).toMatchObject({ accepted: 2, joined: 1, rejected: 1 });
  expect(all.receipts!.map(({ index, status }) => [index, status])).toEqual([
    [0, "queued"],
    [1, "rejected"],
    [2, "joined"],
    [3, "queued"],
  ]);
  expect(all.receipts![2]!.taskId).toBe(all.receipts![0]!.taskId);
  expect((await get<TaskView>(`/v1/tasks/${all.receipts![3]!.taskId}`)).id).toBe(all.receipts![3]!.taskId);
  const some = await good<Receipts>(post(`/v1/goals/${id}/tasks`, { tasks }));
  expect(some).toMatchObject({ accepted: 1, joined: 2, rejected: 1 });
  expect(some.receipts!.map(({ index }) => index)).toEqual([1]);
  const none = await good<Receipts>(post(`/v1/goals/${id}/tasks`, { tasks: [] }));
  expect(none).toMatchObject({ accepted: 0, joined: 0, rejected: 0 });
  expect((await goalOf(id)).joined).toBe(3);
});

test("equal content is the same work, whatever the order of its properties", async () => {
  await register("real");
  const { id } = await made();
  const one = {
    dedupe: "content",
    call: { upstream: "real", method: "POST", path: `/delay/0?name=${id}`, body: { a: 1, b: [2] }, idempotent: true },
  };
  const same = {
    call: { body: { b: [2], a: 1 }, idempotent: true, path: `/delay/0?name=${id}`, method: "POST", upstream: "real" },
    dedupe: "content",
  };
  const other = { ...one, call: { ...one.call, body: { a: 1, b: [3] } } };
  expect(await good(post(`/v1/goals/${id}/tasks`, { tasks: [one, same, other] }))).toMatchObject({ accepted: 2, joined: 1 });
  await until("both have ended", async () => (await goalOf(id)).counts.succeeded === 2);
  await evictDurableObject(goalStub(id));
  expect(await good(post(`/v1/goals/${id}/tasks`, { tasks: [same] }))).toMatchObject({ accepted: 0, joined: 1 });
  expect((await countsOf(id)).total).toBe(2);
});

test("a key is bound to its request: fifty at once are one, another body is refused, an eviction changes nothing", async () => {
  await register("real");
  const { id } = await made();
  const tasks = Array.from({ length: 20 }, (_, n) => ({ call: { upstream: "real", path: `/delay/0?name=${id}&n=${n}` } }));
  const send = (value: object, key: string) => post(`/v1/goals/${id}/tasks?receipts=all`, value, { "idempotency-key": key });
  const answers = await Promise.all(Array.from({ length: 50 }, () => send({ tasks }, "k")));
  const bodies = await Promise.all(answers.map((answer) => answer.text()));
  expect(new Set(bodies).size).toBe(1);
  expect(await problemIn(await send({ tasks: tasks.slice(1) }, "k"))).toMatchObject({ status: 422, code: "idempotency_key_reused" });
  await evictDurableObject(goalStub(id));
  const again = await send({ tasks }, "k");
  expect([again.headers.get("idempotent-replayed"), await again.text()]).toEqual(["true", bodies[0]]);
  const both = await Promise.all([send({ tasks: tasks.slice(0, 1) }, "m"), send({ tasks: tasks.slice(0, 2) }, "m")]);
  expect(new Set(both.map(({ status }) => status))).toEqual(new Set([202, 422]));
  const more = both[0].status === 202 ? 1 : 2;
  expect((await tasksOf(id)).length).toBe(20 + more);
});
