/** From places in a bundle to places in its sources, where it brought an inline source map. */
import { originalPositionFor, TraceMap } from "@jridgewell/trace-mapping";
import { PROBLEM_CHARS_MAX } from "../../shared/limits.ts";

const INLINE_MAP = /\n\/\/# sourceMappingURL=data:application\/json[^,]*;base64,([A-Za-z0-9+/=]+)\s*$/;
const PLACE = /\bfunction\.js:(\d+):(\d+)/g;
/** Names are the bundle's, which may be anything. */
const SOURCE_CHARS_MAX = 256;
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

/** The map that was read last: a function that fails fails often. */
let read: { readonly map: string; readonly trace: TraceMap } | null = null;

function traceOf(map: string): TraceMap {
  if (read?.map !== map) read = { map, trace: new TraceMap(map) };
  return read.trace;
}

/** The stack as the author knows it, or the beginning of it. The guest can put what it likes in a stack, and none of its fuel pays for this. */
export function mappedStack(stack: string, map: string | null): string {
  const lines = stack
    .slice(0, PROBLEM_CHARS_MAX)
    .split("\n")
    .filter((line) => line !== "" && !INNER_FRAME.test(line));
  const shown = lines.join("\n");
  if (map === null) return shown;
  try {
    const trace = traceOf(map);
    const mapped = shown.replace(PLACE, (place, line: string, column: string) => {
      const found = originalPositionFor(trace, { line: Number(line), column: Number(column) - 1 });
      return found.source === null ? place : `${found.source.slice(0, SOURCE_CHARS_MAX)}:${found.line}:${found.column + 1}`;
    });
    return mapped.slice(0, PROBLEM_CHARS_MAX);
  } catch {
    // A map that is not one is the bundle's own fault.
    return shown;
  }
}
