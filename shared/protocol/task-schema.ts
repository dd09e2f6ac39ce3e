/** The schema of a task: slower than `isTaskSpec`, and it says where each fault is. */
import * as v from "valibot";
import type { Fault } from "../errors.ts";
import {
  ATTEMPTS_MAX,
  CALLS_RESERVED_MAX,
  DEPENDENCIES_PER_TASK_MAX,
  DURATION_MS_MAX,
  HEADER_CHARS_MAX,
  HEADERS_MAX,
  KEY_CHARS_MAX,
  LABEL_CHARS_MAX,
  LABELS_MAX,
  LOCK_PERMITS_MAX,
  LOCKS_PER_TASK_MAX,
  PATH_CHARS_MAX,
  TIMEOUT_MS_MAX,
  TOKENS_MAX,
} from "../limits.ts";
import { LOCK_MODES } from "../policy/lock-table.ts";
import { FUNCTION_NAME } from "./function.ts";
import { LOCK_NAME } from "./lock.ts";
import { faultsOf } from "./faults.ts";
import {
  BASE64,
  DOT_SEGMENT,
  HEADER_NAME,
  HEADER_VALUE,
  METHODS,
  PATH,
  PRIORITIES,
  QUEUE_NAME,
  RESERVED_HEADER,
  UPSTREAM_NAME,
} from "./task.ts";

const isPlain = (value: unknown): boolean => typeof value === "object" && value !== null && !Array.isArray(value);

/** An object with these properties and no others. `v.strictObject` alone also takes arrays, which are not what a caller means. */
export const object = <T extends v.ObjectEntries>(entries: T) =>
  v.pipe(v.custom<Record<string, unknown>>(isPlain, "must be an object"), v.strictObject(entries));

type Check = (text: string) => string | null;

/** An object of strings. `v.record` takes arrays, and passes over names such as `constructor`. */
const texts = (noun: string, max: number, nameFault: Check, textFault: Check) =>
  v.pipe(
    v.custom<Record<string, string>>(isPlain, "must be an object of strings"),
    v.rawCheck(({ dataset, addIssue }) => {
      if (!dataset.typed) return;
      const input = dataset.value;
      const all = Object.entries<unknown>(input);
      if (all.length > max) return addIssue({ message: `must have at most ${max} ${noun}` });
      for (const [key, value] of all) {
        const ofText = typeof value === "string" ? textFault(value) : `must be string, not ${JSON.stringify(value)}`;
        const message = nameFault(key) ?? ofText;
        if (message !== null) addIssue({ message, path: [{ type: "object", origin: "value", input, key, value }] });
      }
    }),
  );

const lengthFault = (text: string, max: number): string | null => (text.length > max ? `must have at most ${max} characters` : null);

export const integer = (min: number, max: number) =>
  v.pipe(
    v.number(),
    v.integer("must be a whole number"),
    v.minValue(min, `must be at least ${min}`),
    v.maxValue(max, `must be at most ${max}`),
  );

const name = v.pipe(
  v.string(),
  v.minLength(1, "must not be empty"),
  v.maxLength(KEY_CHARS_MAX, `must have at most ${KEY_CHARS_MAX} characters`),
);
const names = v.pipe(v.array(name), v.maxLength(DEPENDENCIES_PER_TASK_MAX, `must name at most ${DEPENDENCIES_PER_TASK_MAX} tasks`));

export const upstreamName = v.pipe(
  v.string(),
  v.regex(UPSTREAM_NAME, "must be 1 to 63 of a-z, 0-9, '_', '.', '-', beginning with a letter or digit"),
);

export const labels = texts(
  "labels",
  LABELS_MAX,
  (label) => (label === "" ? "a label needs a name" : lengthFault(label, LABEL_CHARS_MAX)),
  (text) => lengthFault(text, LABEL_CHARS_MAX),
);

export const headers = texts(
  "headers",
  HEADERS_MAX,
  (header) => {
    if (!HEADER_NAME.test(header)) return "is not a header's name";
    return RESERVED_HEADER.test(header) ? "is set by Drover or by the connection and cannot be given" : null;
  },
  (text) => lengthFault(text, HEADER_CHARS_MAX) ?? (HEADER_VALUE.test(text) ? null : "has a character that a header cannot carry"),
);

export const completion = object({
  failFast: v.optional(v.boolean()),
  minSuccessful: v.optional(integer(1, Number.MAX_SAFE_INTEGER)),
  toleratedFailureCount: v.optional(integer(0, Number.MAX_SAFE_INTEGER)),
  toleratedFailurePercentage: v.optional(v.pipe(v.number(), v.minValue(0, "must be at least 0"), v.maxValue(100, "must be at most 100"))),
});

export const retry = object({ maxAttempts: v.optional(integer(1, ATTEMPTS_MAX)) });

const call = v.pipe(
  object({
    upstream: upstreamName,
    method: v.optional(v.picklist(METHODS)),
    path: v.pipe(
      v.string(),
      v.minLength(1, "must begin with '/'"),
      v.maxLength(PATH_CHARS_MAX, `must have at most ${PATH_CHARS_MAX} characters`),
      v.regex(PATH, "must begin with '/' and be percent-encoded, without a fragment"),
      v.check((path) => !DOT_SEGMENT.test(path), "must not contain '.' or '..' segments"),
    ),
    headers: v.optional(headers),
    body: v.optional(v.unknown()),
    bodyBase64: v.optional(v.pipe(v.string(), v.regex(BASE64, "must be base64"))),
    idempotent: v.optional(v.boolean()),
  }),
  v.check((spec) => !("body" in spec && "bodyBase64" in spec), "takes body or bodyBase64, not both"),
  v.check(
    (spec) => !("body" in spec || "bodyBase64" in spec) || (spec.method !== undefined && spec.method !== "GET" && spec.method !== "HEAD"),
    "has a body, so it needs a method that takes one, such as POST",
  ),
);

export const queueName = v.pipe(
  v.string(),
  v.regex(QUEUE_NAME, "must be 1 to 63 of a-z, 0-9, '_', '.', '-', beginning with a letter or digit"),
);

const functionName = v.pipe(
  v.string(),
  v.regex(FUNCTION_NAME, "must be 1 to 63 of a-z, 0-9, '_', '.', '-', beginning with a letter or digit"),
);

const run = object({ function: functionName, input: v.optional(v.unknown()) });

const work = object({ queue: queueName, input: v.optional(v.unknown()) });

const KINDS = ["call", "run", "work", "goal", "group"] as const;

const locks = v.pipe(
  v.array(
    v.pipe(
      object({
        name: v.pipe(
          v.string(),
          v.regex(LOCK_NAME, "must be 1 to 128 of A-Z, a-z, 0-9, '_', '.', ':', '/', '@', '-', beginning with a letter or digit"),
        ),
        mode: v.optional(v.picklist(LOCK_MODES)),
        permits: v.optional(integer(1, LOCK_PERMITS_MAX)),
        scope: v.optional(v.picklist(["goal", "tenant"])),
      }),
      v.check(
        ({ mode, permits }) => permits === undefined || mode === "shared",
        "permits are for mode shared: so many may hold it at once",
      ),
    ),
  ),
  v.minLength(1, "must name a lock"),
  v.maxLength(LOCKS_PER_TASK_MAX, `must name at most ${LOCKS_PER_TASK_MAX} locks`),
  v.check((list) => new Set(list.map(({ name: lock }) => lock)).size === list.length, "must name each lock once"),
);

const task = v.pipe(
  object({
    key: v.optional(name),
    parentTaskId: v.optional(name),
    after: v.optional(names),
    afterEnd: v.optional(names),
    call: v.optional(call),
    run: v.optional(run),
    work: v.optional(work),
    goal: v.optional(v.custom<Record<string, unknown>>(isPlain, "must be an object")),
    group: v.optional(object({})),
    dedupe: v.optional(v.picklist(["key", "content"])),
    coalesce: v.optional(v.boolean()),
    priority: v.optional(v.picklist(PRIORITIES)),
    timeoutMs: v.optional(integer(1, TIMEOUT_MS_MAX)),
    ttlMs: v.optional(integer(1, DURATION_MS_MAX)),
    retry: v.optional(retry),
    completion: v.optional(completion),
    labels: v.optional(labels),
    reserve: v.optional(
      object({
        calls: v.optional(integer(1, CALLS_RESERVED_MAX)),
        tokens: v.optional(integer(0, TOKENS_MAX)),
        costMicros: v.optional(integer(0, TOKENS_MAX)),
      }),
    ),
    locks: v.optional(locks),
  }),
  v.check((spec) => spec.reserve === undefined || spec.group === undefined, "is a group, which uses nothing, so it takes no reserve"),
  v.check(
    (spec) => spec.coalesce !== true || spec.call !== undefined || spec.run !== undefined,
    "coalesce is for a call or a run: nothing else has an answer that others could use",
  ),
  v.check((spec) => KINDS.filter((kind) => spec[kind] !== undefined).length === 1, `needs exactly one of ${KINDS.join(", ")}`),
  v.check(
    (spec) => spec.dedupe !== "content" || (spec.key === undefined && spec.group === undefined),
    "dedupe: content derives the key from the work itself, so it takes no key and no group",
  ),
);

/** The faults of one task, each with its JSON pointer below `at`; none if the task is fine. */
export function taskFaults(value: unknown, at: string): Fault[] {
  return faultsOf(v.safeParse(task, value), at);
}
