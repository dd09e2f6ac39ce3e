/** The workerd that serves, and how V8 is set in it. */
import { createRequire } from "node:module";

/** The one that belongs to Miniflare, wherever npm put it, unless the environment names another. */
export function workerdBinary(): string {
  const known = process.env["DROVER_WORKERD"] ?? process.env["MINIFLARE_WORKERD_PATH"];
  if (known !== undefined) return known;
  const requireAsMiniflare = createRequire(createRequire(import.meta.url).resolve("miniflare"));
  return (requireAsMiniflare("workerd") as { default: string }).default;
}

/** The collector is for workers/kit/garbage.ts. */
export function v8Flags(): string[] {
  return ["--expose-gc", ...(process.env["MINIFLARE_WORKERD_V8_FLAGS"] ?? "").split(" ").filter((flag) => flag !== "")];
}

/** workerd says it of every isolate that it starts where V8 has flags; it costs the isolate 3 ms. */
const NO_CONCERN = "NOSENTRY per-isolate bootstrap compile cache";

/** Whether anybody should read it. */
export const isNews = (message: string): boolean => !message.includes(NO_CONCERN);
