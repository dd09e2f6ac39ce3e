/** Ids: what the rest of Drover relies on is that they route, sort and refuse what is not theirs. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { goalIdFrom, parseGoalId, parseTaskId, taskIdOf, taskIdPrefix } from "../../shared/ids.ts";

const TIME_MS_MAX = 2 ** 48 - 1;
const INDEX_MAX = 32 ** 6 - 1;
const bytes = fc.uint8Array({ minLength: 16, maxLength: 16 });
const time = fc.integer({ min: 0, max: TIME_MS_MAX });
const index = fc.integer({ min: 0, max: INDEX_MAX });

test("a goal's id is read back as itself", () => {
  fc.assert(fc.property(time, bytes, (nowMs, chance) => parseGoalId(goalIdFrom(nowMs, chance)) === goalIdFrom(nowMs, chance)));
});

test("a task's id leads to its goal and its number", () => {
  fc.assert(
    fc.property(time, bytes, index, (nowMs, chance, number) => {
      const goalId = goalIdFrom(nowMs, chance);
      expect(parseTaskId(taskIdOf(goalId, number))).toEqual({ goalId, index: number });
      expect(taskIdOf(goalId, number).startsWith(taskIdPrefix(goalId))).toBe(true);
    }),
  );
});

test("goals' ids sort by creation, whatever their chance", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 0, max: TIME_MS_MAX - 1 }),
      bytes,
      bytes,
      (nowMs, a, b) => goalIdFrom(nowMs, a) < goalIdFrom(nowMs + 1, b),
    ),
  );
});

test("tasks' ids sort by their number in the goal", () => {
  const goalId = goalIdFrom(1, new Uint8Array(16));
  fc.assert(fc.property(index, index, (a, b) => Math.sign(a - b) === (taskIdOf(goalId, a) < taskIdOf(goalId, b) ? -1 : a === b ? 0 : 1)));
});

test("goals made in one millisecond differ by their chance", () => {
  const zero = new Uint8Array(16);
  for (let place = 0; place < zero.length; place++) {
    for (const bit of [1, 2, 4, 8, 16]) expect(goalIdFrom(5, zero.with(place, bit))).not.toBe(goalIdFrom(5, zero));
  }
});

const good = goalIdFrom(1_790_000_000_000, new Uint8Array(16).fill(31));

test.for([
  ["nothing", ""],
  ["another prefix", good.replace("goal_", "task_")],
  ["upper case", good.toUpperCase()],
  ["one character less", good.slice(0, -1)],
  ["one character more", `${good}0`],
  ["the letter i, which Crockford leaves out", good.slice(0, -1) + "i"],
  ["the letter l, which Crockford leaves out", good.slice(0, -1) + "l"],
  ["the letter o, which Crockford leaves out", good.slice(0, -1) + "o"],
  ["the letter u, which Crockford leaves out", good.slice(0, -1) + "u"],
  ["a time of more than 48 bits", good.replace("goal_0", "goal_8")],
  ["a newline at the end", `${good}\n`],
  ["a path", `${good}/../x`],
] as const)("an id with %s is no goal's", ([, text]) => {
  expect(parseGoalId(text)).toBeNull();
  expect(parseTaskId(`${text.replace("goal_", "task_")}${text === "" ? "" : "00000"}!`)).toBeNull();
});

test("a goal's id is no task's, and a task's is no goal's", () => {
  expect(parseTaskId(good)).toBeNull();
  expect(parseGoalId(taskIdOf(good, 7))).toBeNull();
  expect(parseTaskId(taskIdOf(good, 7).slice(0, -1))).toBeNull();
});

test("arbitrary text is never taken for an id", () => {
  fc.assert(fc.property(fc.string(), (text) => parseGoalId(text) === null && parseTaskId(text) === null));
});

test("a number or a time that does not fit is a bug and throws", () => {
  expect(() => taskIdOf(good, INDEX_MAX + 1)).toThrow("must fit");
  expect(() => goalIdFrom(2 ** 50, new Uint8Array(16))).toThrow("must fit");
  expect(() => goalIdFrom(1, new Uint8Array(15))).toThrow("16 random bytes");
});
