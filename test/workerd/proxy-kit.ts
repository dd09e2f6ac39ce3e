/** Calls through the deployed entry, with a context of their own, to the test upstream. */
import { env, exports } from "cloudflare:workers";
import { inject } from "vitest";
import type { UpstreamLive } from "../../shared/protocol/admission.ts";

interface ProxyOptions {
  readonly body?: BodyInit;
  readonly headers?: Readonly<Record<string, string>>;
}

const entry = (exports as unknown as { readonly default: Fetcher }).default;

export function send(method: string, path: string, { body, headers = {} }: ProxyOptions = {}): Promise<Response> {
  const all = { authorization: `Bearer ${env.ROOT_TOKEN}`, ...headers };
  const init: RequestInit = { method, headers: all, redirect: "manual", ...(body === undefined ? {} : { body }) };
  return entry.fetch(new Request(`http://drover.test${path}`, init));
}

export const proxied = (method: string, path: string, options: ProxyOptions = {}): Promise<Response> =>
  send(method, `/v1/proxy/${path}`, options);

/** Registers an upstream; without origins it is the test server. */
export async function upstream(name: string, spec: object = {}): Promise<void> {
  const body = JSON.stringify({ ...("origins" in spec ? {} : { origin: inject("upstreamUrl") }), ...spec });
  const put = await send("PUT", `/v1/upstreams/${name}`, { body, headers: { "content-type": "application/json" } });
  if (!put.ok) throw new Error(await put.text());
}

/** Asks until the condition holds. */
export async function until(what: string, condition: () => Promise<boolean>): Promise<void> {
  for (const deadline = Date.now() + 10_000; !(await condition());) {
    if (Date.now() > deadline) throw new Error(`waited in vain until ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** Makes a goal without tasks. */
export async function newGoal(spec: object = {}): Promise<string> {
  const made = await send("POST", "/v1/goals", { body: JSON.stringify(spec), headers: { "content-type": "application/json" } });
  return (await made.json<{ id: string }>()).id;
}

export async function liveOf(name: string): Promise<UpstreamLive> {
  return (await (await send("GET", `/v1/upstreams/${name}`)).json<{ live: UpstreamLive }>()).live;
}

/** What the upstream's `/echo` page heard. */
export interface Echo {
  readonly method: string;
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
}
