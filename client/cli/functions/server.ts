/** The server that a command speaks to, and how it says what went wrong. */
import type { Problem } from "../../../shared/errors.ts";
import { tokenOf } from "../server/data-folder.ts";
import { servedAt } from "../server/lock.ts";
import { Refusal } from "../server/refusal.ts";

export interface Server {
  readonly url: string;
  readonly token: string;
}

interface Named {
  readonly url: string | undefined;
  readonly token: string | undefined;
  readonly data: string;
}

/** What is named by flags, then by the environment, then by the folder of a local server. */
export function findServer({ url = process.env["DROVER_URL"], token = process.env["DROVER_TOKEN"], data }: Named): Server {
  if (url !== undefined) {
    // The token of a local server is for no other one.
    if (token === undefined) throw new Refusal("a server that is named by its URL needs --token or DROVER_TOKEN");
    return { url: url.replace(/\/+$/, ""), token };
  }
  const served = servedAt(data);
  if (served === null) throw new Refusal(`no server is running on ${data}. Start one with npm start, or name one with --url and --token.`);
  return { url: served, token: token ?? tokenOf(data) };
}

/** What a problem says, with each fault on a line of its own. */
function told(status: number, text: string): string {
  try {
    const { detail, code, errors = [], stack = "" } = JSON.parse(text) as Problem & { readonly stack?: string };
    const faults = errors.map(({ pointer, detail: fault }) => `  ${pointer} ${fault}`);
    return [`${code}: ${detail}`, ...faults, ...(stack === "" ? [] : [stack])].join("\n");
  } catch {
    return `the server answered ${status}: ${text.slice(0, 500)}`;
  }
}

/** The JSON of the answer; null where it is empty. Throws a `Refusal` with what a problem says. */
export async function send(
  server: Server,
  method: string,
  path: string,
  type: string,
  body?: string,
): Promise<{ status: number; value: unknown }> {
  const response = await fetch(server.url + path, {
    method,
    headers: { authorization: `Bearer ${server.token}`, ...(body === undefined ? {} : { "content-type": type }) },
    ...(body === undefined ? {} : { body }),
  }).catch((error: Error) => {
    throw new Refusal(`${server.url} cannot be reached (${error.cause instanceof Error ? error.cause.message : error.message}).`);
  });
  const text = await response.text();
  if (!response.ok) throw new Refusal(told(response.status, text));
  return { status: response.status, value: text === "" ? null : (JSON.parse(text) as unknown) };
}
