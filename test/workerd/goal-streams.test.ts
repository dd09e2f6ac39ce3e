/**
 * What a caller follows: events, results, pages and single tasks. A reader
 * gets what it asks for, in order and once, and a reader that stalls costs the
 * goal nothing.
 */
import { expect, test } from "vitest";
import type { GoalView } from "../../shared/protocol/goal.ts";
import type { Batch } from "../../shared/rpc-batch.ts";
import { call } from "./edge-kit.ts";
import {
  allAnswered,
  create,
  delay,
  get,
  good,
  inLaboratory,
  type Page,
  post,
  register,
  type TaskView,
  tasksOf,
  textOf,
  until,
  viewOf,
} from "./goal-kit.ts";

interface Event {
  readonly id: number;
  readonly type: string;
  readonly data: Readonly<Record<string, unknown>>;
  readonly atMs: number;
}

/** Reads events as they come. `take` ends the stream after so many. */
async function eventsOf(body: ReadableStream<Uint8Array>, take = Infinity): Promise<Event[]> {
  const events: Event[] = [];
  const decoder = new TextDecoder();
  const reader = body.getReader();
  let rest = "";
  while (events.length < take) {
    const { value, done } = await reader.read();
    if (done) break;
    const blocks = (rest + decoder.decode(value, { stream: true })).split("\n\n");
    rest = blocks.pop()!;
    for (const block of blocks) {
      const field = (name: string): string => new RegExp(`^${name}: (.*)$`, "m").exec(block)?.[1] ?? "";
      if (field("data") === "") continue;
      events.push({ id: Number(field("id")), type: field("event"), data: JSON.parse(field("data")) as Event["data"], atMs: Date.now() });
    }
  }
  if (events.length >= take) await reader.cancel();
  return events.slice(0, take);
}

async function follow(path: string, headers: Record<string, string> = {}, take = Infinity): Promise<Event[]> {
  return eventsOf((await call("GET", path, { headers })).body!, take);
}

const made = (value: object = {}): Promise<GoalView> => good(post("/v1/goals", value));
const visits = (count: number, ms: number): object[] =>
  Array.from({ length: count }, (_, n) => ({ key: `k${n}`, call: { upstream: "real", path: `/delay/${ms}?n=${n}` } }));

test("events are a snapshot, progress at most ten times a second, every change of the goal, and the end", async () => {
  await register("real", { maxConcurrency: 6 });
  const { id } = await made();
  const reading = follow(`/v1/goals/${id}/events`);
  await good(post(`/v1/goals/${id}/tasks`, { tasks: visits(120, 25) }));
  await good(post(`/v1/goals/${id}/pause`));
  await delay(150);
  await good(post(`/v1/goals/${id}/resume`));
  await good(post(`/v1/goals/${id}/seal`));
  const events = await reading;
  expect([events[0]!.type, events.at(-1)!.type]).toEqual(["snapshot", "end"]);
  expect(events.slice(1, -1).every(({ type }) => type === "progress" || type === "goal")).toBe(true);
  expect(events[0]!.data).toMatchObject({ id, status: "active" });
  expect(events.at(-1)!.data).toMatchObject({ id, status: "succeeded", counts: { succeeded: 120, total: 120 } });
  const progress = events.filter(({ type }) => type === "progress");
  const seconds = (progress.at(-1)!.atMs - progress[0]!.atMs) / 1_000;
  expect(progress.length).toBeGreaterThan(2);
  expect(progress.length).toBeLessThanOrEqual(10 * seconds + 2);
  const done = progress.map(({ data }) => (data["counts"] as { succeeded: number }).succeeded);
  expect(done).toEqual(done.toSorted((a, b) => a - b));
  expect(events.filter(({ type }) => type === "goal").map(({ data }) => data["status"])).toEqual(expect.arrayContaining(["paused"]));
});

test("a stream of tasks that is taken up again and again tells of each task once, in the order of their ends", async () => {
  await register("real");
  const { id } = await made({ tasks: visits(700, 0), sealed: true });
  const told: string[] = [];
  let last = "0";
  let ended = false;
  for (let round = 0; !ended && round < 200; round++) {
    const events = await follow(`/v1/goals/${id}/events?tasks=true`, { "last-event-id": last }, 40 + round);
    expect(events[0]!.type).toBe("snapshot");
    for (const { type, data } of events) if (type === "task") told.push(data["id"] as string);
    last = String(events.at(-1)!.id);
    ended = events.at(-1)!.type === "end";
  }
  expect(told).toHaveLength(700);
  const results = await follow(`/v1/goals/${id}/events?tasks=true`, { "last-event-id": "0" });
  expect(results.filter(({ type }) => type === "task").map(({ data }) => data["id"])).toEqual(told);
});

test("a backlog of tasks comes as fast as it is read, whatever the pace of progress", async () => {
  const { id } = await made({ tasks: Array.from({ length: 6_000 }, () => ({ group: {} })), sealed: true });
  const startedAt = Date.now();
  const events = await follow(`/v1/goals/${id}/events?tasks=true`, { "last-event-id": "0" });
  expect(events.filter(({ type }) => type === "task")).toHaveLength(6_000);
  // 24 pieces of 256 at ten a second would take 2.4 s.
  expect(Date.now() - startedAt).toBeLessThan(1_800);
});

test("results go on from a cursor, once each, and the last line says where to go on", async () => {
  await register("real");
  const { id } = await made({ tasks: visits(250, 0) });
  await until("all are done", async () => (await get<GoalView>(`/v1/goals/${id}`)).counts.succeeded === 250);
  const ids: string[] = [];
  let cursor: string | null = "";
  for (let page = 0; page < 3; page++) {
    const text = await textOf(`/v1/goals/${id}/results?limit=100&cursor=${cursor}`);
    const lines = text.trimEnd().split("\n");
    const { end } = JSON.parse(lines.at(-1)!) as { end: { status: string; nextCursor: string | null } };
    expect(end.status).toBe("active");
    ids.push(...lines.slice(0, -1).map((line) => (JSON.parse(line) as TaskView).id));
    cursor = end.nextCursor;
  }
  expect([ids.length, new Set(ids).size, cursor]).toEqual([250, 250, "250"]);
  await good(post(`/v1/goals/${id}/seal`));
  const text = await textOf(`/v1/goals/${id}/results?cursor=${cursor}`);
  expect(JSON.parse(text)).toMatchObject({ end: { status: "succeeded", nextCursor: null } });
});

test("pages of tasks stay as they are while tasks are added behind them", async () => {
  const { id } = await made({ tasks: Array.from({ length: 25 }, (_, n) => ({ key: `g${n}`, group: {} })) });
  const keys: (string | undefined)[] = [];
  let cursor: string | null = "";
  let page: Page | null = null;
  for (let round = 0; cursor !== null && round < 4; round++) {
    const path: string = `/v1/goals/${id}/tasks?limit=10&cursor=${cursor}`;
    page = await get<Page>(path);
    await good(post(`/v1/goals/${id}/tasks`, { tasks: [{ key: `late${round}`, group: {} }] }));
    expect((await get<Page>(path)).items.slice(0, page.items.length)).toEqual(page.items);
    keys.push(...page.items.map(({ key }) => key));
    cursor = page.nextCursor;
  }
  expect(new Set(keys).size).toBe(keys.length);
  expect(keys.slice(0, 25)).toEqual(Array.from({ length: 25 }, (_, n) => `g${n}`));
  for (const query of ["cursor=x", "cursor=-1", "limit=0", "limit=1001", "status=done"]) {
    expect((await call("GET", `/v1/goals/${id}/tasks?${query}`)).status).toBe(400);
  }
});

test("a hundred callers wait for one task, and all hear of its end as it comes", async () => {
  await register("real");
  const { id } = await made({ tasks: [{ key: "slow", call: { upstream: "real", path: "/delay/400" } }] });
  const [task] = await tasksOf(id);
  const startedAt = Date.now();
  const answers = await Promise.all(Array.from({ length: 100 }, () => get<TaskView>(`/v1/tasks/${task!.id}`, { prefer: "wait=20" })));
  expect(answers.every(({ status }) => status === "succeeded")).toBe(true);
  expect(Date.now() - startedAt).toBeLessThan(3_000);
  const { id: still } = await made({ tasks: [{ key: "g", group: {} }] });
  const asked = Date.now();
  expect(await get<TaskView>(`/v1/tasks/${(await tasksOf(still))[0]!.id}`, { prefer: "wait=1" })).toMatchObject({ status: "waiting" });
  expect(Date.now() - asked).toBeGreaterThanOrEqual(950);
});

test("readers that stall neither delay the goal nor have anything made for them", async () => {
  const run = async (batch: Batch): Promise<string> => allAnswered(batch);
  const work = async (readers: number): Promise<number> =>
    inLaboratory({ run }, async (goal, id) => {
      await create(goal, id, []);
      const streams = [];
      for (let n = 0; n < readers; n++) {
        const asked = n % 2 === 0 ? goal.results({ limit: 1, follow: true }) : goal.events({ tasks: true });
        const answer = await asked;
        if (!answer.ok) throw new Error(answer.error.detail);
        streams.push(answer.value.getReader());
      }
      for (let n = 1; n < readers; n += 2) await streams[n]!.read();
      const startedAt = performance.now();
      const specs = Array.from({ length: 600 }, (_, n) => ({ call: { upstream: "real", path: `/${n}` } }));
      await goal.submit({
        body: new TextEncoder().encode(JSON.stringify({ tasks: specs })),
        format: "json",
        allReceipts: false,
        atomic: false,
      });
      await until("all are done", async () => (await viewOf(goal)).counts.succeeded === 600);
      const ms = performance.now() - startedAt;
      // One that reads on gets what is due now, in one piece of bounded size.
      for (const stream of streams) {
        const { value } = await stream.read();
        expect(value!.byteLength).toBeLessThan(400_000);
        await stream.cancel();
      }
      return ms;
    });
  await work(0);
  const alone = await work(0);
  expect(await work(200)).toBeLessThan(alone * 2 + 500);
});

test("a goal that has as many streams as it takes refuses one more, and takes it when another has left", async () => {
  await inLaboratory({ run: async (batch) => allAnswered(batch) }, async (goal, id) => {
    await create(goal, id, []);
    const open: ReadableStream<Uint8Array>[] = [];
    for (;;) {
      const answer = await goal.events({ tasks: false });
      if (!answer.ok) {
        expect(answer.error).toMatchObject({ code: "temporary_reduced_capacity" });
        break;
      }
      open.push(answer.value);
    }
    expect(open).toHaveLength(1_024);
    await open[0]!.cancel();
    expect((await goal.events({ tasks: false })).ok).toBe(true);
  });
});
