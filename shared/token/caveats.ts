/**
 * The closed set of caveats: each takes something away, none gives. A caveat
 * that is not of this set, or has a property more or less, denies everything.
 */
import { parseGoalId } from "../ids.ts";
import { CAVEAT_ITEMS_MAX, CAVEAT_TEXT_CHARS_MAX, DEPTH_MAX } from "../limits.ts";

export const SCOPES = ["admin", "submit", "read", "work", "approve"] as const;
export type Scope = (typeof SCOPES)[number];

export const DIMENSIONS = ["tasks", "calls", "tokens", "costMicros"] as const;
export type Dimension = (typeof DIMENSIONS)[number];
export type Ceilings = Readonly<Partial<Record<Dimension, number>>>;

/** The first caveat of every token: who it was made for, and by which key. */
export interface RootCaveat {
  readonly type: "root";
  readonly tenant: string;
  /** The key that the chain begins with. */
  readonly key: string;
  /** The tenant's epoch at the time. */
  readonly epoch: number;
  readonly subject: string;
}

export type ListName = "upstreams" | "methods" | "paths" | "functions" | "queues";

export type Caveat =
  /** One goal, as long as its epoch is this; left out, it is 0. */
  | { readonly type: "goal"; readonly goalId: string; readonly epoch?: number }
  /** Names, or patterns where `*` stands for any run of characters. */
  | { readonly type: ListName; readonly allow: readonly string[] }
  | { readonly type: "scopes"; readonly allow: readonly Scope[] }
  /** The most that a goal made with the token may be given. */
  | { readonly type: "budget"; readonly max: Ceilings }
  /** Levels of tasks below the roots of a goal. */
  | { readonly type: "depth"; readonly max: number }
  /** Milliseconds since 1970 from which on the token is nothing. */
  | { readonly type: "expires"; readonly atMs: number };

type Json = Readonly<Record<string, unknown>>;
type Check = (value: unknown) => boolean;

const isObject = (value: unknown): value is Json => typeof value === "object" && value !== null && !Array.isArray(value);
const isText: Check = (value) => typeof value === "string" && value.length > 0 && value.length <= CAVEAT_TEXT_CHARS_MAX;
const isCount: Check = (value) => Number.isSafeInteger(value) && (value as number) >= 0 && !Object.is(value, -0);
const isListOf = (isItem: Check): Check => {
  return (value) => Array.isArray(value) && value.length <= CAVEAT_ITEMS_MAX && value.every((item) => isItem(item));
};
const isOne =
  (words: readonly string[]): Check =>
  (value) =>
    words.includes(value as string);
const isList = isListOf(isText);

function isCeilings(value: unknown): boolean {
  return isObject(value) && Object.entries(value).every(([name, max]) => isOne(DIMENSIONS)(name) && isCount(max));
}

interface Shape {
  readonly needs: Readonly<Record<string, Check>>;
  readonly may?: Readonly<Record<string, Check>>;
}

const LIST: Shape = { needs: { allow: isList } };
const ROOT: Shape = { needs: { tenant: isText, key: isText, epoch: isCount, subject: isText } };

const SHAPES: Readonly<Record<Caveat["type"], Shape>> = {
  goal: { needs: { goalId: (value) => typeof value === "string" && parseGoalId(value) !== null }, may: { epoch: isCount } },
  upstreams: LIST,
  methods: LIST,
  paths: LIST,
  functions: LIST,
  queues: LIST,
  scopes: { needs: { allow: isListOf(isOne(SCOPES)) } },
  budget: { needs: { max: isCeilings } },
  depth: { needs: { max: (value) => isCount(value) && (value as number) <= DEPTH_MAX } },
  expires: { needs: { atMs: isCount } },
};

function fits(value: Json, { needs, may = {} }: Shape): boolean {
  const checks: Readonly<Record<string, Check>> = { ...needs, ...may };
  // Every object has properties that nobody gave it, and a caveat must not be let in by one of them.
  for (const name of Object.keys(value)) if (name !== "type" && !(Object.hasOwn(checks, name) && checks[name]!(value[name]))) return false;
  return Object.keys(needs).every((name) => Object.hasOwn(value, name));
}

/** Whether it is a caveat of the set: nothing missing, nothing more. */
export function isCaveat(value: unknown): value is Caveat {
  if (!isObject(value) || typeof value["type"] !== "string") return false;
  return Object.hasOwn(SHAPES, value["type"]) && fits(value, SHAPES[value["type"] as Caveat["type"]]);
}

export function isRootCaveat(value: unknown): value is RootCaveat {
  return isObject(value) && value["type"] === "root" && fits(value, ROOT);
}

export const CAVEAT_TYPES = Object.keys(SHAPES) as readonly Caveat["type"][];
