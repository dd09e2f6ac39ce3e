/** The calls of a benchmark, by path. */

/** `count` different paths that take `delayMs` each. */
export function pathsOf(count: number, delayMs: number): string[] {
  return Array.from({ length: count }, (_, n) => `/d${delayMs}/q?x=${n}`);
}

/** One in `every` takes `slowMs`, spread evenly. */
export function pathsWithStragglers(count: number, every: number, slowMs: number): string[] {
  return Array.from({ length: count }, (_, n) => `/d${n % every === every >> 1 ? slowMs : 0}/q?x=${n}`);
}
