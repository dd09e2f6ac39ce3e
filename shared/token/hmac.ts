/**
 * HMAC-SHA256 (RFC 2104, FIPS 180-4) without a promise. WebCrypto does the same,
 * and takes four times as long for data as short as a caveat: each of its calls
 * makes promises and a key object. What it does takes as long for any key and any
 * data of one length: nothing branches on them, and nothing is looked up by them.
 */
import { assert } from "../assert.ts";

export const KEY_BYTES = 32;
const BLOCK_BYTES = 64;
const BLOCK_WORDS = 16;
/** The data's size in bits is the last eight bytes of the last block. */
const SIZE_AT = 56;

/** The first 32 bits of the fractions of the square roots of the first 8 primes. */
const START = Int32Array.of(0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19);
/** The same of the cube roots of the first 64. */
const ROUND = Int32Array.of(
  0x428a2f98,
  0x71374491,
  0xb5c0fbcf,
  0xe9b5dba5,
  0x3956c25b,
  0x59f111f1,
  0x923f82a4,
  0xab1c5ed5,
  0xd807aa98,
  0x12835b01,
  0x243185be,
  0x550c7dc3,
  0x72be5d74,
  0x80deb1fe,
  0x9bdc06a7,
  0xc19bf174,
  0xe49b69c1,
  0xefbe4786,
  0x0fc19dc6,
  0x240ca1cc,
  0x2de92c6f,
  0x4a7484aa,
  0x5cb0a9dc,
  0x76f988da,
  0x983e5152,
  0xa831c66d,
  0xb00327c8,
  0xbf597fc7,
  0xc6e00bf3,
  0xd5a79147,
  0x06ca6351,
  0x14292967,
  0x27b70a85,
  0x2e1b2138,
  0x4d2c6dfc,
  0x53380d13,
  0x650a7354,
  0x766a0abb,
  0x81c2c92e,
  0x92722c85,
  0xa2bfe8a1,
  0xa81a664b,
  0xc24b8b70,
  0xc76c51a3,
  0xd192e819,
  0xd6990624,
  0xf40e3585,
  0x106aa070,
  0x19a4c116,
  0x1e376c08,
  0x2748774c,
  0x34b0bcb5,
  0x391c0cb3,
  0x4ed8aa4a,
  0x5b9cca4f,
  0x682e6ff3,
  0x748f82ee,
  0x78a5636f,
  0x84c87814,
  0x8cc70208,
  0x90befffa,
  0xa4506ceb,
  0xbef9a3f7,
  0xc67178f2,
);

// One call is over before the next one begins, so all of them share what they work in.
const words = new Int32Array(64);
const last = new Uint8Array(BLOCK_BYTES);
const inner = new Int32Array(8);
const outer = new Int32Array(8);

/** Takes the block in `words` into the state. */
function compress(state: Int32Array): void {
  for (let i = BLOCK_WORDS; i < 64; i++) {
    const x = words[i - 15]!;
    const y = words[i - 2]!;
    const spreadX = ((x >>> 7) | (x << 25)) ^ ((x >>> 18) | (x << 14)) ^ (x >>> 3);
    const spreadY = ((y >>> 17) | (y << 15)) ^ ((y >>> 19) | (y << 13)) ^ (y >>> 10);
    words[i] = (words[i - 16]! + spreadX + words[i - 7]! + spreadY) | 0;
  }
  // One by one: taken out of an array, they cost as much as the rounds.
  let a = state[0]!;
  let b = state[1]!;
  let c = state[2]!;
  let d = state[3]!;
  let e = state[4]!;
  let f = state[5]!;
  let g = state[6]!;
  let h = state[7]!;
  for (let i = 0; i < 64; i++) {
    const mixE = ((e >>> 6) | (e << 26)) ^ ((e >>> 11) | (e << 21)) ^ ((e >>> 25) | (e << 7));
    const mixA = ((a >>> 2) | (a << 30)) ^ ((a >>> 13) | (a << 19)) ^ ((a >>> 22) | (a << 10));
    const first = (h + mixE + ((e & f) ^ (~e & g)) + ROUND[i]! + words[i]!) | 0;
    const second = (mixA + ((a & b) ^ (a & c) ^ (b & c))) | 0;
    h = g;
    g = f;
    f = e;
    e = (d + first) | 0;
    d = c;
    c = b;
    b = a;
    a = (first + second) | 0;
  }
  state[0] = (state[0]! + a) | 0;
  state[1] = (state[1]! + b) | 0;
  state[2] = (state[2]! + c) | 0;
  state[3] = (state[3]! + d) | 0;
  state[4] = (state[4]! + e) | 0;
  state[5] = (state[5]! + f) | 0;
  state[6] = (state[6]! + g) | 0;
  state[7] = (state[7]! + h) | 0;
}

/** The state after the key's block, each byte of it changed by the pad. */
function begin(state: Int32Array, key: Uint8Array, pad: number): void {
  const pads = pad * 0x01010101;
  read(key, 0, KEY_BYTES / 4);
  for (let i = 0; i < KEY_BYTES / 4; i++) words[i]! ^= pads;
  words.fill(pads, KEY_BYTES / 4, BLOCK_WORDS);
  state.set(START);
  compress(state);
}

function read(bytes: Uint8Array, from: number, count: number): void {
  for (let i = 0, at = from; i < count; i++, at += 4) {
    words[i] = (bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!;
  }
}

/** Takes what is left of the data, and its size with the key's block before it. */
function end(state: Int32Array, data: Uint8Array, from: number): void {
  last.fill(0);
  for (let at = from; at < data.length; at++) last[at - from] = data[at]!;
  last[data.length - from] = 0x80;
  read(last, 0, BLOCK_WORDS);
  if (data.length - from >= SIZE_AT) {
    compress(state);
    words.fill(0, 0, BLOCK_WORDS);
  }
  words[BLOCK_WORDS - 1] = (BLOCK_BYTES + data.length) * 8;
  compress(state);
}

/** A key of 32 bytes, as signatures are themselves. */
export function hmacSha256(key: Uint8Array, data: Uint8Array): Uint8Array {
  assert(key.length === KEY_BYTES, "a key has 32 bytes");
  begin(inner, key, 0x36);
  let at = 0;
  for (; at + BLOCK_BYTES <= data.length; at += BLOCK_BYTES) {
    read(data, at, BLOCK_WORDS);
    compress(inner);
  }
  end(inner, data, at);
  begin(outer, key, 0x5c);
  end(outer, bytesOf(inner), 0);
  return bytesOf(outer);
}

function bytesOf(state: Int32Array): Uint8Array {
  const bytes = new Uint8Array(state.length * 4);
  for (let i = 0; i < state.length; i++) {
    const word = state[i]!;
    bytes[4 * i] = word >> 24;
    bytes[4 * i + 1] = word >> 16;
    bytes[4 * i + 2] = word >> 8;
    bytes[4 * i + 3] = word;
  }
  return bytes;
}
