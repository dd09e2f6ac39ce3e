/** Which of the executors' processes a batch goes to. */
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import type { ProcessRpc } from "../../shared/rpc-processes.ts";
import { Processes, type Seat } from "../../workers/processes/processes.ts";

interface Fake extends Pick<ProcessRpc, "ready" | "ended"> {
  answer: () => Promise<void>;
  asked: number;
  readonly heard: string[];
}

function fake(): Fake {
  const made: Fake = {
    answer: () => Promise.resolve(),
    asked: 0,
    heard: [],
    ready() {
      made.asked++;
      return made.answer();
    },
    async ended(goalId) {
      made.heard.push(goalId);
    },
  };
  return made;
}

const gone = (): Promise<void> => Promise.reject(new Error("connection refused"));
const never = (): Promise<void> => new Promise(() => undefined);
const of = (...fakes: readonly Fake[]): Processes => new Processes(fakes as unknown as readonly ProcessRpc[]);
const at = (seat: Seat | null): unknown => seat?.process;

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

test("a batch goes to the process that has the fewest", async () => {
  const [a, b] = [fake(), fake()];
  const processes = of(a, b);
  const seats = [await processes.take(["g"]), await processes.take(["g"]), await processes.take(["g"])];
  expect(seats.map(at)).toEqual([a, b, a]);
  seats[0]!.leave();
  seats[2]!.leave();
  expect(at(await processes.take(["g"]))).toBe(a);
});

test("one that does not answer takes nothing, is left alone for a while, and is asked again", async () => {
  const [a, b] = [fake(), fake()];
  a.answer = gone;
  const processes = of(a, b);
  for (let i = 0; i < 5; i++) expect(at(await processes.take(["g"]))).toBe(b);
  expect(a.asked).toBe(1);
  a.answer = () => Promise.resolve();
  vi.advanceTimersByTime(250);
  expect(at(await processes.take(["g"]))).toBe(a);
});

test("each batch asks first, and one that broke off is left alone", async () => {
  const a = fake();
  const processes = of(a);
  const seat = await processes.take(["g"]);
  await processes.take(["g"]);
  expect(a.asked).toBe(2);
  seat!.lost();
  expect(await processes.take(["g"])).toBeNull();
  vi.advanceTimersByTime(250);
  expect(at(await processes.take(["g"]))).toBe(a);
  expect(a.asked).toBe(3);
});

test("one that hangs holds a batch up for a quarter of a second, and those after it not at all", async () => {
  const [a, b] = [fake(), fake()];
  a.answer = never;
  const processes = of(a, b);
  let taken: unknown;
  void processes.take(["g"]).then((seat) => (taken = at(seat)));
  await vi.advanceTimersByTimeAsync(249);
  expect(taken).toBeUndefined();
  await vi.advanceTimersByTimeAsync(1);
  expect(taken).toBe(b);
  expect(at(await processes.take(["g"]))).toBe(b);
  expect(a.asked).toBe(1);
  a.answer = () => Promise.resolve();
  vi.advanceTimersByTime(5_000);
  expect(at(await processes.take(["g"]))).toBe(a);
});

test("where all that are there are late, the one that has the fewest takes it, within a second", async () => {
  const fakes = Array.from({ length: 8 }, fake);
  const processes = of(...fakes);
  await processes.take(["g"]);
  for (const each of fakes) each.answer = never;
  const startedAtMs = Date.now();
  const taking = processes.take(["g"]);
  await vi.advanceTimersByTimeAsync(1_000);
  expect(at(await taking)).toBe(fakes[1]);
  expect(Date.now() - startedAtMs).toBe(1_000);
});

test("one that is gone takes nothing beside one that is late", async () => {
  const [a, b] = [fake(), fake()];
  a.answer = gone;
  b.answer = never;
  const taking = of(a, b).take(["g"]);
  await vi.advanceTimersByTimeAsync(250);
  expect(at(await taking)).toBe(b);
});

test("where all are gone, or there is none, nobody takes it", async () => {
  const a = fake();
  a.answer = gone;
  expect(await of(a).take(["g"])).toBeNull();
  expect(await of().take(["g"])).toBeNull();
});

test("of a goal's end hear those that work for it, or for one below it, and no others", async () => {
  const [a, b, c] = [fake(), fake(), fake()];
  const processes = of(a, b, c);
  await processes.take(["root", "leaf"]);
  await processes.take(["other"]);
  const third = await processes.take(["root"]);
  processes.tellEnded("root");
  third!.leave();
  processes.tellEnded("root");
  expect([a.heard, b.heard, c.heard]).toEqual([["root", "root"], [], ["root"]]);
});
