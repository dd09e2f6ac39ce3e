/**
 * The keys that tokens begin with. The secret TOKEN_KEYS has one or two, as
 * `id:secret`, with a comma between them: the first signs, both verify, so that
 * one can be replaced without ending what was given out. Without that secret
 * there is one key, `root`, made of ROOT_TOKEN, and nothing has to be set.
 */
import { type Hmac, hmacOf } from "../../../shared/token.ts";

const KEYS_MAX = 2;
const SECRET_CHARS_MIN = 32;
const KEY = /^([a-z0-9_-]{1,32}):([\x21-\x2b\x2d-\x7e]+)$/;
const DERIVED_ID = "root";
const KEY_BITS = 256;

export const hmac: Hmac = hmacOf(crypto.subtle);

/** The keys of a deployment as its secrets say. Tokens that were proven with others are proven no more. */
export interface KeyRing {
  /** The key that signs. */
  readonly first: string;
  /** The key of a tenant; null where no key has this id. */
  keyOf(id: string, tenant: string): Promise<Uint8Array> | null;
}

const utf8 = (text: string): Uint8Array => new TextEncoder().encode(text);

/** HKDF-SHA256 (RFC 5869): no tenant's key says anything of another's, or of the secret. */
async function derive(secret: string, tenant: string): Promise<Uint8Array> {
  const material = await crypto.subtle.importKey("raw", utf8(secret), "HKDF", false, ["deriveBits"]);
  const parameters = { name: "HKDF", hash: "SHA-256", salt: new Uint8Array(), info: utf8(`drover capability tokens of ${tenant}`) };
  return new Uint8Array(await crypto.subtle.deriveBits(parameters, material, KEY_BITS));
}

class Ring implements KeyRing {
  readonly first: string;
  readonly #secrets: ReadonlyMap<string, string>;
  readonly #keys = new Map<string, Uint8Array>();

  constructor(secrets: readonly (readonly [string, string])[]) {
    this.first = secrets[0]![0];
    this.#secrets = new Map(secrets);
  }

  keyOf(id: string, tenant: string): Promise<Uint8Array> | null {
    const secret = this.#secrets.get(id);
    if (secret === undefined) return null;
    return this.#derived(secret, tenant, `${id} ${tenant}`);
  }

  async #derived(secret: string, tenant: string, name: string): Promise<Uint8Array> {
    const key = this.#keys.get(name) ?? (await derive(secret, tenant));
    this.#keys.set(name, key);
    return key;
  }
}

/** What is wrong with TOKEN_KEYS, or the keys in it. */
function parsed(text: string): readonly (readonly [string, string])[] | string {
  const keys = text.split(",").map((each) => KEY.exec(each.trim()));
  const isWhole = keys.every((key) => key !== null && key[2]!.length >= SECRET_CHARS_MIN);
  const ids = new Set(keys.map((key) => key?.[1]));
  if (isWhole && keys.length <= KEYS_MAX && ids.size === keys.length) return keys.map((key) => [key![1]!, key![2]!] as const);
  return `the secret TOKEN_KEYS must be one or two keys, as id:secret with a comma between them, each secret of ${SECRET_CHARS_MIN} characters or more`;
}

let current: { readonly root: string; readonly keys: string | undefined; readonly ring: KeyRing | string } | null = null;

/** The deployment's keys, or why there are none. The same object for as long as the secrets are the same. */
export function keyRing(env: Env): KeyRing | string {
  const root = env.ROOT_TOKEN;
  const keys = (env as { readonly TOKEN_KEYS?: string }).TOKEN_KEYS || undefined;
  if (current?.root === root && current.keys === keys) return current.ring;
  const secrets = keys === undefined ? [[DERIVED_ID, root] as const] : parsed(keys);
  current = { root, keys, ring: typeof secrets === "string" ? secrets : new Ring(secrets) };
  return current.ring;
}
