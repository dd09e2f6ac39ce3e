/** What the prelude asks of the host and is answered at once: URLs, text, chance. JSON in, JSON out. Throws nothing. */
import { hexOf } from "../../../shared/bytes.ts";

interface UrlParts {
  readonly href: string;
}

const PARTS = ["href", "origin", "protocol", "username", "password", "host", "hostname", "port", "pathname", "search", "hash"] as const;

const partsOf = (url: URL): UrlParts => Object.fromEntries(PARTS.map((name) => [name, url[name]])) as unknown as UrlParts;

function urlOf({ url, base }: { readonly url: string; readonly base?: string }): UrlParts | null {
  const parsed = URL.parse(url, base);
  return parsed === null ? null : partsOf(parsed);
}

function changed({ href, name, value }: { readonly href: string; readonly name: string; readonly value: string }): UrlParts {
  const url = new URL(href);
  if (name !== "origin" && (PARTS as readonly string[]).includes(name)) (url as unknown as Record<string, string>)[name] = value;
  return partsOf(url);
}

function bytesOf(hex: string): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(hex.length / 2);
  for (let i = 0; i < bytes.length; i++) bytes[i] = Number.parseInt(hex.slice(2 * i, 2 * i + 2), 16);
  return bytes;
}

interface Decoding {
  readonly label: string;
  readonly fatal?: boolean;
  readonly ignoreBOM?: boolean;
  readonly hex: string;
}

function decoded({ label, hex, fatal = false, ignoreBOM = false }: Decoding): { readonly value: string } | { readonly fault: string } {
  try {
    return { value: new TextDecoder(label, { fatal, ignoreBOM }).decode(bytesOf(hex)) };
  } catch (error) {
    return { fault: (error as Error).message };
  }
}

function randomHex(count: number): string {
  const bytes = crypto.getRandomValues(new Uint8Array(Math.min(65_536, Math.max(0, count || 0))));
  return hexOf(bytes);
}

const ANSWERS: Readonly<Record<string, (value: never) => unknown>> = {
  url: urlOf,
  urlSet: changed,
  query: (text: string) => [...new URLSearchParams(text)],
  unquery: (pairs: [string, string][]) => new URLSearchParams(pairs).toString(),
  decode: decoded,
  random: randomHex,
  uuid: () => crypto.randomUUID(),
};

export function synchronous(op: string, args: string): string {
  const answer = Object.hasOwn(ANSWERS, op) ? ANSWERS[op] : undefined;
  if (answer === undefined) return "null";
  try {
    return JSON.stringify(answer(JSON.parse(args) as never));
  } catch {
    // A guest that changed the prelude's words gets nothing.
    return "null";
  }
}
