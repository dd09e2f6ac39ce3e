/** A rule that a world has broken. */
export class Violation extends Error {
  override name = "Violation";
}

export function must(condition: boolean, rule: string, detail: () => string): asserts condition {
  if (!condition) throw new Violation(`${rule}: ${detail()}`);
}
