/** Calls the edge in process: the real app and real objects, with a token of the tests' own. */
import { env } from "cloudflare:workers";
import type { Problem } from "../../shared/errors.ts";
import { createApp } from "../../workers/edge/app.ts";

export const TOKEN = "edge-test-token-0123456789";

const app = createApp();

interface CallOptions {
  readonly body?: BodyInit;
  readonly headers?: Readonly<Record<string, string>>;
  /** Null sends no `Authorization`. */
  readonly token?: string | null;
  readonly env?: Readonly<Record<string, unknown>>;
}

export async function call(method: string, path: string, options: CallOptions = {}): Promise<Response> {
  const { body, headers = {}, token = TOKEN, env: bindings = {} } = options;
  const authorization: Record<string, string> = token === null ? {} : { authorization: `Bearer ${token}` };
  const init = { method, headers: { ...authorization, ...headers }, ...(body === undefined ? {} : { body }) };
  const request = new Request(`http://drover.test${path}`, init);
  return app.fetch(request, { ...env, ROOT_TOKEN: TOKEN, ...bindings });
}

export function put(path: string, value: unknown): Promise<Response> {
  return call("PUT", path, { body: JSON.stringify(value), headers: { "content-type": "application/json" } });
}

/** The problem that a response must be; its status must be the response's. */
export async function problemIn(response: Response): Promise<Problem> {
  const type = response.headers.get("content-type");
  if (type !== "application/problem+json")
    throw new Error(`a problem must be application/problem+json, not ${type}: ${await response.text()}`);
  const problem: Problem = await response.json();
  if (problem.status !== response.status) throw new Error(`the body says ${problem.status}, the status line ${response.status}`);
  return problem;
}

interface Sent {
  readonly body: ReadableStream;
  readonly wasCanceled: () => boolean;
  /** Chunks that were taken. */
  readonly taken: () => number;
}

/** A body without a length that ends after `chunks`, or breaks off there. */
export function streamOf(chunks: readonly Uint8Array[], breaksOff = false): Sent {
  let at = 0;
  let canceled = false;
  const source: UnderlyingSource<Uint8Array> = {
    pull(controller) {
      if (at < chunks.length) controller.enqueue(chunks[at++]);
      else if (breaksOff) controller.error(new Error("the connection was lost"));
      else controller.close();
    },
    cancel() {
      canceled = true;
    },
  };
  return { body: new ReadableStream(source, { highWaterMark: 0 }), wasCanceled: () => canceled, taken: () => at };
}
