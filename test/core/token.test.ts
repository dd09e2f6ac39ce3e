/** Tokens: no chain allows more than what it begins with, and no other bytes than the holder's are a token. */
import { createHmac, webcrypto } from "node:crypto";
import fc from "fast-check";
import { expect, test } from "vitest";
import { goalIdFrom } from "../../shared/ids.ts";
import { decodeToken, hmacOf, isGenuine, mintToken, narrowToken } from "../../shared/token.ts";
import { type Caveat, isCaveat, type RootCaveat, SCOPES } from "../../shared/token/caveats.ts";
import { allowed, claimsOf, type Wish } from "../../shared/token/claims.ts";
import { hmacSha256 } from "../../shared/token/hmac.ts";
import { asciiBytes, asciiText, base64url, canonicalJson, fromBase64url } from "../../shared/token/text.ts";
import vectors from "./token-vectors.json" with { type: "json" };

const hmac = hmacOf(webcrypto.subtle as never);
const KEY = Uint8Array.from({ length: 32 }, (_, i) => i);
const ROOT: RootCaveat = { type: "root", tenant: "default", key: "root", epoch: 0, subject: "ann" };
const NOW_MS = 1_000;
const GOALS = [1, 2].map((byte) => goalIdFrom(0, new Uint8Array(16).fill(byte)));

const name = fc.constantFrom("a", "b", "ab", "*", "a*", "GET", "POST", "/a", "/a/b", "/*", "/a/*");
const names = fc.array(name, { maxLength: 3 });
const count = fc.integer({ min: 0, max: 5 });
const caveat: fc.Arbitrary<Caveat> = fc.oneof(
  fc.record({ type: fc.constantFrom("upstreams", "methods", "paths", "functions", "queues"), allow: names }),
  fc.record({ type: fc.constant("scopes" as const), allow: fc.array(fc.constantFrom(...SCOPES), { maxLength: 3 }) }),
  fc.record({ type: fc.constant("goal" as const), goalId: fc.constantFrom(...GOALS), epoch: fc.integer({ min: 0, max: 1 }) }),
  fc.record({ type: fc.constant("budget" as const), max: fc.record({ calls: count, tasks: count }, { requiredKeys: [] }) }),
  fc.record({ type: fc.constant("depth" as const), max: count }),
  fc.record({ type: fc.constant("expires" as const), atMs: fc.integer({ min: NOW_MS - 2, max: NOW_MS + 2 }) }),
);
const wish: fc.Arbitrary<Wish> = fc.record(
  {
    scopes: fc.array(fc.constantFrom(...SCOPES), { minLength: 1, maxLength: 2 }),
    goalId: fc.constantFrom(...GOALS),
    isTenantWide: fc.boolean(),
    call: fc.record({ upstream: name, method: name, path: fc.constantFrom("/a", "/a/b", "/b", "/a?b", "/%61", "/a%2fb") }),
    queue: name,
    function: name,
    depth: count,
  },
  { requiredKeys: ["scopes"] },
);

test("what a chain allows, every shorter one that it begins with allows too", () => {
  let [yes, no] = [0, 0];
  fc.assert(
    fc.property(
      fc.array(caveat, { maxLength: 5 }),
      fc.array(caveat, { maxLength: 3 }),
      fc.array(wish, { maxLength: 10 }),
      (parent, more, wishes) => {
        const [wide, slim] = [claimsOf(ROOT, parent), claimsOf(ROOT, [...parent, ...more])];
        for (const each of wishes) {
          const may = allowed(slim, each, NOW_MS);
          if (may) yes++;
          else no++;
          if (may && !allowed(wide, each, NOW_MS)) throw new Error(`the child may, the parent not: ${JSON.stringify(each)}`);
        }
        for (const [dimension, max] of Object.entries(wide.ceilings)) expect(slim.ceilings[dimension as "calls"]).toBeLessThanOrEqual(max);
      },
    ),
    { numRuns: 5_000 },
  );
  // Otherwise the property says nothing.
  expect(Math.min(yes, no)).toBeGreaterThan(1_000);
});

test("caveats of one chain may come in any order: what it allows is the same", () => {
  fc.assert(
    fc.property(fc.array(caveat, { maxLength: 6 }), fc.array(wish, { maxLength: 6 }), (chain, wishes) => {
      const [there, back] = [claimsOf(ROOT, chain), claimsOf(ROOT, chain.toReversed())];
      for (const each of wishes) expect(allowed(back, each, NOW_MS)).toBe(allowed(there, each, NOW_MS));
    }),
    { numRuns: 2_000 },
  );
});

async function isToken(text: string, key: Uint8Array = KEY): Promise<boolean> {
  const decoded = decodeToken(text);
  return decoded.ok && isGenuine(key, decoded.value);
}

const CHAIN: readonly Caveat[] = [
  { type: "goal", goalId: GOALS[0]!, epoch: 0 },
  { type: "upstreams", allow: ["search", "llm-*", "zürich"] },
  { type: "scopes", allow: ["read", "submit"] },
  { type: "expires", atMs: 2_000 },
];

test("a token that its holder narrowed is the token that was made so", async () => {
  const whole = await mintToken(hmac, KEY, ROOT, CHAIN);
  const parent = decodeToken(await mintToken(hmac, KEY, ROOT, CHAIN.slice(0, 1)));
  expect(parent.ok && (await narrowToken(hmac, parent.value, CHAIN.slice(1)))).toBe(whole);
  expect(await isToken(whole)).toBe(true);
  expect(
    await isToken(
      whole,
      KEY.map((byte) => byte ^ 1),
    ),
  ).toBe(false);
});

test("no other character at any place leaves a token", async () => {
  const token = await mintToken(hmac, KEY, ROOT, CHAIN);
  for (let at = 0; at < token.length; at++) {
    for (const char of ["A", "B", "_", ".", "=", " ", "é"]) {
      if (token[at] !== char) expect(await isToken(token.slice(0, at) + char + token.slice(at + 1)), `${at} ${char}`).toBe(false);
    }
  }
});

test("no token stays one that is cut, lengthened, or has its bytes flipped", async () => {
  const token = await mintToken(hmac, KEY, ROOT, CHAIN);
  for (let size = 0; size < token.length; size++) expect(await isToken(token.slice(0, size)), `cut at ${size}`).toBe(false);
  for (const more of ["A", ".", "=", ".AAAA", "\n"]) expect(await isToken(token + more)).toBe(false);
  const [, payload, signature] = token.split(".") as [string, string, string];
  const bytes = fromBase64url(payload)!;
  for (let at = 0; at < bytes.length; at++) {
    const flipped = bytes.map((byte, i) => (i === at ? byte ^ 1 : byte));
    expect(await isToken(`dv1.${base64url(flipped)}.${signature}`), `byte ${at}`).toBe(false);
  }
});

test("no token stays one whose caveats are dropped, doubled or in another order", async () => {
  const token = await mintToken(hmac, KEY, ROOT, CHAIN);
  const signature = token.split(".")[2]!;
  const all: unknown[] = [ROOT, ...CHAIN];
  const write = (caveats: readonly unknown[]): string => `dv1.${base64url(asciiBytes(canonicalJson(caveats)))}.${signature}`;
  expect(write(all)).toBe(token);
  for (let i = 0; i < all.length; i++) {
    expect(await isToken(write(all.toSpliced(i, 1))), `without ${i}`).toBe(false);
    expect(await isToken(write(all.toSpliced(i, 0, all[i]))), `${i} twice`).toBe(false);
    for (let j = i + 1; j < all.length; j++) {
      expect(await isToken(write(all.map((each, at) => (at === i ? all[j] : at === j ? all[i] : each)))), `${i} for ${j}`).toBe(false);
    }
  }
});

test.each<[string, unknown]>([
  ["of a type that is not known", { type: "colour", allow: ["red"] }],
  ["with a property more", { type: "methods", allow: ["GET"], not: true }],
  ["with a property more that every object has", { type: "methods", allow: ["GET"], toString: 1 }],
  ["with a property less", { type: "methods" }],
  ["with a property of another kind", { type: "expires", atMs: "2027" }],
  ["that is a second root", ROOT],
  ["that is named like a property of every object", { type: "constructor" }],
  ["that is no object", "methods"],
])("a caveat %s denies, though its chain is right", async (_what, odd) => {
  const token = await mintToken(hmac, KEY, ROOT, [odd as Caveat]);
  expect(isCaveat(odd)).toBe(false);
  expect(decodeToken(token)).toMatchObject({ ok: false });
});

test("a token has one spelling: white space, another order of properties, and escapes are refused", async () => {
  const root = JSON.stringify(ROOT);
  expect(root).not.toBe(canonicalJson(ROOT));
  for (const text of [`[${root}]`, `[ ${canonicalJson(ROOT)}]`, `[${canonicalJson(ROOT).replace("ann", "\\u0061nn")}]`]) {
    const signature = base64url(await hmac(KEY, asciiBytes(text.slice(1, -1))));
    expect(decodeToken(`dv1.${base64url(asciiBytes(text))}.${signature}`)).toMatchObject({ ok: false });
  }
});

test("the HMAC that verifies is HMAC-SHA256, for data of any size", () => {
  const bytes = (size: number): fc.Arbitrary<Uint8Array> => fc.uint8Array({ minLength: size, maxLength: size });
  for (let size = 0; size <= 300; size++) {
    fc.assert(
      fc.property(bytes(32), bytes(size), (key, data) => {
        expect(base64url(hmacSha256(key, data)), `${size} bytes`).toBe(createHmac("sha256", key).update(data).digest("base64url"));
      }),
      { numRuns: 10 },
    );
  }
  expect(() => hmacSha256(new Uint8Array(31), new Uint8Array(1))).toThrow();
});

test("base64url gives back what it was given, and reads nothing else", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 40 }), (bytes) => {
      const text = base64url(bytes);
      expect(text).toBe(Buffer.from(bytes).toString("base64url"));
      expect(fromBase64url(text)).toEqual(Uint8Array.from(bytes));
    }),
  );
  for (const odd of ["A", "AB", "AAB", "A=", "AA==", "A+A=", "ü"]) expect(fromBase64url(odd), odd).toBeNull();
  expect(asciiText(fromBase64url("AAAA")!)).toBe("\0\0\0");
});

test.each(vectors.tokens)("the test vector: $says", async ({ key, root, caveats, token }) => {
  const bytes = Uint8Array.from(Buffer.from(key, "hex"));
  expect(await mintToken(hmac, bytes, root as RootCaveat, caveats as Caveat[])).toBe(token);
  expect(await isToken(token, bytes)).toBe(true);
});

test.each(vectors.refused)("what is no token: $says", async ({ key, token }) => {
  expect(await isToken(token, Uint8Array.from(Buffer.from(key, "hex")))).toBe(false);
});
