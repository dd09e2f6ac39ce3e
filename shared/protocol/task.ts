/**
 * A task as a caller describes it. `isTaskSpec` is the fast path: one pass
 * that says yes or no. Only a task it refuses is looked at again by the
 * schema in `task-schema.ts`, which finds the JSON pointer of each fault. A
 * property test holds the two to the same verdict.
 */
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
import type { LockMode } from "../policy/lock-table.ts";
import { FUNCTION_NAME } from "./function.ts";
import { LOCK_NAME } from "./lock.ts";

export const METHODS = ["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"] as const;
export type Method = (typeof METHODS)[number];

export const PRIORITIES = ["interactive", "normal", "background"] as const;
export type Priority = (typeof PRIORITIES)[number];

/** When a parent, or a goal, has succeeded. Empty: everything runs, and any failure fails it. */
export interface CompletionRule {
  readonly failFast?: boolean;
  readonly minSuccessful?: number;
  readonly toleratedFailureCount?: number;
  readonly toleratedFailurePercentage?: number;
}

export interface CallSpec {
  readonly upstream: string;
  readonly method?: Method;
  /** Path and query, beginning with `/`. */
  readonly path: string;
  readonly headers?: Readonly<Record<string, string>>;
  /** Sent as JSON; a string with a `Content-Type` that is not JSON is sent as it stands. */
  readonly body?: unknown;
  /** Bytes to send, in base64. */
  readonly bodyBase64?: string;
  readonly idempotent?: boolean;
}

/** Work for whoever claims it from its queue. */
export interface WorkSpec {
  readonly queue: string;
  /** Any JSON. */
  readonly input?: unknown;
}

/** A function to call, by the name that it is registered under. */
export interface RunSpec {
  readonly function: string;
  /** Any JSON. */
  readonly input?: unknown;
}

/** What a try sets aside before it starts. What is left out is as the upstream says: one call, and its `reserve`. For a run: nothing; its calls are paid from what it does set aside first, and beyond that one by one. */
export interface Reserve {
  readonly calls?: number;
  readonly tokens?: number;
  readonly costMicros?: number;
}

export interface TaskSpec {
  readonly key?: string;
  /** A task's id, or a key of this goal. */
  readonly parentTaskId?: string;
  readonly after?: readonly string[];
  readonly afterEnd?: readonly string[];
  readonly call?: CallSpec;
  readonly work?: WorkSpec;
  readonly run?: RunSpec;
  /** A goal as it is made by itself. `goalFaults` says whether it is one. */
  readonly goal?: Readonly<Record<string, unknown>>;
  readonly group?: Readonly<Record<string, never>>;
  readonly dedupe?: "key" | "content";
  /** Equal tasks, of other goals too, that are there at the same time are one call. */
  readonly coalesce?: boolean;
  readonly priority?: Priority;
  readonly timeoutMs?: number;
  readonly ttlMs?: number;
  readonly retry?: { readonly maxAttempts?: number };
  readonly completion?: CompletionRule;
  readonly labels?: Readonly<Record<string, string>>;
  readonly reserve?: Reserve;
  /** Had before it starts, and kept until it ends. */
  readonly locks?: readonly LockSpec[];
}

/** A lock that a task needs. */
export interface LockSpec {
  readonly name: string;
  readonly mode?: LockMode;
  /** For mode `shared`: so many may hold it at once. */
  readonly permits?: number;
  readonly scope?: "goal" | "tenant";
}

/** RFC 9110 §9.2.2: repeating these has no further effect. */
export const SAFE_METHODS: ReadonlySet<string> = new Set(["GET", "HEAD"]);
export const IDEMPOTENT_METHODS: ReadonlySet<string> = new Set(["GET", "HEAD", "OPTIONS", "PUT", "DELETE"]);

export const UPSTREAM_NAME = /^[a-z0-9][a-z0-9_.-]{0,62}$/;
export const QUEUE_NAME = /^[a-z0-9][a-z0-9_.-]{0,62}$/;
export const HEADER_NAME = /^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}$/;
// A header's value must not end its line; anything below a space but a tab could.
// oxlint-disable-next-line no-control-regex
export const HEADER_VALUE = /^[^\x00-\x08\x0a-\x1f\x7f]*$/;
/** Printable ASCII without a fragment, as a request line takes it, and without a backslash, which some read as a slash. */
export const PATH = /^\/[!"$-[\]-~]*$/;
/** A segment that would climb or stand still, so that what a policy sees is what the upstream gets. */
export const DOT_SEGMENT = /(?:^|\/)(?:\.|%2e){1,2}(?:[/?]|$)/i;
export const BASE64 = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/;

const HOP_HEADERS = "connection|content-length|expect|host|keep-alive|proxy-[a-z-]+|te|trailer|transfer-encoding|upgrade";
/** Headers that Drover or the connection sets. */
export const RESERVED_HEADER = new RegExp(`^(?:${HOP_HEADERS}|idempotency-key|traceparent|drover-[a-z-]+)$`, "i");

const METHOD_SET: ReadonlySet<unknown> = new Set(METHODS);
const PRIORITY_SET: ReadonlySet<unknown> = new Set(PRIORITIES);
type Json = Readonly<Record<string, unknown>>;

const isObject = (value: unknown): value is Json => typeof value === "object" && value !== null && !Array.isArray(value);
const isInteger = (value: unknown, min: number, max: number): boolean =>
  Number.isInteger(value) && (value as number) >= min && (value as number) <= max;
const isText = (value: unknown, max: number): value is string => typeof value === "string" && value.length > 0 && value.length <= max;

function isNames(value: unknown): boolean {
  if (!Array.isArray(value) || value.length > DEPENDENCIES_PER_TASK_MAX) return false;
  for (const name of value) if (!isText(name, KEY_CHARS_MAX)) return false;
  return true;
}

function isLabels(value: unknown): boolean {
  if (!isObject(value)) return false;
  let count = 0;
  for (const name in value) {
    if (++count > LABELS_MAX || name.length === 0 || name.length > LABEL_CHARS_MAX) return false;
    const text = value[name];
    if (typeof text !== "string" || text.length > LABEL_CHARS_MAX) return false;
  }
  return true;
}

export function isHeaders(value: unknown): boolean {
  if (!isObject(value)) return false;
  let count = 0;
  for (const name in value) {
    if (++count > HEADERS_MAX || !HEADER_NAME.test(name) || RESERVED_HEADER.test(name)) return false;
    const text = value[name];
    if (typeof text !== "string" || text.length > HEADER_CHARS_MAX || !HEADER_VALUE.test(text)) return false;
  }
  return true;
}

function isRule(value: unknown): boolean {
  if (!isObject(value)) return false;
  for (const name in value) {
    const part = value[name];
    if (
      name === "failFast"
        ? typeof part !== "boolean"
        : name === "minSuccessful"
          ? !isInteger(part, 1, Number.MAX_SAFE_INTEGER)
          : name === "toleratedFailureCount"
            ? !isInteger(part, 0, Number.MAX_SAFE_INTEGER)
            : name !== "toleratedFailurePercentage" || typeof part !== "number" || !(part >= 0 && part <= 100)
    )
      return false;
  }
  return true;
}

function isRetry(value: unknown): boolean {
  if (!isObject(value)) return false;
  for (const name in value) if (name !== "maxAttempts" || !isInteger(value[name], 1, ATTEMPTS_MAX)) return false;
  return true;
}

function isReserve(value: unknown): boolean {
  if (!isObject(value)) return false;
  for (const name in value) {
    if (!(name === "tokens" || name === "costMicros" || (name === "calls" && value[name] !== 0))) return false;
    if (!isInteger(value[name], 0, name === "calls" ? CALLS_RESERVED_MAX : TOKENS_MAX)) return false;
  }
  return true;
}

function isLocks(value: unknown): boolean {
  if (!Array.isArray(value) || value.length === 0 || value.length > LOCKS_PER_TASK_MAX) return false;
  for (let i = 0; i < value.length; i++) {
    const lock: unknown = value[i];
    if (!isObject(lock)) return false;
    const { name, mode, permits, scope, ...rest } = lock;
    for (const _ in rest) return false;
    if (typeof name !== "string" || !LOCK_NAME.test(name)) return false;
    if (mode !== undefined && mode !== "exclusive" && mode !== "shared") return false;
    if (permits !== undefined && (mode !== "shared" || !isInteger(permits, 1, LOCK_PERMITS_MAX))) return false;
    if (scope !== undefined && scope !== "goal" && scope !== "tenant") return false;
    // Two scopes may have locks of one name, but a fence is told by the name alone.
    for (let j = 0; j < i; j++) if ((value[j] as Json)["name"] === name) return false;
  }
  return true;
}

function isCall(value: unknown): boolean {
  if (!isObject(value)) return false;
  let hasBody = 0;
  for (const name in value) {
    const part = value[name];
    switch (name) {
      case "upstream":
        break;
      case "path":
        break;
      case "method":
        if (!METHOD_SET.has(part)) return false;
        break;
      case "headers":
        if (!isHeaders(part)) return false;
        break;
      case "body":
        hasBody++;
        break;
      case "bodyBase64":
        if (typeof part !== "string" || !BASE64.test(part)) return false;
        hasBody++;
        break;
      case "idempotent":
        if (typeof part !== "boolean") return false;
        break;
      default:
        return false;
    }
  }
  const { upstream, path, method } = value;
  if (typeof upstream !== "string" || !UPSTREAM_NAME.test(upstream)) return false;
  if (!isText(path, PATH_CHARS_MAX) || !PATH.test(path) || DOT_SEGMENT.test(path)) return false;
  return hasBody === 0 || (hasBody === 1 && method !== undefined && method !== "GET" && method !== "HEAD");
}

function isWork(value: unknown): boolean {
  if (!isObject(value)) return false;
  for (const name in value) if (name !== "queue" && name !== "input") return false;
  const { queue } = value;
  return typeof queue === "string" && QUEUE_NAME.test(queue);
}

function isRun(value: unknown): boolean {
  if (!isObject(value)) return false;
  for (const name in value) if (name !== "function" && name !== "input") return false;
  const { function: name } = value;
  return typeof name === "string" && FUNCTION_NAME.test(name);
}

/** Whether the parts of a task go together. */
function isConsistent(value: Json): boolean {
  if (value["reserve"] !== undefined && value["group"] !== undefined) return false;
  if (value["coalesce"] === true && value["call"] === undefined && value["run"] === undefined) return false;
  return value["dedupe"] !== "content" || (value["key"] === undefined && value["group"] === undefined);
}

/** Whether `value` is a task that Drover can take. */
export function isTaskSpec(value: unknown): value is TaskSpec {
  if (!isObject(value)) return false;
  let kinds = 0;
  for (const name in value) {
    const part = value[name];
    switch (name) {
      case "key":
      case "parentTaskId":
        if (!isText(part, KEY_CHARS_MAX)) return false;
        break;
      case "after":
      case "afterEnd":
        if (!isNames(part)) return false;
        break;
      case "call":
        if (!isCall(part)) return false;
        kinds++;
        break;
      case "work":
        if (!isWork(part)) return false;
        kinds++;
        break;
      case "run":
        if (!isRun(part)) return false;
        kinds++;
        break;
      case "goal":
        if (!isObject(part)) return false;
        kinds++;
        break;
      case "group":
        if (!isObject(part) || Object.keys(part).length > 0) return false;
        kinds++;
        break;
      case "dedupe":
        if (part !== "key" && part !== "content") return false;
        break;
      case "coalesce":
        if (typeof part !== "boolean") return false;
        break;
      case "priority":
        if (!PRIORITY_SET.has(part)) return false;
        break;
      case "timeoutMs":
        if (!isInteger(part, 1, TIMEOUT_MS_MAX)) return false;
        break;
      case "ttlMs":
        if (!isInteger(part, 1, DURATION_MS_MAX)) return false;
        break;
      case "retry":
        if (!isRetry(part)) return false;
        break;
      case "completion":
        if (!isRule(part)) return false;
        break;
      case "labels":
        if (!isLabels(part)) return false;
        break;
      case "reserve":
        if (!isReserve(part)) return false;
        break;
      case "locks":
        if (!isLocks(part)) return false;
        break;
      default:
        return false;
    }
  }
  return kinds === 1 && isConsistent(value);
}
