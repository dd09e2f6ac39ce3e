/**
 * Capability tokens: `dv1.<caveats>.<signature>`, both in base64url. The
 * caveats are a canonical JSON array, the first of them the root; the signature
 * is a chain of HMAC-SHA256, as in macaroons (Birgisson et al., NDSS 2014):
 *
 *   s₀ = HMAC(tenant's key, root caveat)    sᵢ = HMAC(sᵢ₋₁, caveat i)
 *
 * Whoever holds a token can append a caveat, because the signature is the key
 * to the next one, and nobody can take one away. Tokens are made wherever there
 * is WebCrypto, and verified wherever there is JavaScript.
 */
import { CAVEATS_MAX, TOKEN_CHARS_MAX } from "./limits.ts";
import { err, ok, type Result } from "./result.ts";
import { type Caveat, isCaveat, isRootCaveat, type RootCaveat } from "./token/caveats.ts";
import { hmacSha256, KEY_BYTES } from "./token/hmac.ts";
import { asciiBytes, asciiText, base64url, canonicalJson, fromBase64url } from "./token/text.ts";

/** HMAC-SHA256 of the data under the key. */
export type Hmac = (key: Uint8Array, data: Uint8Array) => Promise<Uint8Array>;

/** What is needed of `crypto.subtle`. */
interface Subtle<Key> {
  importKey(
    format: "raw",
    key: Uint8Array,
    algorithm: { name: string; hash: string },
    isExtractable: boolean,
    usages: ["sign"],
  ): Promise<Key>;
  sign(algorithm: "HMAC", key: Key, data: Uint8Array): Promise<ArrayBuffer>;
}

const ALGORITHM = { name: "HMAC", hash: "SHA-256" };
const USES: ["sign"] = ["sign"];

export function hmacOf<Key>(subtle: Subtle<Key>): Hmac {
  return (key, data) =>
    subtle
      .importKey("raw", key, ALGORITHM, false, USES)
      .then((imported) => subtle.sign("HMAC", imported, data))
      .then((signature) => new Uint8Array(signature));
}

export const TOKEN_PREFIX = "dv1.";
const SIGNATURE_BYTES = KEY_BYTES;

/** A token that is well formed; whether it is genuine is not known. */
export interface Token {
  readonly root: RootCaveat;
  readonly caveats: readonly Caveat[];
  /** What is signed: the root's canonical text and that of each caveat. */
  readonly texts: readonly string[];
  readonly signature: Uint8Array;
}

/** The caveats of a token's text, or why it is none. Everybody can read it, nobody learns from that whether it is genuine. */
export function decodeToken(text: string): Result<Token, string> {
  if (!text.startsWith(TOKEN_PREFIX)) return err(`a token begins with ${TOKEN_PREFIX}`);
  if (text.length > TOKEN_CHARS_MAX) return err(`a token has at most ${TOKEN_CHARS_MAX} characters`);
  const parts = text.slice(TOKEN_PREFIX.length).split(".");
  const payload = fromBase64url(parts[0]!);
  const signature = fromBase64url(parts[1] ?? "");
  if (parts.length !== 2 || payload === null || signature?.length !== SIGNATURE_BYTES) {
    return err("a token is its caveats and its signature, each in base64url");
  }
  const listed = listIn(asciiText(payload));
  if (listed === null) return err("the caveats of a token are a canonical JSON array");
  const { list, texts } = listed;
  const [root, ...caveats] = list;
  if (!isRootCaveat(root)) return err("the first caveat of a token is its root");
  if (caveats.length > CAVEATS_MAX) return err(`a token has at most ${CAVEATS_MAX} caveats`);
  const unknown = caveats.find((caveat) => !isCaveat(caveat));
  if (unknown !== undefined) return err(`the token has a caveat that is not known here: ${canonicalJson(unknown).slice(0, 128)}`);
  return ok({ root, caveats: caveats as readonly Caveat[], texts, signature });
}

function listIn(text: string): { readonly list: readonly unknown[]; readonly texts: readonly string[] } | null {
  try {
    const list: unknown = JSON.parse(text);
    if (!Array.isArray(list)) return null;
    const texts = list.map(canonicalJson);
    // One spelling a token: what came must be what would be written.
    return `[${texts.join(",")}]` === text ? { list, texts } : null;
  } catch {
    return null;
  }
}

function encodeToken({ texts, signature }: Pick<Token, "texts" | "signature">): string {
  return `${TOKEN_PREFIX}${base64url(asciiBytes(`[${texts.join(",")}]`))}.${base64url(signature)}`;
}

/** The signature after the texts. */
function chained(hmac: Hmac, key: Uint8Array, texts: readonly string[]): Promise<Uint8Array> {
  return texts.reduce((before, text) => before.then((each) => hmac(each, asciiBytes(text))), Promise.resolve(key));
}

/** A new token from a tenant's key. */
export function mintToken(hmac: Hmac, key: Uint8Array, root: RootCaveat, caveats: readonly Caveat[]): Promise<string> {
  const texts = [root, ...caveats].map(canonicalJson);
  return chained(hmac, key, texts).then((signature) => encodeToken({ texts, signature }));
}

/** The token with caveats more, made by its holder alone. The result allows what the token allowed and all of them allow. */
export function narrowToken(hmac: Hmac, token: Token, caveats: readonly Caveat[]): Promise<string> {
  const texts = caveats.map(canonicalJson);
  return chained(hmac, token.signature, texts).then((signature) => encodeToken({ texts: [...token.texts, ...texts], signature }));
}

/** Whether the chain begins with this key. Takes as long whatever byte of the signature is wrong. */
export function isGenuine(key: Uint8Array, { texts, signature }: Token): boolean {
  let made = key;
  for (const text of texts) made = hmacSha256(made, asciiBytes(text));
  let difference = 0;
  for (let i = 0; i < SIGNATURE_BYTES; i++) difference |= made[i]! ^ signature[i]!;
  return difference === 0;
}
