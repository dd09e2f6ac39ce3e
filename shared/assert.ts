/**
 * Assertions find bugs in Drover itself. They never guard against bad input:
 * what a caller can get wrong is a value (`Result`), not an exception.
 */
export class AssertionError extends Error {
  override name = "AssertionError";
}

/** Throws when a programmer's assumption is wrong. The message may be lazy on hot paths. */
export function assert(condition: boolean, message: string | (() => string)): asserts condition {
  if (!condition) throw new AssertionError(typeof message === "string" ? message : message());
}
