/** JSON pointers (RFC 6901), evaluated on a parsed document. Pure. */

/** More than any call uses; larger numbers could not be added up. */
const COUNT_MAX = 1_000_000_000_000;

/** The value that the pointer names; undefined where there is none. */
export function valueAt(document: unknown, pointer: string): unknown {
  let value = document;
  for (const token of pointer.split("/").slice(1)) {
    if (typeof value !== "object" || value === null) return undefined;
    const name = token.replaceAll("~1", "/").replaceAll("~0", "~");
    if (!Object.hasOwn(value, name)) return undefined;
    value = (value as Record<string, unknown>)[name];
  }
  return value;
}

/** The whole number at the pointer, at most `COUNT_MAX`; 0 where there is none. */
export function countAt(document: unknown, pointer: string): number {
  const value = valueAt(document, pointer);
  return typeof value === "number" && Number.isFinite(value) && value > 0 ? Math.min(COUNT_MAX, Math.round(value)) : 0;
}
