/**
 * Ids are prefixed and sort by creation. A goal's id is `goal_` and a ULID
 * (48 bits of milliseconds, 80 of chance, Crockford base 32, lower case). A
 * task's id is `task_`, its goal's ULID and its number in the goal, so any
 * request about a task finds the goal's object from the id alone.
 */
import { assert } from "./assert.ts";

const ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz";
const TIME_CHARS = 10;
const CHANCE_CHARS = 16;
const INDEX_CHARS = 6;
const GOAL_PATTERN = new RegExp(`^goal_[0-7][${ALPHABET}]{${TIME_CHARS + CHANCE_CHARS - 1}}$`);
const TASK_PATTERN = new RegExp(`^task_([0-7][${ALPHABET}]{${TIME_CHARS + CHANCE_CHARS - 1}})([${ALPHABET}]{${INDEX_CHARS}})$`);

export type GoalId = string & { readonly brand: "GoalId" };
export type TaskId = string & { readonly brand: "TaskId" };

function encode(value: number, chars: number): string {
  let text = "";
  for (let i = 0; i < chars; i++) {
    text = ALPHABET[value % 32]! + text;
    value = Math.floor(value / 32);
  }
  assert(value === 0, "the value must fit its characters");
  return text;
}

/** `chance` is 16 random bytes, of which five bits each are used. */
export function goalIdFrom(nowMs: number, chance: Uint8Array): GoalId {
  assert(chance.length === CHANCE_CHARS, "a goal's id takes 16 random bytes");
  let text = encode(nowMs, TIME_CHARS);
  for (const byte of chance) text += ALPHABET[byte & 31]!;
  return `goal_${text}` as GoalId;
}

export function parseGoalId(text: string): GoalId | null {
  return GOAL_PATTERN.test(text) ? (text as GoalId) : null;
}

/** The text that all ids of one goal's tasks begin with. */
export function taskIdPrefix(goalId: GoalId): string {
  return `task_${goalId.slice("goal_".length)}`;
}

export function taskIdOf(goalId: GoalId, index: number): TaskId {
  return (taskIdPrefix(goalId) + encode(index, INDEX_CHARS)) as TaskId;
}

/** Odd numbers of 80 bits, from the digits of the golden ratio, of pi and of e: the steps below can be undone, so no two numbers meet. */
const STEP = 0x9e3779b97f4a7c15f39dn;
const FIRST = 0x3243f6a8885a308d3131n;
const SECOND = 0x2b7e151628aed2a6abf7n;
const HALF_BITS = 40n;
const CHANCE_BITS = 80;

/**
 * The id of the goal that a task of kind `goal` opens: the same whenever and
 * wherever it is asked for. It sorts with its parent. The finalizer is that of
 * MurmurHash3 (A. Appleby), for 80 bits: tasks of one goal have ids that differ
 * for certain, those of different goals as two random ids do.
 */
export function subGoalIdOf(goalId: GoalId, index: number): GoalId {
  const chars = goalId.slice("goal_".length);
  let value = 0n;
  for (const char of chars.slice(TIME_CHARS)) value = value * 32n + BigInt(ALPHABET.indexOf(char));
  value = BigInt.asUintN(CHANCE_BITS, value + BigInt(index + 1) * STEP);
  for (const factor of [FIRST, SECOND]) value = BigInt.asUintN(CHANCE_BITS, (value ^ (value >> HALF_BITS)) * factor);
  value ^= value >> HALF_BITS;
  let text = "";
  for (let i = 0; i < CHANCE_CHARS; i++) {
    text = ALPHABET[Number(value % 32n)]! + text;
    value /= 32n;
  }
  return `goal_${chars.slice(0, TIME_CHARS)}${text}` as GoalId;
}

export function parseTaskId(text: string): { goalId: GoalId; index: number } | null {
  const match = TASK_PATTERN.exec(text);
  if (match === null) return null;
  let index = 0;
  for (const char of match[2]!) index = index * 32 + ALPHABET.indexOf(char);
  return { goalId: `goal_${match[1]!}` as GoalId, index };
}
