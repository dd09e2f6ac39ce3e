/** Tokens for tests: made by the root token over HTTP, or narrowed here, as any client would. */
import { decodeToken, hmacOf, narrowToken } from "../../shared/token.ts";
import type { Caveat } from "../../shared/token/caveats.ts";
import { call, problemIn } from "./edge-kit.ts";

const JSON_HEADERS = { "content-type": "application/json" };

export function postAs(
  token: string | undefined,
  path: string,
  value: unknown = {},
  headers: Record<string, string> = {},
): Promise<Response> {
  return call("POST", path, {
    body: JSON.stringify(value),
    headers: { ...JSON_HEADERS, ...headers },
    ...(token !== undefined && { token }),
  });
}

export async function tokenOf(caveats: readonly Caveat[], more: object = {}, by?: string): Promise<string> {
  const made = await postAs(by, "/v1/tokens", { caveats, ...more });
  if (made.status !== 201) throw new Error(await made.text());
  return (await made.json<{ token: string }>()).token;
}

/** What a holder does alone. */
export async function narrowedBy(token: string, caveats: readonly Caveat[]): Promise<string> {
  const decoded = decodeToken(token);
  if (!decoded.ok) throw new Error(decoded.error);
  return narrowToken(hmacOf(crypto.subtle), decoded.value, caveats);
}

/** Status and sentence of a refusal. */
export async function refusalIn(answer: Promise<Response>): Promise<string> {
  const { status, code, detail } = await problemIn(await answer);
  return `${status} ${code}: ${detail}`;
}
