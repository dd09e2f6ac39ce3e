/**
 * What a function's source is written against, as types alone: the package
 * entry `drover/functions`. A bundle has nothing of it.
 *
 *   import type { Handler } from "drover/functions";
 *   const handler: Handler<{ page: number }, { words: number }> = async ({ page }, ctx) => { … };
 *   export default handler;
 */
import type { ErrorCode, Problem } from "../shared/errors.ts";
import type { LockMode } from "../shared/policy/lock-table.ts";
import type { Method, Reserve, TaskSpec } from "../shared/protocol/task.ts";

export type { ErrorCode, Method, Problem, Reserve, TaskSpec };

/**
 * The default export of a function's module. `input` is the task's `run.input`
 * (`null` where it has none); what it returns is the task's `result.body`,
 * as JSON of at most 1 MiB. What it throws fails the task as `function_error`;
 * an error with `retryable: true` lets it run again, up to its `retry.maxAttempts`.
 */
export type Handler<Input = unknown, Output = unknown> = (input: Input, ctx: Context) => Output | Promise<Output>;

/** A module may export this as `prime`: it is called once, when the function is put, and what it computes is in every invocation. It asks nothing of the world. */
export type Prime = () => void | Promise<void>;

/** What rejects a promise of `ctx`. A handler that lets it through ends its task with that code. */
export interface HostError extends Error {
  readonly name: "HostError";
  /**
   * For calls: `permission_denied` (policy, or no such origin), `not_found` (no such upstream), `budget_exhausted`,
   * `upstream_timeout`, `upstream_error` (no answer came), `outcome_unknown` (it may have had its effect), `result_too_large`.
   * For locks: `lock_held`. For all: `invalid_request` (the message says what is wrong), `canceled`, `stale_attempt`,
   * `temporary_reduced_capacity`.
   */
  readonly code: ErrorCode;
}

/** A call of an upstream, as `call` of a task has it. */
export interface CallRequest {
  /** Default `GET`. */
  readonly method?: Method;
  /** Path and query, beginning with `/`. */
  readonly path: string;
  readonly headers?: Readonly<Record<string, string>>;
  /** Sent as JSON; a string with a `Content-Type` that is not JSON is sent as it stands. */
  readonly body?: unknown;
  /** `base64`: `body` is bytes in base64. */
  readonly encoding?: "base64";
  /** A POST or PATCH that does no harm when it is made twice. */
  readonly idempotent?: boolean;
  /** What is set aside of the budget before the call. Default: as the upstream says. */
  readonly reserve?: Reserve;
  /** Milliseconds. Default: as the upstream says. */
  readonly timeoutMs?: number;
  /**
   * Names the call within its task. The upstream gets `Idempotency-Key: <task id>.<key>`, the same from every attempt.
   * Default: the number of the ask, which is the same as long as a handler asks in the same order.
   */
  readonly key?: string;
}

/** The answer of an upstream, whatever its status. */
export interface CallAnswer<Body = unknown> {
  readonly status: number;
  /** Names in lower case; without cookies and what belongs to the connection. */
  readonly headers: Readonly<Record<string, string>>;
  /** JSON as a value, text as a string, other bytes in base64. At most 8 MiB. */
  readonly body: Body;
  readonly encoding?: "base64";
}

export interface FetchInit {
  readonly method?: string;
  readonly headers?: Readonly<Record<string, string>> | Iterable<readonly [string, string]>;
  /** Text is sent as it stands, another value as JSON. */
  readonly body?: unknown;
  readonly encoding?: "base64";
  readonly idempotent?: boolean;
  readonly reserve?: Reserve;
  readonly timeoutMs?: number;
  readonly key?: string;
}

/** What is there of a `Response`. The body has been read. */
export interface FetchAnswer {
  readonly status: number;
  /** 200 to 299. */
  readonly ok: boolean;
  readonly headers: {
    get(name: string): string | null;
    has(name: string): boolean;
    entries(): IterableIterator<[string, string]>;
    [Symbol.iterator](): IterableIterator<[string, string]>;
  };
  text(): Promise<string>;
  json<Body = unknown>(): Promise<Body>;
  bytes(): Promise<Uint8Array>;
}

/** What became of a task that was spawned: `joined` where the goal had one of its key. */
export interface Receipt {
  readonly taskId: string;
  readonly status: "queued" | "joined";
}

/** A task as `ctx.results` tells of it. */
export interface TaskResult<Body = unknown> {
  readonly taskId: string;
  readonly key?: string;
  readonly status: "queued" | "waiting" | "running" | "succeeded" | "failed" | "canceled" | "expired";
  /** Of a task that succeeded; a function's output is the `body`. */
  readonly result?: { readonly status: number; readonly body: Body };
  /** Of a task that did not. */
  readonly problem?: Problem;
}

export interface LockOptions {
  /** Who shares the name: this goal (default), or all goals of the tenant. */
  readonly scope?: "goal" | "tenant";
  /** Default `exclusive`. */
  readonly mode?: LockMode;
  /** For mode `shared`: so many may hold it at once. */
  readonly permits?: number;
  /** Milliseconds that it is held at most; it ends with the attempt in any case. */
  readonly ttlMs?: number;
  /** Milliseconds to wait for it, up to 60,000. Default 0: `lock_held` at once. */
  readonly waitMs?: number;
}

export interface Lock {
  /** Rises with every holder. Calls carry it as `Drover-Fence`. */
  readonly fence: number;
  /** ISO 8601. */
  readonly expiresAt: string | null;
  release(): Promise<null>;
}

/** What a handler has of the world. Everything it asks for is charged to its task; at most 10,000 asks, of which 256 wait at once. */
export interface Context {
  readonly goal: { readonly id: string };
  /** `attempt` counts from 1. A run that is made again has the same id. */
  readonly task: { readonly id: string; readonly key?: string; readonly attempt: number };
  /** Of the attempt. One that is canceled or out of time is ended where it waits, so `aborted` is rarely seen. */
  readonly signal: AbortSignal;
  /**
   * Calls an upstream by its name, admitted by its governor, policy and budget. A GET and the like is tried again as its
   * upstream says. Every answer resolves, 4xx and 5xx too; rejects with a `HostError` where there is none.
   */
  call<Body = unknown>(upstream: string, request: CallRequest): Promise<CallAnswer<Body>>;
  /** `ctx.call` with a URL, for libraries that take a `fetch`: its origin must be that of an upstream, or `permission_denied`. */
  fetch(url: string | URL, init?: FetchInit): Promise<FetchAnswer>;
  /**
   * Adds tasks to the goal, as children of this one; durable when it resolves, all of them or none. A task whose `key` the
   * goal has already is joined. A run that is made again gets the same children. At most 20,000 at a time.
   */
  spawn(tasks: TaskSpec | readonly TaskSpec[]): Promise<readonly Receipt[]>;
  /** What has become of tasks, named by id or key; without names, of those that this task comes after. At most 1,000 at a time, 4 MB. */
  results<Body = unknown>(tasks?: readonly string[]): Promise<readonly TaskResult<Body>[]>;
  /** Takes a lock; `lock_held` where it cannot be had in time. */
  lock(name: string, options?: LockOptions): Promise<Lock>;
  /** Logs a line, as `console.log` does; at most 1,000 of 4,096 characters. */
  log(...values: unknown[]): void;
}
