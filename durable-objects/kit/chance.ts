/** Chance for the cores, which have none of their own. */

/** A random 32-bit integer. */
export function randomSeed(): number {
  return crypto.getRandomValues(new Uint32Array(1))[0]!;
}

/** Names one incarnation of a governor's client: 16 hex digits. */
export function newLife(): string {
  return randomSeed().toString(16).padStart(8, "0") + randomSeed().toString(16).padStart(8, "0");
}
