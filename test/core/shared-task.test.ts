/**
 * The two readers of a task agree: the fast path that says yes or no, and the
 * schema that says where each fault is. A disagreement would take bad tasks,
 * or refuse good ones without a reason.
 */
import fc from "fast-check";
import { expect, test } from "vitest";
import * as limits from "../../shared/limits.ts";
import { taskFaults } from "../../shared/protocol/task-schema.ts";
import { isTaskSpec, METHODS, PRIORITIES } from "../../shared/protocol/task.ts";

/** What is likely to lie on the wrong side of a bound, or to be taken for something else. */
const ODD: readonly unknown[] = [
  ...[0, -1, 1, 1.5, 20, 21, 100, 101, 600_000, 600_001, 2 ** 53, -0, Number.NaN, Number.POSITIVE_INFINITY],
  ...["", " ", "x".repeat(63), "x".repeat(64), "x".repeat(256), "x".repeat(257), "ä", "a\nb", "a\tb", "A", "_a", "YQ==", "YQ=", "YQ"],
  ...["/", "/a/../b", "/%2E%2e/x", "/a#b", "/ä", "/..a", "x", "/a?b=/../c", `/${"a".repeat(8_191)}`, `/${"a".repeat(8_192)}`],
  ...["GET", "POST", "get", "TRACE", "key", "content", "normal", "host", "drover-goal", "x-ok", "in valid", "HEAD", "OPTIONS"],
  ...[null, true, false, [], {}, [[]], [""], ["a"], [1], { a: 1 }, { "": "x" }, { a: "x" }],
  Array.from({ length: limits.DEPENDENCIES_PER_TASK_MAX + 1 }, () => "a"),
  Array.from({ length: limits.DEPENDENCIES_PER_TASK_MAX }, () => "a"),
  Object.fromEntries(Array.from({ length: limits.LABELS_MAX }, (_, i) => [`l${i}`, ""])),
  Object.fromEntries(Array.from({ length: limits.HEADERS_MAX }, (_, i) => [`h${i}`, ""])),
  Object.fromEntries(Array.from({ length: limits.LABELS_MAX + 1 }, (_, i) => [`l${i}`, ""])),
  Object.fromEntries(Array.from({ length: limits.HEADERS_MAX + 1 }, (_, i) => [`h${i}`, ""])),
];
const NAMES = [
  ...[
    "key",
    "parentTaskId",
    "after",
    "afterEnd",
    "call",
    "work",
    "group",
    "dedupe",
    "priority",
    "timeoutMs",
    "ttlMs",
    "retry",
    "completion",
    "labels",
  ],
  ...["upstream", "method", "path", "headers", "body", "bodyBase64", "idempotent", "maxAttempts", "failFast", "minSuccessful"],
  ...[
    "toleratedFailureCount",
    "toleratedFailurePercentage",
    "run",
    "function",
    "input",
    "work",
    "x",
    "",
    "__proto__",
    "constructor",
    "toString",
    "prototype",
  ],
  ...["host", "Content-Length", "drover-goal", "proxy-authorization", "Idempotency-Key", "x-mine"],
];

const name = fc.string({ minLength: 1, maxLength: limits.KEY_CHARS_MAX });
const names = fc.array(name, { maxLength: 4 });
const texts = fc.dictionary(fc.stringMatching(/^x-[a-z]{1,8}$/), fc.stringMatching(/^[ -~]{0,20}$/), { maxKeys: 4 });
const path = fc.stringMatching(/^\/[a-z0-9/?=&%-]{0,40}$/);
const upstream = fc.stringMatching(/^[a-z0-9][a-z0-9_.-]{0,20}$/);
const whole = (max: number) => fc.integer({ min: 1, max });

const bodiless = fc.record(
  { upstream, path, method: fc.constantFrom(...METHODS), headers: texts, idempotent: fc.boolean() },
  { requiredKeys: ["upstream", "path"] },
);
const bodied = fc.record(
  {
    ...{ upstream, path, method: fc.constantFrom("POST", "PUT", "PATCH", "DELETE", "OPTIONS"), headers: texts, idempotent: fc.boolean() },
    body: fc.jsonValue(),
  },
  { requiredKeys: ["upstream", "path", "method", "body"] },
);
const rule = fc.record(
  {
    failFast: fc.boolean(),
    minSuccessful: whole(limits.TASKS_PER_GOAL_MAX),
    toleratedFailureCount: fc.nat(),
    toleratedFailurePercentage: fc.double({ min: 0, max: 100, noNaN: true }),
  },
  { requiredKeys: [] },
);
const options = fc.record(
  {
    parentTaskId: name,
    ...{ after: names, afterEnd: names, labels: texts, completion: rule },
    priority: fc.constantFrom(...PRIORITIES),
    timeoutMs: whole(limits.TIMEOUT_MS_MAX),
    ttlMs: whole(limits.DURATION_MS_MAX),
    retry: fc.record({ maxAttempts: whole(limits.ATTEMPTS_MAX) }, { requiredKeys: [] }),
  },
  { requiredKeys: [] },
);
const identity = fc.oneof(
  fc.constant({}),
  fc.record({ key: name }),
  fc.record({ key: name, dedupe: fc.constant("key") }),
  fc.constant({ dedupe: "content" }),
);
const valid = fc.oneof(
  fc.tuple(options, identity, fc.oneof(bodiless, bodied)).map(([some, who, call]) => ({ ...some, ...who, call })),
  fc
    .tuple(options, identity, fc.record({ queue: fc.stringMatching(/^[a-z0-9][a-z0-9_.-]{0,8}$/), input: fc.jsonValue() }))
    .map(([some, who, work]) => ({ ...some, ...who, work })),
  fc
    .tuple(options, identity, fc.record({ function: upstream, input: fc.jsonValue() }, { requiredKeys: ["function"] }))
    .map(([some, who, run]) => ({ ...some, ...who, run })),
  fc.tuple(options, fc.record({ key: name })).map(([some, who]) => ({ ...some, ...who, group: {} })),
);

interface Change {
  /** Chooses an object or array inside the task. */
  readonly where: number;
  readonly name: string;
  readonly what: "set" | "delete" | "odd";
  readonly value: unknown;
}
const change: fc.Arbitrary<Change> = fc.record({
  where: fc.nat(),
  name: fc.constantFrom(...NAMES),
  what: fc.constantFrom("set", "delete", "odd"),
  value: fc.oneof(fc.constantFrom(...ODD), fc.jsonValue()),
});

function containersOf(value: unknown): object[] {
  if (typeof value !== "object" || value === null) return [];
  return [value, ...Object.values(value).flatMap(containersOf)];
}

/** Puts a fault, or something that looks like one, into a copy of the task. */
function changed(task: unknown, { where, name: key, what, value }: Change): unknown {
  const copy: unknown = structuredClone(task);
  const containers = containersOf(copy);
  const container = containers[where % containers.length]!;
  const own = Object.keys(container);
  const chosen = what === "set" || own.length === 0 ? key : own[where % own.length]!;
  if (what === "delete") Reflect.deleteProperty(container, chosen);
  else Object.defineProperty(container, chosen, { value, enumerable: true, configurable: true, writable: true });
  return copy;
}

function agree(value: unknown): void {
  const faults = taskFaults(value, "");
  expect({ fast: isTaskSpec(value), value, faults }).toMatchObject({ fast: faults.length === 0 });
}

test("a valid task is taken by both", () => {
  fc.assert(fc.property(valid, (task) => isTaskSpec(task) && taskFaults(task, "").length === 0));
});

test("both give one verdict on a task with something changed", () => {
  fc.assert(
    fc.property(valid, fc.array(change, { minLength: 1, maxLength: 3 }), (task, changes) => {
      agree(changes.reduce(changed, task as unknown));
    }),
    { numRuns: 3_000 },
  );
});

test("both give one verdict on any JSON", () => {
  fc.assert(fc.property(fc.jsonValue(), agree));
  for (const odd of ODD) agree(odd);
});

test("both give one verdict on each property set to each odd value", () => {
  const call = { upstream: "u", path: "/" };
  for (const key of NAMES) {
    for (const value of ODD) {
      const entry = JSON.parse(`{${JSON.stringify(key)}:null}`) as object;
      const put = (target: object): object => Object.defineProperty({ ...target }, key, { value, enumerable: true });
      agree(put({ ...entry, call }));
      agree({ call: put(call) });
      agree({ call: put({ ...call, method: "POST" }) });
      agree({ call: put({ ...call, method: "POST", body: 1 }) });
      agree(put({ call, dedupe: "content" }));
      agree({ call: { ...call, headers: put({}) } });
      for (const inner of ["labels", "retry", "completion", "group"]) agree({ call, [inner]: put({}) });
      agree({ group: put({}) });
      agree({ work: put({ queue: "review" }) });
      agree(put({ work: { queue: "review" }, dedupe: "content" }));
      agree({ call, work: put({ queue: "review" }) });
    }
  }
});

const call = { upstream: "search", path: "/q" };

test.for<[string, unknown, string, RegExp]>([
  ["an unknown property", { call, colour: 1 }, "/colour", /not a property that is known/],
  ["an unknown property inside", { call: { ...call, url: "/" } }, "/call/url", /not a property that is known/],
  [
    "a property that every object inherits",
    JSON.parse('{"call":{"upstream":"u","path":"/"},"__proto__":1}'),
    "/__proto__",
    /not a property/,
  ],
  ["a wrong type", { call, timeoutMs: "5" }, "/timeoutMs", /^must be number, not "5"$/],
  ["a missing path", { call: { upstream: "search" } }, "/call/path", /^is missing$/],
  ["a missing upstream", { call: { path: "/" } }, "/call/upstream", /^is missing$/],
  ["an empty upstream", { call: { ...call, upstream: "" } }, "/call/upstream", /1 to 63 of a-z/],
  ["two kinds", { call, group: {} }, "", /exactly one of call, run, work, goal, group/],
  ["no kind", { key: "a" }, "", /exactly one of call, run, work, goal, group/],
  ["NaN", { call, ttlMs: Number.NaN }, "/ttlMs", /^must be number, not NaN$/],
  ["a fraction", { call, ttlMs: 1.5 }, "/ttlMs", /whole number/],
  ["too small a number", { call, retry: { maxAttempts: 0 } }, "/retry/maxAttempts", /at least 1/],
  ["too large a number", { call, timeoutMs: 600_001 }, "/timeoutMs", /at most 600000/],
  ["an unknown method", { call: { ...call, method: "get" } }, "/call/method", /"GET" \| "HEAD".*not "get"/],
  ["a body on a GET", { call: { ...call, method: "GET", body: 1 } }, "/call", /needs a method that takes one/],
  ["two bodies", { call: { ...call, method: "POST", body: 1, bodyBase64: "" } }, "/call", /not both/],
  ["broken base64", { call: { ...call, method: "POST", bodyBase64: "YQ=" } }, "/call/bodyBase64", /must be base64/],
  ["a path that climbs", { call: { ...call, path: "/a/../b" } }, "/call/path", /'\.\.' segments/],
  ["a path that is no path", { call: { ...call, path: "q" } }, "/call/path", /begin with '\/'/],
  ["a reserved header", { call: { ...call, headers: { Host: "x" } } }, "/call/headers/Host", /set by Drover/],
  ["a header's name with a slash", { call: { ...call, headers: { "a/b": "x" } } }, "/call/headers/a~1b", /not a header's name/],
  ["a header that ends its line", { call: { ...call, headers: { a: "x\r\nb: c" } } }, "/call/headers/a", /cannot carry/],
  ["a header that is a number", { call: { ...call, headers: { a: 1 } } }, "/call/headers/a", /must be string, not 1/],
  ["labels in a list", { call, labels: [] }, "/labels", /must be an object of strings/],
  ["a label that is a number", { call, labels: { team: 5 } }, "/labels/team", /must be string, not 5/],
  ["work without a queue", { work: { input: 1 } }, "/work/queue", /^is missing$/],
  ["a queue that is no name", { work: { queue: "To Do" } }, "/work/queue", /1 to 63 of a-z/],
  ["work with a path", { work: { queue: "a", path: "/" } }, "/work/path", /not a property that is known/],
  ["a group that is a list", { group: [] }, "/group", /must be an object/],
  ["a name in `after` that is empty", { call, after: ["a", ""] }, "/after/1", /must not be empty/],
  ["an empty key", { call, key: "" }, "/key", /must not be empty/],
  ["content and a key", { call, dedupe: "content", key: "a" }, "", /takes no key and no group/],
  ["a list for a task", [], "", /must be an object/],
  ["nothing for a task", null, "", /must be an object/],
])("%s is named with its place and a sentence", ([, value, pointer, sentence]) => {
  const faults = taskFaults(value, "/tasks/0");
  expect(isTaskSpec(value)).toBe(false);
  expect(faults).toHaveLength(1);
  expect(faults[0]!.pointer).toBe(`/tasks/0${pointer}`);
  expect(faults[0]!.detail).toMatch(sentence);
});

test("every fault of a task is listed, twenty at most, and none repeats a long text", () => {
  const bad = { call: { upstream: 1, path: 2, method: 3 }, key: 4, priority: "x".repeat(100_000) };
  const faults = taskFaults(bad, "");
  expect(faults.map(({ pointer }) => pointer)).toEqual(["/key", "/call/upstream", "/call/method", "/call/path", "/priority"]);
  for (const { detail } of faults) expect(detail.length).toBeLessThan(200);
  expect(taskFaults({ call, after: Array.from({ length: 50 }, () => 1) }, "")).toHaveLength(20);
});
