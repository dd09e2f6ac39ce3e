/** From places in a bundle to places in its sources, where it brought an inline source map. */
import { originalPositionFor, TraceMap } from "@jridgewell/trace-mapping";

const INLINE_MAP = /\n\/\/# sourceMappingURL=data:application\/json[^,]*;base64,([A-Za-z0-9+/=]+)\s*$/;
const PLACE = /\bfunction\.js:(\d+):(\d+)/g;
/** Frames of the engine and the prelude say nothing of the function. */
const INNER_FRAME = /^\s*at .*\((?:drover\.js|native).*$/;

export const withoutMap = (bundle: string): string => bundle.replace(INLINE_MAP, "");

/** The bundle's source map without its sources; null where it has none that can be read. */
export function mapOf(bundle: string): string | null {
  const encoded = INLINE_MAP.exec(bundle)?.[1];
  if (encoded === undefined) return null;
  try {
    const bytes = Uint8Array.from(atob(encoded), (char) => char.charCodeAt(0));
    const { sourcesContent: _, ...map } = JSON.parse(new TextDecoder().decode(bytes)) as Record<string, unknown>;
    return JSON.stringify(map);
  } catch {
    return null;
  }
}

/** The stack as the author knows it. */
export function mappedStack(stack: string, map: string | null): string {
  const lines = stack.split("\n").filter((line) => line !== "" && !INNER_FRAME.test(line));
  const shown = lines.join("\n");
  if (map === null) return shown;
  try {
    const trace = new TraceMap(map);
    return shown.replace(PLACE, (place, line: string, column: string) => {
      const found = originalPositionFor(trace, { line: Number(line), column: Number(column) - 1 });
      return found.source === null ? place : `${found.source}:${found.line}:${found.column + 1}`;
    });
  } catch {
    // A map that is not one is the bundle's own fault.
    return shown;
  }
}
