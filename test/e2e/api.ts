/** The HTTP API as the tests use it: one connection a request, because servers are killed under them. */
import { setTimeout as sleep } from "node:timers/promises";
import type { Fault, Problem } from "../../shared/errors.ts";
import type { GoalView } from "../../shared/protocol/goal.ts";

export interface Server {
  readonly url: string;
  readonly token: string;
}

export interface TaskView {
  readonly id: string;
  readonly key?: string;
  readonly status: string;
  readonly reason?: string;
  readonly attempt: number;
  readonly problem?: Problem;
  readonly result?: { readonly status: number; readonly body: unknown };
}

export interface Page<T> {
  readonly items: readonly T[];
  readonly nextCursor: string | null;
}

export interface Receipts {
  readonly accepted: number;
  readonly joined: number;
  readonly rejected: number;
  readonly receipts?: readonly { readonly index: number; readonly taskId?: string; readonly status: string; readonly problem?: Problem }[];
}

export interface Answered {
  readonly status: number;
  readonly headers: Headers;
  readonly text: string;
}

type Body = string | Uint8Array<ArrayBuffer> | ReadableStream;

export async function send(
  server: Server,
  method: string,
  path: string,
  body?: Body,
  headers: Readonly<Record<string, string>> = {},
): Promise<Answered> {
  const init: RequestInit & { duplex?: "half" } = {
    method,
    headers: { authorization: `Bearer ${server.token}`, "content-type": "application/json", connection: "close", ...headers },
    ...(body === undefined ? {} : { body, duplex: "half" }),
  };
  const response = await fetch(server.url + path, init);
  return { status: response.status, headers: response.headers, text: await response.text() };
}

/** Sends JSON and answers with the JSON; anything but 2xx throws what was said. */
export async function call<T>(server: Server, method: string, path: string, value?: unknown, headers?: Record<string, string>): Promise<T> {
  const body = value === undefined ? undefined : JSON.stringify(value);
  const answer = await send(server, method, path, body, headers);
  if (answer.status >= 300) throw new Error(`${method} ${path} was answered with ${answer.status}: ${answer.text.slice(0, 500)}`);
  return JSON.parse(answer.text) as T;
}

/** The problem in an answer that must be one; its status must be the answer's. */
export function problemIn({ status, headers, text }: Answered): Problem & { readonly errors?: readonly Fault[] } {
  const type = headers.get("content-type");
  if (type !== "application/problem+json") throw new Error(`expected a problem, not ${status} ${type}: ${text.slice(0, 500)}`);
  const problem = JSON.parse(text) as Problem;
  if (problem.status !== status) throw new Error(`the body says ${problem.status}, the status line ${status}`);
  return problem;
}

export const goalOf = (server: Server, id: string): Promise<GoalView> => call(server, "GET", `/v1/goals/${id}`);

/** Every task of the goal, page by page. */
export async function tasksOf(server: Server, goalId: string, query = ""): Promise<TaskView[]> {
  const tasks: TaskView[] = [];
  for (let cursor: string | null = ""; cursor !== null;) {
    const page: Page<TaskView> = await call(server, "GET", `/v1/goals/${goalId}/tasks?limit=1000&cursor=${cursor}${query}`);
    tasks.push(...page.items);
    cursor = page.nextCursor;
  }
  return tasks;
}

/** Puts a function, one ES module; throws what was said where it is refused. */
export async function putFunction(server: Server, name: string, code: string, engine = "snapshot"): Promise<void> {
  const answer = await send(server, "PUT", `/v1/functions/${name}?engine=${engine}`, code, { "content-type": "text/javascript" });
  if (answer.status >= 300) throw new Error(answer.text);
}

/** Every result until the goal ends, and the last line. */
export async function resultsOf(server: Server, goalId: string): Promise<{ tasks: TaskView[]; end: { status: string } }> {
  const { text } = await send(server, "GET", `/v1/goals/${goalId}/results?follow=true`);
  const lines = text.trimEnd().split("\n");
  const tasks = lines.slice(0, -1).map((line) => JSON.parse(line) as TaskView);
  return { tasks, end: (JSON.parse(lines.at(-1)!) as { end: { status: string } }).end };
}

/** Asks until the condition holds. */
export async function until(what: string, condition: () => Promise<boolean> | boolean, withinMs = 30_000): Promise<void> {
  const deadline = Date.now() + withinMs;
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error(`waited ${withinMs} ms in vain until ${what}`);
    await sleep(20);
  }
}
