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

test("one that hangs holds a batch up for two seconds, and not for ever", async () => {
  const [a, b] = [fake(), fake()];
  a.answer = () => new Promise(() => undefined);
  const processes = of(a, b);
  let taken: unknown;
  void processes.take(["g"]).then((seat) => (taken = at(seat)));
  await vi.advanceTimersByTimeAsync(1_999);
  expect(taken).toBeUndefined();
  await vi.advanceTimersByTimeAsync(1);
  expect(taken).toBe(b);
});

test("where none answers, or there is none, nobody takes it", async () => {
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
