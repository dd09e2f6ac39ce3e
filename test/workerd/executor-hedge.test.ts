/** Second tries in an executor: which calls get one, whose answer counts, and that no more is open than may be. */
import { expect, test } from "vitest";
import type { Batch, BatchItem } from "../../shared/rpc-batch.ts";
import {
  batchOf,
  countsOf,
  delay,
  hostOf,
  itemOf,
  REFUSING_ORIGIN,
  readAll,
  type Reported,
  reportsOf,
  run,
  runStreamed,
} from "./executor-kit.ts";

const AFTER_MS = 60;
const LONG_MS = 5_000;

const hedge = (most: number, more: Partial<NonNullable<Batch["hedge"]>> = {}): Partial<Batch> => ({
  hedge: { afterMs: AFTER_MS, most, origin: batchOf([]).origin, ...more },
});
const may = (task: number, path: string, more: Partial<BatchItem> = {}): BatchItem => itemOf(task, path, { isHedgeable: true, ...more });
const several = (count: number, path: string, first = 0): BatchItem[] => Array.from({ length: count }, (_, i) => may(first + i, path));
const tryOf = ({ payload }: Reported): unknown => (payload["body"] as { readonly try: number }).try;
const firstOf = (reports: readonly Reported[]): Reported => reports.find(({ task }) => task === 0)!;
/** Some 300 ms in which nothing else can happen. A loop that asks the clock might never end. */
function keepBusy(): void {
  let sum = 0;
  for (let i = 0; i < 300_000_000; i++) sum += i & 3;
  expect(sum).toBeGreaterThan(0);
}
const untilQuiet = async (name: string): Promise<void> => {
  for (let i = 0; (await countsOf(name)).inFlight > 0; i++) {
    if (i > 100) throw new Error(`calls to ${name} are still open`);
    await delay(10);
  }
};

test("a call that stalls is made again, the second answer counts, and the first try is cut off", async () => {
  const startedAtMs = Date.now();
  const reports = await run([may(0, `/tries/${LONG_MS}/0?name=stalls`), ...several(3, "/delay/0", 1)], hedge(1));
  expect(Date.now() - startedAtMs).toBeLessThan(LONG_MS / 2);
  const stalled = firstOf(reports);
  expect([stalled.outcome, stalled.status, tryOf(stalled), stalled.beaten]).toEqual([
    "answered",
    200,
    2,
    { isFirst: true, startedAtMs: stalled.startedAtMs, status: 0 },
  ]);
  // What is reported is how long the attempt took, from its first try on.
  expect(stalled.endedAtMs - stalled.startedAtMs).toBeGreaterThanOrEqual(AFTER_MS);
  expect(reports.filter(({ beaten }) => beaten !== undefined)).toHaveLength(1);
  await untilQuiet("stalls");
  expect((await countsOf("stalls")).total).toBe(2);
});

test("where the first try answers first, it counts, and the second is cut off", async () => {
  const reports = await run([may(0, `/tries/${4 * AFTER_MS}/${LONG_MS}?name=first-wins`), may(1, "/delay/0")], hedge(1));
  const report = firstOf(reports);
  expect([report.status, tryOf(report), report.beaten]).toEqual([200, 1, { isFirst: false, startedAtMs: expect.any(Number), status: 0 }]);
  expect(report.beaten!.startedAtMs).toBeGreaterThan(report.startedAtMs);
  await untilQuiet("first-wins");
});

test("what begins late waits for a permit that a second try has: near its end a batch holds one more than items are left", async () => {
  const name = "begins-late";
  const quick = Array.from({ length: 3 }, (_, i) => itemOf(10 + i, `/delay/${AFTER_MS + 30}`));
  const slow = several(2, `/tries/${LONG_MS}/300?name=${name}`);
  const reports = await run([...slow, ...quick, may(20, `/delay/0?name=${name}`)], { ...hedge(2), lanes: 5 });
  expect(reports.filter(({ beaten }) => beaten !== undefined)).toHaveLength(2);
  // Two that stall, and a second try of each: the last one is not a fifth.
  expect((await countsOf(name)).max).toBe(4);
});

test("after the process has stood still, answers that came meanwhile are read before anything is made again", async () => {
  const running = run([may(0, `/delay/${AFTER_MS / 2}?name=stood-still`), ...several(2, "/delay/0", 1)], hedge(1));
  while ((await countsOf("stood-still")).total === 0) await delay(1);
  keepBusy();
  const reports = await running;
  expect(reports.filter(({ beaten }) => beaten !== undefined)).toEqual([]);
  const late = firstOf(reports);
  expect(late.endedAtMs - late.startedAtMs).toBeGreaterThan(AFTER_MS);
});

test("nothing is made again that is not said to be hedgeable, or is quick, or beyond the leave that there is", async () => {
  const slow = `/tries/${8 * AFTER_MS}/0`;
  // The posts end long before the other slow ones, and leave them a lane.
  const posts = Array.from({ length: 3 }, (_, i) => itemOf(i, `/tries/${2 * AFTER_MS}/0?name=hedge-posts`, { method: "POST" }));
  await run([...posts, ...several(20, "/delay/0?name=hedge-quick", 3), ...several(3, `${slow}?name=hedge-many`, 30)], hedge(1));
  const totals = await Promise.all(["hedge-posts", "hedge-quick", "hedge-many"].map(async (name) => (await countsOf(name)).total));
  expect(totals).toEqual([3, 20, 3 + 1]);
  await run(several(4, `${slow}?name=hedge-none`));
  expect((await countsOf("hedge-none")).total).toBe(4);
});

test("second tries run in the batch's own lanes: never more open than there are, nor than one beside what is left", async () => {
  const startedAtMs = Date.now();
  const reports = await run([may(0, "/delay/120?name=own-lanes"), ...several(5, `/tries/${LONG_MS}/20?name=own-lanes`, 1)], {
    ...hedge(5),
    lanes: 6,
    permitMs: 20_000,
  });
  expect(Date.now() - startedAtMs).toBeLessThan(LONG_MS / 2);
  expect(reports.filter(({ beaten }) => beaten?.isFirst === true)).toHaveLength(5);
  const { total, max } = await countsOf("own-lanes");
  expect([total, max]).toEqual([6 + 5, 6]);
});

test("a lane that comes free makes a second try before what has not begun", async () => {
  const reports = await run([...several(1, `/tries/${LONG_MS}/0`), ...several(30, "/delay/30", 1)], { ...hedge(1), lanes: 2 });
  const [stalled, ...others] = reports.toSorted((a, b) => a.task - b.task);
  expect(stalled!.beaten?.isFirst).toBe(true);
  expect(others.filter(({ endedAtMs }) => endedAtMs > stalled!.endedAtMs).length).toBeGreaterThan(15);
});

test.for([
  ["the first try's failure", `${2 * AFTER_MS}-503/${3 * AFTER_MS}`, [200, true, 503]],
  ["the second try's failure", `${4 * AFTER_MS}/0-503`, [200, false, 503]],
  ["the first of two failures", `${2 * AFTER_MS}-503/${3 * AFTER_MS}-500`, [500, true, 503]],
  // It decides as much as a success does.
  ["a first try that is still open when the second is answered with 404", `${4 * AFTER_MS}/0-404`, [404, true, 0]],
] as const)("%s gives way to the other try", async ([, path, said]) => {
  const reports = await run([may(0, `/tries/${path}`), may(1, "/delay/0")], hedge(1));
  const { status, beaten } = firstOf(reports);
  expect([status, beaten?.isFirst, beaten?.status]).toEqual(said);
});

test("where calls fail, none is made twice", async () => {
  const reports = await run([may(0, `/tries/${4 * AFTER_MS}?name=hedge-failing`), may(1, "/status/503")], hedge(3));
  expect(reports.filter(({ beaten }) => beaten !== undefined)).toEqual([]);
  expect((await countsOf("hedge-failing")).total).toBe(1);
});

test("a second try goes to the origin that is named for it", async () => {
  const items = [may(0, `/tries/${3 * AFTER_MS}/0?name=elsewhere`), may(1, "/delay/0")];
  const report = firstOf(await run(items, hedge(1, { origin: REFUSING_ORIGIN })));
  // Nobody listens there, so the first try's answer counts.
  expect([report.status, report.beaten]).toMatchObject([200, { isFirst: false, status: 0 }]);
  expect((await countsOf("elsewhere")).total).toBe(1);
});

test("a deadline is the attempt's: both tries end with it", async () => {
  const items = [may(0, "/hang?name=hedge-deadline", { timeoutMs: 4 * AFTER_MS }), may(1, "/delay/0")];
  const report = firstOf(await run(items, hedge(1)));
  expect([report.outcome, report.beaten?.status]).toEqual(["timeout", 0]);
  expect(report.endedAtMs - report.startedAtMs).toBeLessThan(10 * AFTER_MS);
  await untilQuiet("hedge-deadline");
  expect((await countsOf("hedge-deadline")).total).toBe(2);
});

test("an attempt that is aborted is cut off in both its tries, and not reported", async () => {
  const host = hostOf();
  const reply = await runStreamed(batchOf([may(0, "/hang?name=hedge-abort"), may(1, "/delay/300")], { ...hedge(1), lanes: 3 }), host);
  const held = batchOf([may(0, "/hang?name=hedge-abort"), may(1, "/delay/0"), may(2, "/delay/400")], hedge(1));
  reply.control.abort([[0, 1]]);
  expect(reportsOf(await readAll(reply)).map(({ task }) => task)).toEqual([1]);
  const second = await runStreamed(held, host);
  await delay(2 * AFTER_MS);
  expect((await countsOf("hedge-abort")).total).toBeGreaterThanOrEqual(3);
  second.control.abort([[0, 1]]);
  expect(new Set(reportsOf(await readAll(second)).map(({ task }) => task))).toEqual(new Set([1, 2]));
  await untilQuiet("hedge-abort");
});

test("a batch that is stopped ends, though lanes wait for calls to hedge", async () => {
  const reply = await runStreamed(batchOf([may(0, "/hang"), may(1, "/delay/0")], hedge(1, { afterMs: LONG_MS })), hostOf());
  reply.control.stop();
  expect(reportsOf(await readAll(reply)).map(({ task }) => task)).toEqual([1]);
});

test("what is the second try of an attempt from the start tells of the attempt: when it began, and that its first try was beaten", async () => {
  const firstAtMs = Date.now() - AFTER_MS;
  const reports = await run([itemOf(0, "/delay/0", { firstAtMs }), itemOf(1, "/hang", { firstAtMs, timeoutMs: AFTER_MS })], {});
  const beaten = { isFirst: true, startedAtMs: firstAtMs, status: 0 };
  const told = reports.toSorted((a, b) => a.task - b.task).map(({ outcome, startedAtMs, beaten: other }) => [outcome, startedAtMs, other]);
  expect(told).toEqual([
    ["answered", firstAtMs, beaten],
    ["timeout", firstAtMs, beaten],
  ]);
});
